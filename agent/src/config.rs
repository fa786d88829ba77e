//! The agent's configuration: TOML and the environment (`MRGC_AGENT__…`), read and checked as one.
//!
//! `agent.example.toml` has every key with its default.

mod check;
mod inference;
mod life;
mod raw;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mrgc_fleet::model::{Framework, InstanceId, PoolId, RegionId};
use mrgc_settings::{Problems, Written};
use mrgc_store::StoreConfig;
use serde::Deserialize;
use thiserror::Error;

pub(crate) use self::check::is_name;
pub use self::inference::{
    Inference, InferenceKind, InferenceSource, InferenceTarget, MetricNames, TimeUnit,
};
pub use self::life::{Cleanup, Identity, IdentitySource, Notices, OnRebalance};
use crate::{enclave::Channel, health::Requirements, lifecycle::DrainLimits};

/// What the names of the environment variables begin with, before `__`.
pub const ENVIRONMENT_PREFIX: &str = "MRGC_AGENT";

/// Where systemd says what StateDirectory= made: paths with colons between them.
const STATE_DIRECTORY: &str = "STATE_DIRECTORY";

/// A configuration is small; whatever is larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Config {
    pub instance: Instance,
    pub identity: Identity,
    pub listen: SocketAddr,
    pub inference: Option<Inference>,
    pub gpu: Gpu,
    pub enclave: Enclave,
    pub heartbeat: Heartbeat,
    pub drain: DrainLimits,
    pub notices: Notices,
    pub cleanup: Cleanup,
    /// What must outlive the process is kept here; `None`: nothing is.
    pub state_directory: Option<PathBuf>,
    pub store: StoreConfig,
    pub log: Log,
    /// All of this as it is written, to tell what a reload changes.
    pub written: Written,
}

/// Who this instance is, as far as that is configured; `identity` has the rest.
#[derive(Clone, Debug)]
pub struct Instance {
    pub id: Option<InstanceId>,
    pub region: Option<RegionId>,
    pub zone: Option<String>,
    pub subnet_id: Option<String>,
    pub subnet_cidr: Option<String>,
    pub ami_id: Option<String>,
    pub pool: PoolId,
    /// `host:port` of the inference server, as the router reaches it.
    pub address: Option<String>,
    /// The inference server's port, where EC2 gives the host; `None`: that of `inference.url`.
    pub port: Option<u16>,
    /// `host:port` of `/health`; `None`: the host of `address` and the port that the agent listens on.
    pub health_address: Option<String>,
    pub provider: Option<String>,
    pub instance_type: Option<String>,
    pub slots: Option<u32>,
    pub cost_per_hour: Option<f64>,
    pub frameworks: Vec<Framework>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Gpu {
    /// `None`: where the system finds `libnvidia-ml.so.1`.
    pub library: Option<String>,
    pub required: bool,
    pub interval: Duration,
    /// How long NVML may take before it counts as hung.
    pub deadline: Duration,
    /// Intervals from one round that asks for everything to the next.
    pub rare_every: u32,
    /// GPUs that there must be; `None`: as many as were ever listed.
    pub count: Option<u32>,
    /// Where the kernel's log is, for XIDs.
    pub kernel_log: PathBuf,
    /// Touching it acknowledges the XIDs until then.
    pub acknowledgement_file: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Enclave {
    /// A name in PATH, or a path.
    pub nitro_cli: String,
    /// Where `nitro-cli` writes its log; `None`: the agent's own logs, or a folder of this process's.
    pub logs_directory: Option<PathBuf>,
    /// The driver's, which enclaves need.
    pub device: PathBuf,
    /// What the enclaves' allocator is configured by.
    pub allocator: PathBuf,
    /// The way to the program inside of the enclave; `None`: it is neither asked nor attested.
    pub channel: Option<Channel>,
    pub required: bool,
    pub interval: Duration,
    pub timeout: Duration,
}

/// How often heartbeats are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub mode: HeartbeatMode,
    /// Between two heartbeats, or two looks at whether one is worth writing.
    pub interval: Duration,
    /// The longest silence, where nothing changes or the store throttles.
    pub max_interval: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeartbeatMode {
    /// One every interval.
    Fixed,
    /// One where it says something new, and at least one every `max_interval`.
    #[default]
    Adaptive,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// As in `info` or `mrgc_agent=debug,info`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        // The AWS SDK's warnings repeat, at length, what the agent says itself.
        Self { format: LogFormat::Text, level: "info,aws_config=error".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is {bytes} bytes long, more than any configuration: name another file", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// Reads the file, where there is one, and the environment over it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => Some((path.display().to_string(), read_file(path)?)),
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let environment: Vec<_> = environment.into_iter().collect();
        let given = environment.iter().find(|(name, _)| name == STATE_DIRECTORY);
        let given = given.and_then(|(_, paths)| std::env::split_paths(paths).next());
        let config = check::check(file, environment)?;
        Ok(Self { state_directory: config.state_directory.or(given), ..config })
    }

    pub fn requirements(&self) -> Requirements {
        Requirements {
            gpu: self.gpu.required,
            enclave: self.enclave.required,
            inference: self.inference.as_ref().is_some_and(|inference| inference.required),
            silent_polls: self.inference.as_ref().map_or(1, |inference| inference.silent_polls),
        }
    }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    fs::read_to_string(path).map_err(failed)
}

impl Instance {
    /// Whether all is configured that an instance cannot register without.
    pub fn is_known(&self) -> bool {
        self.id.is_some() && self.region.is_some() && self.address.is_some()
    }
}

#[cfg(test)]
mod tests;
