//! Looking at the fleet itself: round trips to other regions' routers, and probes of this region's agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mrgc_fleet::model::{InstanceId, RegionId};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{config::HealthCheck, policies::Handle};

/// Probes under way at once.
const PARALLEL_PROBES: usize = 20;
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Weight of a new round trip in the running mean.
const RTT_WEIGHT: f64 = 0.2;

/// What was seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sightings(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    rtt_ms: BTreeMap<RegionId, f64>,
    /// Failed probes in a row.
    failures: BTreeMap<InstanceId, u32>,
    unhealthy: BTreeSet<InstanceId>,
}

impl Sightings {
    pub fn rtt_ms(&self) -> BTreeMap<RegionId, f64> {
        self.lock().rtt_ms.clone()
    }

    /// Instances whose probes failed too often.
    pub fn unhealthy(&self) -> BTreeSet<InstanceId> {
        self.lock().unhealthy.clone()
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinged(&self, region: RegionId, rtt_ms: Option<f64>) {
        let mut seen = self.lock();
        match (rtt_ms, seen.rtt_ms.get_mut(&region)) {
            (Some(rtt), Some(mean)) => *mean += RTT_WEIGHT * (rtt - *mean),
            (Some(rtt), None) => {
                seen.rtt_ms.insert(region, rtt);
            }
            (None, _) => {
                seen.rtt_ms.remove(&region);
            }
        }
    }

    /// The first failure is followed by `threshold` more before an instance counts as unhealthy.
    fn probed(&self, instance: InstanceId, passed: bool, threshold: u32) {
        let mut seen = self.lock();
        if passed {
            seen.failures.remove(&instance);
            seen.unhealthy.remove(&instance);
            return;
        }
        let failures = seen.failures.entry(instance.clone()).or_default();
        *failures += 1;
        if *failures > threshold {
            seen.unhealthy.insert(instance);
        }
    }
}

/// Pings the routers of other regions, for ever.
pub async fn ping(
    conductor: Handle,
    sightings: Sightings,
    every: Duration,
    client: reqwest::Client,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let fleet = conductor.fleet();
        let mut pings = JoinSet::new();
        for region in fleet.snapshot.regions.iter().filter(|r| r.id != fleet.snapshot.home) {
            let (id, client) = (region.id.clone(), client.clone());
            let url = format!("{}/health", region.endpoint.trim_end_matches('/'));
            pings.spawn(async move {
                let started = Instant::now();
                let answer = client.get(url).timeout(PING_TIMEOUT).send().await;
                (id, answer.ok().map(|_| started.elapsed().as_secs_f64() * 1000.0))
            });
        }
        while let Some(Ok((region, rtt_ms))) = pings.join_next().await {
            sightings.pinged(region, rtt_ms);
        }
    }
}

/// Probes `/health` of this region's agents, for ever. A draining or unhealthy agent fails its probe.
pub async fn probe(
    conductor: Handle,
    sightings: Sightings,
    config: HealthCheck,
    client: reqwest::Client,
) {
    let timeout = Duration::from_secs_f64(config.timeout_seconds);
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(config.interval_seconds));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let permits = Arc::new(Semaphore::new(PARALLEL_PROBES));
    loop {
        ticks.tick().await;
        let fleet = conductor.fleet();
        let mut probes = JoinSet::new();
        for standing in &fleet.snapshot.instances {
            let registration = &standing.registration;
            if registration.region != fleet.snapshot.home || registration.health_address.is_empty()
            {
                continue;
            }
            let (id, client, permits) = (registration.id.clone(), client.clone(), permits.clone());
            let url = format!("http://{}/health", registration.health_address);
            probes.spawn(async move {
                let _permit = permits.acquire().await;
                let answer = client.get(url).timeout(timeout).send().await;
                (id, answer.is_ok_and(|answer| answer.status().is_success()))
            });
        }
        while let Some(Ok((instance, passed))) = probes.join_next().await {
            sightings.probed(instance, passed, config.failure_threshold);
        }
    }
}
