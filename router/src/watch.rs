//! Looking at the fleet itself: round trips to other regions' routers, and probes of this region's agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mrgc_fleet::model::{InstanceId, PoolId, RegionId};
use serde::Deserialize;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{config::HealthCheck, policies::Handle};

/// Probes under way at once.
const PARALLEL_PROBES: usize = 20;
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// Weight of a new round trip in the running mean.
const RTT_WEIGHT: f64 = 0.2;

/// A router's answer to a ping; one that is longer is not read for what it says.
const MAX_PONG_BYTES: usize = 64 << 10;

/// Pools with an attested enclave, by the word of other regions' routers.
pub type AttestedPools = BTreeMap<RegionId, BTreeSet<PoolId>>;

/// What was seen. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sightings(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    rtt_ms: BTreeMap<RegionId, f64>,
    attested_pools: AttestedPools,
    /// Failed probes in a row.
    failures: BTreeMap<InstanceId, u32>,
    unhealthy: BTreeSet<InstanceId>,
}

impl Sightings {
    pub fn rtt_ms(&self) -> BTreeMap<RegionId, f64> {
        self.lock().rtt_ms.clone()
    }

    pub fn attested_pools(&self) -> AttestedPools {
        self.lock().attested_pools.clone()
    }

    /// Instances whose probes failed too often.
    pub fn unhealthy(&self) -> BTreeSet<InstanceId> {
        self.lock().unhealthy.clone()
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinged(&self, region: RegionId, pong: Option<Pong>) {
        let mut seen = self.lock();
        let Some(Pong { rtt_ms, attested_pools }) = pong else {
            seen.rtt_ms.remove(&region);
            seen.attested_pools.remove(&region);
            return;
        };
        match seen.rtt_ms.get_mut(&region) {
            Some(mean) => *mean += RTT_WEIGHT * (rtt_ms - *mean),
            None => {
                seen.rtt_ms.insert(region.clone(), rtt_ms);
            }
        }
        seen.attested_pools.insert(region, attested_pools);
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

/// What a router answered.
struct Pong {
    rtt_ms: f64,
    attested_pools: BTreeSet<PoolId>,
}

/// `None` where nobody answered. Of what the answer says, nothing is needed.
async fn ping_one(client: &reqwest::Client, url: String) -> Option<Pong> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Health {
        attested_pools: BTreeSet<PoolId>,
    }
    let started = Instant::now();
    let mut answer = client.get(url).timeout(PING_TIMEOUT).send().await.ok()?;
    let rtt_ms = started.elapsed().as_secs_f64() * 1000.0;
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len() + chunk.len() > MAX_PONG_BYTES {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let health: Health = serde_json::from_slice(&body).unwrap_or_default();
    Some(Pong { rtt_ms, attested_pools: health.attested_pools })
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
            pings.spawn(async move { (id, ping_one(&client, url).await) });
        }
        while let Some(Ok((region, pong))) = pings.join_next().await {
            sightings.pinged(region, pong);
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
