//! The router's configuration: as written in TOML and the environment (`MRGC_ROUTER__…`), then validated.

mod attestation;
mod aws;
mod check;
mod ejection;
mod failover;
mod health_check;
mod region;
mod route;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use mrgc_fleet::{
    guard::PlacementRule,
    model::{PoolId, Region, RegionId, Registration},
};
use mrgc_settings::Problems;
use mrgc_store::{StoreConfig, look_interval};
use serde::{Deserialize, Serialize};

pub use attestation::Attestation;
pub use aws::Aws;
pub use check::is_policy_name;
pub use ejection::Ejection;
pub use failover::Failover;
pub use health_check::{HealthCheck, Scheme};
pub use region::Written as WrittenRegion;
pub use route::{LevelChoice, Match, Route, RoutePolicy, Tenant};

/// The whole configuration. Every key has a default but `region`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The region this router serves.
    pub region: Option<RegionId>,
    pub roles: Roles,
    pub listen: Listen,
    pub limits: Limits,
    pub health_check: HealthCheck,
    pub ejection: Ejection,
    pub failover: Failover,
    /// Left out: a static fleet, from `regions` and `instances`.
    pub store: Option<StoreConfig>,
    pub aws: Aws,
    pub follow: Follow,
    pub attestation: Attestation,
    pub metrics: Metrics,
    pub state: State,
    pub policies: Policies,
    pub peers: Peers,
    /// Registered by this router at start, and all there is without a store.
    #[serde(deserialize_with = "region::list")]
    pub regions: Vec<Region>,
    pub instances: Vec<StaticInstance>,
    pub routes: Vec<Route>,
    pub tenants: Vec<Tenant>,
    pub placement: Vec<PlacementRule>,
}

/// What this process does. Those that are not told do all but serve the state. Each but that one serves the
/// control API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(pub BTreeSet<Role>);

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Forwards requests.
    Proxy,
    /// Probes the region's instances; drains and replaces those that are unhealthy.
    Health,
    /// Writes what it finds of the regions, and carries out what operators want of them.
    Failover,
    /// Serves the embedded state engine, for one machine.
    State,
}

impl Default for Roles {
    fn default() -> Self {
        Self(BTreeSet::from([Role::Proxy, Role::Health, Role::Failover]))
    }
}

impl Roles {
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether this process knows the fleet: all roles but that of the state.
    pub fn watch_fleet(&self) -> bool {
        self.0.iter().any(|role| *role != Role::State)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Where clients and other routers send requests: of the role `proxy`.
    pub data: SocketAddr,
    /// The operator's API, of every role but `state`. It has no authentication of its own: keep it on loopback.
    pub control: SocketAddr,
    /// Data threads; 0 for one per core.
    pub threads: usize,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            data: SocketAddr::from(([0, 0, 0, 0], 8000)),
            control: SocketAddr::from(([127, 0, 0, 1], 9000)),
            threads: 0,
        }
    }
}

/// Bounds of a request's way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub head_bytes: usize,
    /// A body up to this is kept, so that another instance can be tried; a longer one is streamed.
    pub buffered_body_bytes: usize,
    /// A longer body is refused with 413.
    pub body_bytes: u64,
    /// Attempts of a request over all instances and regions.
    pub attempts: usize,
    pub connect_timeout_ms: u64,
    /// From sending a request to the head of its response.
    pub first_byte_timeout_ms: u64,
    /// Between two parts of a body, in either direction.
    pub idle_timeout_ms: u64,
    /// Of a request's attempts together, where the client set no shorter deadline.
    pub deadline_ms: u64,
    /// Connections to one instance that one data thread keeps unused.
    pub idle_connections: usize,
    /// Connections of clients to one data thread.
    pub connections: usize,
    /// How long requests in flight have to end once the router is told to stop.
    pub drain_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 << 10,
            buffered_body_bytes: 1 << 20,
            body_bytes: 64 << 20,
            attempts: 3,
            connect_timeout_ms: 1000,
            first_byte_timeout_ms: 120_000,
            idle_timeout_ms: 120_000,
            deadline_ms: 300_000,
            idle_connections: 256,
            connections: 16_384,
            drain_seconds: 30,
        }
    }
}

