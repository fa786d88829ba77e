//! Following the shared state: what is registered and reported becomes snapshots, what is uploaded
//! becomes versions. A store that is silent empties nothing: the last snapshot stays.

mod freshness;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mrgc_fleet::{
    model::{EnclaveState, PoolId, Region, RegionId, Standing, Timestamp},
    snapshot::{Builder, Candidate, Member, Snapshot},
};
use mrgc_store::{Follower, FollowerConfig, Store, StoreError};
use tokio::task::JoinSet;

use crate::{
    attestation::{Attestations, Known, Mask},
    config::{Config, Follow},
    control::Uploads,
    health::{Check, HealthBoard},
    policies::Handle,
    watch::Sightings,
};
use freshness::Freshness;

/// Longest pause while the store is away; the pause is drawn at random below it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Between two snapshots that nothing but an enclave was the reason for.
const LEAST_BETWEEN_SNAPSHOTS: Duration = Duration::from_millis(250);

/// The fleet's state as it was read last.
#[derive(Debug, Default)]
pub struct State {
    pub regions: Vec<Region>,
    /// One that did not change is the same allocation as before.
    pub standings: Vec<Arc<Standing>>,
}

/// Every region's follower.
#[derive(Debug)]
pub struct Followers {
    store: Store,
    config: Follow,
    by_region: BTreeMap<RegionId, Follower>,
}

impl Followers {
    /// Nothing is read before the first refresh.
    pub fn new(store: Store, config: Follow) -> Self {
        Self { store, config, by_region: BTreeMap::new() }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads what is new of all regions, in parallel.
    pub async fn refresh(&mut self) -> Result<State, StoreError> {
        let registrations_every =
            Duration::from_secs_f64(self.config.registrations_interval_seconds);
        let config = FollowerConfig { registrations_every };
        let regions = self.store.regions().await?;
        let mut before = std::mem::take(&mut self.by_region);
        let mut refreshing = JoinSet::new();
        for region in &regions {
            let new = || Follower::new(self.store.clone(), region.id.clone(), config);
            let mut follower = before.remove(&region.id).unwrap_or_else(new);
            refreshing.spawn(async move {
                let refreshed = follower.refresh().await;
                (follower, refreshed)
            });
        }
        let mut failed = None;
        // A panic in a follower would have ended the process.
        while let Some(Ok((follower, refreshed))) = refreshing.join_next().await {
            failed = failed.or(refreshed.err());
            self.by_region.insert(follower.region().clone(), follower);
        }
        match failed {
            Some(error) => Err(error),
            None => {
                let standings = self.by_region.values().flat_map(Follower::standings);
                Ok(State { regions, standings: standings.cloned().collect() })
            }
        }
    }
}

/// Makes snapshots of what was read and seen.
#[derive(Debug)]
pub struct Composer {
    builder: Builder,
    freshness: Freshness,
    sightings: Sightings,
    attestations: Attestations,
    mask: Mask,
    /// What the last snapshot was made of.
    regions: Vec<Region>,
    members: Vec<Member>,
}

impl Composer {
    pub fn new(config: &Config, sightings: Sightings, attestations: Attestations) -> Self {
        // What a configuration lists does not go stale.
        let stale_after = match config.store {
            Some(_) => Duration::from_secs_f64(config.health_check.stale_after_seconds),
            None => Duration::MAX,
        };
        let freshness = Freshness::new(stale_after, config.follow);
        Self {
            builder: Builder::new(config.home()),
            freshness,
            sightings,
            attestations,
            mask: Mask::default(),
            regions: Vec::new(),
            members: Vec::new(),
        }
    }

    pub fn compose(&mut self, state: State) -> Snapshot {
        let now = Instant::now();
        self.freshness.look(&state.standings, now);
        let unhealthy = self.sightings.unhealthy();
        let member = |standing: Arc<Standing>| {
            let fresh = self.freshness.is_fresh(&standing, now);
            Member { fresh: fresh && !unhealthy.contains(&standing.registration.id), standing }
        };
        self.mask.keep(&state.standings);
        self.members = state.standings.into_iter().map(member).collect();
        self.regions = state.regions;
        self.recompose()
    }

