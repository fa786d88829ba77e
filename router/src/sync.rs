//! Following the shared state: what is registered and reported becomes snapshots, what is uploaded
//! becomes versions. A store that is silent empties nothing: the last snapshot stays.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mrgc_fleet::{
    model::{EnclaveState, PoolId, RegionId, Standing, Timestamp},
    monitor::Reading,
    snapshot::{Candidate, Snapshot},
};
use mrgc_store::{Follower, FollowerConfig, Store, StoreError};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    config::{Config, Follow},
    control::Uploads,
    health::{Check, HealthBoard},
    monitor::Event,
    policies::Handle,
};

/// Longest pause while the store is away; the pause is drawn at random below it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Every region's follower.
#[derive(Debug)]
pub struct Followers {
    store: Store,
    home: RegionId,
    config: Follow,
    by_region: BTreeMap<RegionId, Follower>,
}

impl Followers {
    /// Nothing is read before the first refresh.
    pub fn new(store: Store, home: RegionId, config: Follow) -> Self {
        Self { store, home, config, by_region: BTreeMap::new() }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads what is new of all regions, in parallel.
    pub async fn refresh(&mut self) -> Result<Reading, StoreError> {
        let registrations_every =
            Duration::from_secs_f64(self.config.registrations_interval_seconds);
        let config = FollowerConfig { registrations_every };
        let regions = self.store.regions().await?;
        let (orders, records) =
            tokio::try_join!(self.store.region_orders(), self.store.region_records(&self.home))?;
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
                let standings = standings.cloned().collect();
                Ok(Reading { regions, standings, orders, records })
            }
        }
    }
}

pub fn wall_clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_millis() as u64))
}

/// Follows the store, for ever: what is read goes to the monitor.
pub async fn follow(
    mut followers: Followers,
    events: mpsc::Sender<Event>,
    uploads: Option<Arc<Uploads>>,
) {
    let (mut failures, mut instances) = (0u32, 0);
    loop {
        let event = match followers.refresh().await {
            Ok(reading) => {
                (failures, instances) = (0, reading.standings.len());
                let interval = followers.config.interval(instances);
                Event::Read { reading: Box::new(reading), interval }
            }
            Err(e) => {
                failures = failures.saturating_add(1);
                tracing::warn!("cannot read the state: {e}");
                Event::Away(e.to_string())
            }
        };
        // The monitor is gone when the process ends.
        let _ = events.send(event).await;
        if failures == 0
            && let Some(uploads) = &uploads
        {
            uploads.catch_up(&followers.store).await;
        }
        tokio::time::sleep(pause(followers.config.interval(instances), failures)).await;
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
pub fn static_state(config: &Config) -> Reading {
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
    Reading {
        regions: config.regions.clone(),
        standings: config.instances.iter().map(standing).collect(),
        ..Reading::default()
    }
}