impl Limits {
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

/// How the state is followed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Follow {
    /// Between two looks at the heartbeats of a small fleet; see [`look_interval`] for a large one.
    pub interval_seconds: f64,
    /// Between two looks at the registrations of instances that do not report.
    pub registrations_interval_seconds: f64,
}

impl Default for Follow {
    fn default() -> Self {
        Self { interval_seconds: 1.0, registrations_interval_seconds: 15.0 }
    }
}

impl Follow {
    /// Between two looks at so many instances.
    pub fn interval(&self, instances: usize) -> Duration {
        look_interval(Duration::from_secs_f64(self.interval_seconds), instances as u64)
    }
}

/// How what is measured of the region's pools is stored.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Between two flushes. A minute is stored when it is over; where this is shorter, in parts.
    pub flush_interval_seconds: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { flush_interval_seconds: 60.0 }
    }
}

impl Metrics {
    pub fn flush_interval(&self) -> Duration {
        Duration::from_secs_f64(self.flush_interval_seconds)
    }
}

/// The embedded state engine (role `state`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    pub listen: SocketAddr,
    pub file: PathBuf,
}

impl Default for State {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8100)), file: "mrgc-state.sqlite".into() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policies {
    /// Folder of `<name>.wasm` components; what is uploaded takes precedence.
    pub dir: PathBuf,
    pub score_deadline_ms: u64,
    pub observe_deadline_ms: u64,
    pub memory_bytes: usize,
}

impl Default for Policies {
    fn default() -> Self {
        let limits = mrgc_policy_host::Limits::default();
        Self {
            dir: "/usr/lib/mrgc/policies".into(),
            score_deadline_ms: limits.score_deadline.as_millis() as u64,
            observe_deadline_ms: limits.observe_deadline.as_millis() as u64,
            memory_bytes: limits.memory_bytes,
        }
    }
}

impl Policies {
    pub fn limits(&self) -> mrgc_policy_host::Limits {
        mrgc_policy_host::Limits {
            memory_bytes: self.memory_bytes,
            score_deadline: Duration::from_millis(self.score_deadline_ms),
            observe_deadline: Duration::from_millis(self.observe_deadline_ms),
            ..Default::default()
        }
    }
}

/// How routers of different regions know one another.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// The same secret on every router. Without it no request crosses regions.
    #[serde(skip_serializing)]
    pub key: Option<String>,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.as_ref().map(|_| "(set)");
        f.debug_struct("Peers").field("key", &key).finish()
    }
}

/// An instance of a static fleet: always registered, taken as healthy until the router finds otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticInstance {
    pub id: String,
    pub region: RegionId,
    pub pool: PoolId,
    /// `host:port` of the inference server.
    pub address: String,
    #[serde(default)]
    pub models: Vec<String>,
    #[serde(default)]
    pub slots: Option<u32>,
    #[serde(default)]
    pub cost_per_hour: Option<f64>,
    #[serde(default)]
    pub frameworks: Vec<mrgc_fleet::model::Framework>,
}

impl StaticInstance {
    pub fn registration(&self) -> Registration {
        Registration {
            slots: self.slots,
            cost_per_hour: self.cost_per_hour,
            frameworks: self.frameworks.clone(),
            ..Registration::new(
                self.id.as_str(),
                self.region.clone(),
                self.pool.clone(),
                self.address.clone(),
            )
        }
    }
}

impl Config {
    /// Reads a file's text and the environment over it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once, each with its line or variable.
    pub fn read(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    ) -> Result<Self, Problems> {
        check::read(name, text, environment)
    }

    /// The region this router serves; set in every validated configuration.
    pub fn home(&self) -> RegionId {
        self.region.clone().unwrap_or_else(|| "unknown".into())
    }

    pub fn threads(&self) -> usize {
        match self.listen.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
