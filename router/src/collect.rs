//! What this router measures of its region's pools, on its way to the table `metrics`.
//!
//! ```text
//!  data threads ── batches, each second ──┐
//!                                         ├─► window of a second ─► collector ── flush ─► store
//!  snapshot: queue depths, load times ────┘
//! ```
//!
//! Nothing waits for it: a data thread that finds no room goes on counting, and a store that is away leaves
//! the collector with what it can keep. Routers draw the second of the minute at which they flush.

mod window;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use mrgc_fleet::model::PoolId;
use mrgc_store::{MetricsCollector, Store, StoreError};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use crate::{config::Config, data::Batch, policies::Handle, sync::wall_clock};
use window::Window;

/// Between two looks at the fleet, and over which a rate is taken.
const WINDOW: Duration = Duration::from_secs(1);
/// Batches that wait to be gathered. At the bound data threads keep theirs and go on counting.
const BATCHES: usize = 256;
/// What the table's items hold.
const MINUTE: Duration = Duration::from_secs(60);
/// How long a process that ends may take to store what it still has.
const LAST_FLUSH: Duration = Duration::from_secs(3);

/// The router's measurements that are not stored yet, and what became of the others.
#[derive(Debug)]
pub struct Collection {
    collector: MetricsCollector,
    flush_interval: Duration,
    failed_flushes: AtomicU64,
}

/// What happened at the collection's bounds since the router started.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counts {
    /// Flushes that the store did not take whole; what is left is tried again by the next.
    pub failed_flushes: u64,
    /// Measurements that were none: negative or not a number.
    pub rejected_samples: u64,
    /// Measurements of more pools than are gathered at the same time.
    pub dropped_samples: u64,
    /// Items dropped because too many waited, or because they can never be stored.
    pub dropped_items: u64,
    /// Minutes and items that are not stored yet.
    pub waiting: usize,
}

impl Collection {
    /// `node` is this process's number: rates of two routers of a region add up, so each is a writer of
    /// its own.
    pub fn new(store: Store, config: &Config, node: u32) -> Self {
        let home = config.home();
        let writer = format!("{home}-{node:08x}");
        Self {
            collector: MetricsCollector::new(store, home, &writer),
            flush_interval: config.metrics.flush_interval(),
            failed_flushes: AtomicU64::default(),
        }
    }

    pub fn counts(&self) -> Counts {
        let counts = self.collector.counts();
        Counts {
            failed_flushes: self.failed_flushes.load(Relaxed),
            rejected_samples: counts.rejected_samples,
            dropped_samples: counts.dropped_samples,
            dropped_items: counts.dropped_items,
            waiting: counts.waiting,
        }
    }

    /// How long something took that an enclave was asked to do.
    pub fn record_enclave_operation(&self, pool: &PoolId, operation: &str, took: Duration) {
        self.collector.record_enclave_operation(pool, operation, took.as_secs_f64() * 1_000.0);
    }

    /// Gathers until the data threads have ended, then once more stores what there is.
    async fn run(&self, conductor: Handle, batches: mpsc::Receiver<Batch>) {
        tokio::select! {
            () = self.gather(conductor, batches) => {}
            () = self.flush_regularly() => {}
        }
        let flushed = timeout(LAST_FLUSH, self.collector.flush_all()).await;
        if !matches!(flushed, Ok(Ok(()))) {
            let left = self.counts().waiting;
            tracing::warn!(left, "measurements of the last minutes could not be stored");
        }
    }

    async fn gather(&self, conductor: Handle, mut batches: mpsc::Receiver<Batch>) {
        let mut window = Window::default();
        let mut opened = Instant::now();
        let mut ends = interval_at(opened + WINDOW, WINDOW);
        ends.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_ended = tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => {
                        window.add(batch);
                        continue;
                    }
                    None => true,
                },
                _ = ends.tick() => false,
            };
            // The last one is cut short; a rate over an instant would be none.
            let seconds = opened.elapsed().max(WINDOW).as_secs_f64();
            opened = Instant::now();
            let at = wall_clock();
            for (pool, measured) in window.close(seconds, &conductor.fleet().snapshot) {
                self.collector.merge(at, &pool, &measured);
            }
            if has_ended {
                return;
            }
        }
    }

    /// Stores what was gathered, for ever.
    async fn flush_regularly(&self) {
        let first = Instant::now() + self.flush_interval.mul_f64(fastrand::f64());
        let mut times = interval_at(first, self.flush_interval);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            times.tick().await;
            if let Err(e) = self.flush().await {
                self.failed_flushes.fetch_add(1, Relaxed);
                tracing::warn!("measurements wait for the store: {e}");
            }
        }
    }

    /// A minute is stored when it is over; who asks for it more often gets it in parts, which add up.
    async fn flush(&self) -> Result<(), StoreError> {
        if self.flush_interval < MINUTE {
            self.collector.flush_all().await
        } else {
            self.collector.flush().await
        }
    }
}

/// Starts collecting. It ends after the data threads, which hold what is returned.
pub fn start(
    collection: Arc<Collection>,
    conductor: Handle,
    background: &mut JoinSet<Result<()>>,
) -> mpsc::Sender<Batch> {
    let (to, batches) = mpsc::channel(BATCHES);
    background.spawn(async move {
        collection.run(conductor, batches).await;
        Ok(())
    });
    to
}