    /// The state that was composed last, with what is known of its enclaves by now.
    pub fn recompose(&mut self) -> Snapshot {
        let (elsewhere, board) = (self.sightings.attested_pools(), self.attestations.board());
        let known = Known { board: &board, elsewhere: &elsewhere, now: Instant::now() };
        let mask = |member: &Member| Member {
            standing: self.mask.apply(&member.standing, &known),
            fresh: member.fresh,
        };
        let members = self.members.iter().map(mask).collect();
        drop(board);
        let (regions, rtt_ms) = (self.regions.clone(), self.sightings.rtt_ms());
        self.builder.build(wall_clock(), regions, members, &rtt_ms)
    }
}

pub fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// Follows the store, for ever.
pub async fn follow(
    mut followers: Followers,
    mut composer: Composer,
    conductor: Handle,
    uploads: Arc<Uploads>,
    health: HealthBoard,
) {
    let (mut failures, mut instances) = (0u32, 0);
    loop {
        match followers.refresh().await {
            Ok(state) => {
                (failures, instances) = (0, state.standings.len());
                health.set("store", Check::ok());
                publish(&conductor, &health, composer.compose(state));
                uploads.catch_up(&followers.store).await;
            }
            Err(e) => {
                failures = failures.saturating_add(1);
                tracing::warn!("cannot read the state: {e}");
                health.set("store", Check::degraded(format!("the last snapshot stands: {e}")));
                // But for its enclaves: what attested them lapses all the same.
                publish(&conductor, &health, composer.recompose());
            }
        }
        let pause = pause(followers.config.interval(instances), failures);
        wait(pause, &mut composer, &conductor, &health).await;
    }
}

/// Waits for the next look. An enclave that is not attested any more is taken out at once.
async fn wait(pause: Duration, composer: &mut Composer, conductor: &Handle, health: &HealthBoard) {
    let attestations = composer.attestations.clone();
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return,
            () = attestations.revoked() => {
                publish(conductor, health, composer.recompose());
                tokio::time::sleep(LEAST_BETWEEN_SNAPSHOTS).await;
            }
        }
    }
}

/// Full jitter, so that routers do not all come back at once.
fn pause(interval: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return interval;
    }
    let most = interval.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE);
    interval.max(most.mul_f64(fastrand::f64()))
}

/// Publishes a snapshot unless it says what the last one did.
pub fn publish(conductor: &Handle, health: &HealthBoard, snapshot: Snapshot) {
    health.set("fleet", fleet_check(&snapshot));
    health.set_attested_pools(attested_pools(&snapshot));
    let current = conductor.fleet();
    let unchanged = same(current.snapshot.shared_views(), snapshot.shared_views())
        && same(&current.snapshot.instances, &snapshot.instances)
        && current.snapshot.regions == snapshot.regions;
    if !unchanged {
        conductor.publish(snapshot);
    }
}

/// Whether all are the same allocations.
fn same<'a, T: 'a>(
    old: impl IntoIterator<Item = &'a Arc<T>>,
    new: impl IntoIterator<Item = &'a Arc<T>>,
) -> bool {
    old.into_iter().map(Arc::as_ptr).eq(new.into_iter().map(Arc::as_ptr))
}

/// Pools of this region in which a request finds an attested enclave.
fn attested_pools(snapshot: &Snapshot) -> Vec<PoolId> {
    let serves = |c: &Candidate| c.ready && c.enclave == EnclaveState::Attested;
    let home = snapshot.views().filter(|view| view.key.region.as_ref() == Some(&snapshot.home));
    let attested = home.filter(|view| view.candidates.iter().any(serves));
    attested.map(|view| view.key.pool.clone()).collect()
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
    use mrgc_fleet::model::{Health, Lifecycle, Report};
    let standing = |instance: &crate::config::StaticInstance| {
        let registration = instance.registration();
        let report = Report {
            lifecycle: Lifecycle::Available,
            health: Health::Healthy,
            models: instance.models.clone(),
            ..Report::new(
                registration.id.clone(),
                registration.region.clone(),
                registration.generation,
                1,
            )
        };
        Standing::new(registration, Some(report)).into()
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
