//! Instances that are nowhere: registered, and sending heartbeats as agents do, for a router to follow.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;
use mrgc_fleet::model::{Health, Lifecycle, RegionId, Registration, Report};
use mrgc_store::Store;
use tokio::task::JoinSet;

const WRITERS: u64 = 16;
const POOLS: u64 = 8;
/// A write that takes longer is counted as this.
const LONGEST_WRITE_US: u64 = 60_000_000;

#[derive(Clone, Debug)]
pub struct Crowd(Arc<Vec<Registration>>);

/// A crowd's heartbeats. Dropped, they end.
#[derive(Debug)]
pub struct Heartbeats {
    sent: Arc<AtomicU64>,
    writes_us: Arc<Mutex<Histogram<u64>>>,
    _writers: JoinSet<Result<()>>,
}

impl Crowd {
    pub async fn register(store: &Store, region: &RegionId, instances: u64) -> Result<Self> {
        let mut registering = JoinSet::new();
        for writer in 0..WRITERS {
            let (store, region) = (store.clone(), region.clone());
            registering.spawn(async move {
                let mut registered = Vec::new();
                for n in (writer..instances).step_by(WRITERS as usize) {
                    registered.push(store.register(&registration(&region, n)).await?);
                }
                anyhow::Ok(registered)
            });
        }
        let mut all = Vec::new();
        while let Some(registered) = registering.join_next().await {
            all.extend(registered??);
        }
        Ok(Self(Arc::new(all)))
    }

    /// One that sends no heartbeats by itself.
    pub fn silent(&self) -> &Registration {
        &self.0[0]
    }

    /// Heartbeats of all others, evenly over an interval, again and again.
    pub fn beat(&self, store: &Store, interval: Duration) -> Result<Heartbeats> {
        let (sent, mut writers) = (Arc::<AtomicU64>::default(), JoinSet::new());
        let writes_us = Arc::new(Mutex::new(Histogram::new_with_bounds(1, LONGEST_WRITE_US, 3)?));
        for writer in 0..WRITERS {
            let (store, all) = (store.clone(), self.0.clone());
            let (sent, writes_us) = (sent.clone(), writes_us.clone());
            writers.spawn(async move {
                let own: Vec<_> =
                    all.iter().skip(1 + writer as usize).step_by(WRITERS as usize).collect();
                let mut ticks = tokio::time::interval(interval.div_f64(own.len() as f64));
                for sequence in 1.. {
                    for registration in &own {
                        ticks.tick().await;
                        let started = Instant::now();
                        store.report(&heartbeat(registration, sequence)).await?;
                        let took_us = started.elapsed().as_micros() as u64;
                        sent.fetch_add(1, Relaxed);
                        lock(&writes_us).saturating_record(took_us);
                    }
                }
                Ok(())
            });
        }
        Ok(Heartbeats { sent, writes_us, _writers: writers })
    }
}

impl Heartbeats {
    /// So far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// How long each took to be written.
    pub fn writes_us(&self) -> Histogram<u64> {
        lock(&self.writes_us).clone()
    }
}

fn lock(times: &Mutex<Histogram<u64>>) -> std::sync::MutexGuard<'_, Histogram<u64>> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registration(region: &RegionId, n: u64) -> Registration {
    let (id, pool) = (format!("i-{n:017x}"), format!("model-{}", n % POOLS));
    let address = format!("10.66.{}.{}:8000", n / 256, n % 256);
    Registration {
        zone: Some(format!("{region}a")),
        instance_type: Some("p5.48xlarge".to_owned()),
        slots: Some(64),
        ..Registration::new(id, region.clone(), pool, address)
    }
}

/// An available instance's, different each time.
pub fn heartbeat(registration: &Registration, sequence: u64) -> Report {
    Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        queue_depth: Some((sequence % 9) as u32),
        running: Some((sequence % 60) as u32),
        avg_latency_ms: Some(150.0 + (sequence % 100) as f64),
        time_to_first_token_ms: Some(80.0 + (sequence % 40) as f64),
        models: vec!["meta-llama/Llama-3.1-70B-Instruct".to_owned()],
        gpu_utilization: Some(0.5 + 0.005 * (sequence % 100) as f64),
        gpu_memory_free_bytes: Some(8_589_934_592),
        ..Report::new(
            registration.id.clone(),
            registration.region.clone(),
            registration.generation,
            sequence,
        )
    }
}
