//! Following the shared state: what is registered and reported becomes snapshots, what is uploaded
//! becomes versions. A store that is silent empties nothing: the last snapshot stays.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use mrgc_fleet::{
    model::{InstanceId, Region, RegionId, Standing, Timestamp},
    snapshot::{Builder, Member, Snapshot},
};
use mrgc_store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::{
    config::Config,
    control::Uploads,
    health::{Check, HealthBoard},
    policies::Handle,
    watch::Sightings,
};

/// Between two looks at the store.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest pause while the store is away; the pause is drawn at random below it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is read of the store in one go.
#[derive(Debug, Default)]
pub struct State {
    pub regions: Vec<Region>,
    pub standings: Vec<Standing>,
}

impl State {
    /// Reads all regions and their instances, regions in parallel.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        let regions = store.regions().await?;
        let mut lists = JoinSet::new();
        for region in &regions {
            let (store, id) = (store.clone(), region.id.clone());
            lists.spawn(async move { store.instances(&id).await });
        }
        let mut standings = Vec::new();
        while let Some(list) = lists.join_next().await {
            // A panic in a reader would have ended the process.
            standings.extend(list.unwrap_or_else(|_| Ok(Vec::new()))?);
        }
        Ok(Self { regions, standings })
    }
}

/// Judges freshness by this router's clock and the change of sequence, never by another's clock.
#[derive(Debug)]
pub struct Freshness {
    stale_after: Duration,
    seen: HashMap<InstanceId, (u64, u64, Instant)>,
}

impl Freshness {
    pub fn new(stale_after: Duration) -> Self {
        Self { stale_after, seen: HashMap::new() }
    }

    /// Whether the instance's reports still come. The first sight of one counts as fresh.
    fn look(&mut self, standing: &Standing, now: Instant) -> bool {
        let Some(report) = &standing.report else { return false };
        let entry = self.seen.entry(report.id.clone()).or_insert((0, 0, now));
        if (entry.0, entry.1) != (report.generation, report.sequence) {
            *entry = (report.generation, report.sequence, now);
        }
        now.duration_since(entry.2) < self.stale_after
    }

    fn forget_gone(&mut self, standings: &[Standing]) {
        if self.seen.len() > 2 * standings.len() + 64 {
            let known: std::collections::HashSet<_> =
                standings.iter().map(|s| &s.registration.id).collect();
            self.seen.retain(|id, _| known.contains(id));
        }
    }
}

/// Makes snapshots of what was read and seen.
#[derive(Debug)]
pub struct Composer {
    builder: Builder,
    freshness: Freshness,
    sightings: Sightings,
}

impl Composer {
    pub fn new(home: RegionId, stale_after: Duration, sightings: Sightings) -> Self {
        Self { builder: Builder::new(home), freshness: Freshness::new(stale_after), sightings }
    }

    pub fn compose(&mut self, state: State) -> Snapshot {
        let now = Instant::now();
        self.freshness.forget_gone(&state.standings);
        let member = |standing: Standing| {
            let unhealthy = self.sightings.is_unhealthy(&standing.registration.id);
            Member { fresh: self.freshness.look(&standing, now) && !unhealthy, standing }
        };
        let members = state.standings.into_iter().map(member).collect();
        self.builder.build(wall_clock(), state.regions, members, &self.sightings.rtt_ms())
    }
}

pub fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// Follows the store, for ever.
pub async fn follow(
    store: Store,
    mut composer: Composer,
    conductor: Handle,
    uploads: Arc<Uploads>,
    health: HealthBoard,
) {
    let mut failures = 0u32;
    loop {
        match State::read(&store).await {
            Ok(state) => {
                failures = 0;
                health.set("store", Check::ok());
                publish(&conductor, &health, composer.compose(state));
                uploads.catch_up(&store).await;
            }
            Err(e) => {
                failures = failures.saturating_add(1);
                tracing::warn!("cannot read the state: {e}");
                health.set("store", Check::degraded(format!("the last snapshot stands: {e}")));
            }
        }
        tokio::time::sleep(pause(failures)).await;
    }
}

/// Full jitter, so that routers do not all come back at once.
fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return INTERVAL;
    }
    let most = INTERVAL.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE);
    INTERVAL.max(most.mul_f64(fastrand::f64()))
}

/// Publishes a snapshot unless it says what the last one did.
pub fn publish(conductor: &Handle, health: &HealthBoard, snapshot: Snapshot) {
    health.set("fleet", fleet_check(&snapshot));
    let current = conductor.fleet();
    let same_views = {
        let old: Vec<_> = current.snapshot.shared_views().collect();
        let new: Vec<_> = snapshot.shared_views().collect();
        old.len() == new.len() && old.iter().zip(&new).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    if !same_views
        || current.snapshot.regions != snapshot.regions
        || current.snapshot.instances != snapshot.instances
    {
        conductor.publish(snapshot);
    }
}

pub fn fleet_check(snapshot: &Snapshot) -> Check {
    let mut routable = false;
    let mut at_home = false;
    for candidate in snapshot.views().flat_map(|view| &view.candidates).filter(|c| c.ready) {
        routable = true;
        at_home |= candidate.region == snapshot.home;
    }
    match (routable, at_home) {
        (true, true) => Check::ok(),
        (true, false) => {
            Check::degraded("no instance of this region is ready; other regions serve")
        }
        (false, _) => Check::error("no instance anywhere is ready"),
    }
}

/// The fleet of a router without a store: what its configuration lists.
pub fn static_state(config: &Config) -> State {
    use mrgc_fleet::model::{EnclaveState, Health, Lifecycle, Report};
    let standing = |instance: &crate::config::StaticInstance| {
        let registration = instance.registration();
        let report = Report {
            id: registration.id.clone(),
            region: registration.region.clone(),
            generation: registration.generation,
            sequence: 1,
            at: Timestamp::default(),
            lifecycle: Lifecycle::Available,
            health: Health::Healthy,
            reason: None,
            queue_depth: None,
            running: None,
            avg_latency_ms: None,
            time_to_first_token_ms: None,
            models: instance.models.clone(),
            enclave: EnclaveState::Absent,
            gpu_utilization: None,
            gpu_memory_free_bytes: None,
        };
        Standing { registration, report: Some(report) }
    };
    State {
        regions: config.regions.clone(),
        standings: config.instances.iter().map(standing).collect(),
    }
}

/// Recomposes a static fleet as round trips change, for ever.
pub async fn refresh_static(
    config: Arc<Config>,
    mut composer: Composer,
    conductor: Handle,
    health: HealthBoard,
    every: Duration,
) {
    let mut known: BTreeMap<RegionId, Region> = BTreeMap::new();
    loop {
        tokio::time::sleep(every).await;
        let mut state = static_state(&config);
        // Regions registered through the API stay.
        known.extend(conductor.fleet().snapshot.regions.iter().map(|r| (r.id.clone(), r.clone())));
        state.regions = known.values().cloned().collect();
        publish(&conductor, &health, composer.compose(state));
    }
}
