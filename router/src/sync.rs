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
    if !says_the_same(&conductor.fleet().snapshot, &snapshot) {
        conductor.publish(snapshot);
    }
}

fn says_the_same(old: &Snapshot, new: &Snapshot) -> bool {
    same(old.shared_views(), new.shared_views())
        && same(&old.instances, &new.instances)
        && old.regions == new.regions
        && old.steering == new.steering
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mrgc_fleet::{
        failover::{RegionOrder, Strategy, Thresholds, Wish},
        model::Stamp,
        monitor::{Monitor, Settings},
    };

    use super::*;

    #[test]
    fn a_share_that_changes_is_news_though_nothing_else_does() {
        let text = r#"
            region = "us"
            regions = [{ region_id = "us", endpoint = "http://us:8000" }]
            instances = [{ id = "i-1", region = "us", pool = "p", address = "a:1" }]
        "#;
        let config = Config::read("router.toml", text, []).unwrap();
        let settings = Settings {
            home: config.home(),
            router: "us-1".to_owned(),
            stale_after_ms: u64::MAX,
            probes: None,
            peers: config.health_check.peers(),
            thresholds: Thresholds::default(),
            max_drained_share: 1.0,
        };
        let mut monitor = Monitor::new(settings, Timestamp(0));
        monitor.read(static_state(&config), 1_000, 0);
        let see = |monitor: &mut Monitor| {
            monitor.evaluate(0, Timestamp(0));
            monitor.compose(Timestamp(0), Arc::clone)
        };
        let (first, second) = (see(&mut monitor), see(&mut monitor));
        assert!(says_the_same(&first, &second));
        let order = RegionOrder {
            region: "us".into(),
            wish: Wish::FailOver { to: None, strategy: Strategy::Immediate },
            reason: None,
            operator: None,
            at: Timestamp(0),
            writer_region: "us".into(),
            stamp: Stamp::default(),
        };
        monitor.order(order, 0);
        assert!(!says_the_same(&second, &see(&mut monitor)));
    }
}
