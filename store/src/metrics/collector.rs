//! Gathers measurements in memory and stores them minute by minute.

use std::sync::{Mutex, MutexGuard, PoisonError};

use mrgc_fleet::model::{Measured, PoolId, PoolMinute, RegionId, Sample, Timestamp};

use super::{KEPT_SECONDS, items_of, pending::Pending};
use crate::{
    Store,
    clock::{self, MINUTE_MS},
    error::StoreError,
    item::Item,
    schema::Table,
};

/// One program's measurements of a region's pools.
///
/// Recording takes a lock for microseconds and does no I/O; storing is [`MetricsCollector::flush`], which
/// the program calls about once a minute, at a second of its own choice.
#[derive(Debug)]
pub struct MetricsCollector {
    store: Store,
    region: RegionId,
    writer: String,
    /// Tells this run's items from those of an earlier run in the same minute.
    run: String,
    pending: Mutex<Pending>,
    /// One flush at a time, so that no item is written twice for nothing.
    flushing: tokio::sync::Mutex<()>,
}

/// What happened at a collector's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectorCounts {
    /// Samples that were no measurement: negative, infinite or not a number.
    pub rejected_samples: u64,
    /// Samples of more pools than are gathered at the same time.
    pub dropped_samples: u64,
    /// Items that were dropped because too many wait, or because they can never be stored.
    pub dropped_items: u64,
    /// Minutes and items that are not stored yet.
    pub waiting: usize,
}

impl MetricsCollector {
    /// `writer` names the program, as in `router-1`, and is the same after a restart: the rates of two
    /// writers add up, those of one do not.
    pub fn new(store: Store, region: RegionId, writer: &str) -> Self {
        Self {
            store,
            region,
            writer: writer.to_owned(),
            run: format!("{:016x}", fastrand::u64(..)),
            pending: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// Requests per second of a pool, as far as this program served them.
    pub fn record_rps(&self, pool: &PoolId, rps: f64) {
        self.record(clock::now(), pool, &Sample::RequestsPerSecond(rps));
    }

    /// Requests that wait at one of a pool's instances.
    pub fn record_queue_depth(&self, pool: &PoolId, depth: u32) {
        self.record(clock::now(), pool, &Sample::QueueDepth(depth));
    }

    pub fn record_model_load_time(&self, pool: &PoolId, seconds: f64) {
        self.record(clock::now(), pool, &Sample::ModelLoad { seconds });
    }

    /// How long one request took. Percentiles come from all of them, when they are read.
    pub fn record_inference_latency(&self, pool: &PoolId, ms: f64) {
        self.record(clock::now(), pool, &Sample::InferenceLatency { ms });
    }

    /// How long one operation on an enclave took, as in `attest`. Of names, 15 are told apart in a minute.
    pub fn record_enclave_operation(&self, pool: &PoolId, operation: &str, ms: f64) {
        self.record(clock::now(), pool, &Sample::EnclaveOperation { name: operation, ms });
    }

    pub fn record_cleanup(&self, pool: &PoolId, passed: bool) {
        self.record(clock::now(), pool, &Sample::Cleanup { passed });
    }

    /// Any measurement, of any time: it goes to the minute it was made in.
    pub fn record(&self, at: Timestamp, pool: &PoolId, sample: &Sample<'_>) {
        self.pending().record(at, pool, sample);
    }

    /// Measurements that were gathered elsewhere, as a whole.
    pub fn merge(&self, at: Timestamp, pool: &PoolId, measured: &Measured) {
        self.pending().merge(at, pool, measured);
    }

    /// Stores the minutes that are over. What a failed call leaves is tried again by the next one.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let now = clock::now();
        self.flush_before(Timestamp(now.0 - now.0 % MINUTE_MS)).await
    }

    /// Stores everything, the minute that has just begun included: for the end of a program, or for who
    /// wants to read now what was recorded now.
    pub async fn flush_all(&self) -> Result<(), StoreError> {
        self.flush_before(Timestamp(u64::MAX)).await
    }

    pub fn counts(&self) -> CollectorCounts {
        let pending = self.pending();
        CollectorCounts {
            rejected_samples: pending.rejected_samples,
            dropped_samples: pending.dropped_samples,
            dropped_items: pending.dropped_items,
            waiting: pending.waiting(),
        }
    }

    async fn flush_before(&self, end: Timestamp) -> Result<(), StoreError> {
        let _one_at_a_time = self.flushing.lock().await;
        let mut first_error = None;
        for item in self.seal_before(end) {
            match self.store.put(Table::Metrics, item.clone()).await {
                Ok(()) => self.pending().forget(&item),
                // The others would fail the same way, each after the call's deadline.
                Err(error) if error.is_retryable() => return Err(first_error.unwrap_or(error)),
                Err(error) => {
                    if matches!(error, StoreError::Other { .. } | StoreError::Invalid { .. }) {
                        let mut pending = self.pending();
                        pending.forget(&item);
                        pending.dropped_items += 1;
                    }
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// The items that wait, with those that are made of the minutes before `end`.
    fn seal_before(&self, end: Timestamp) -> Vec<Item> {
        let mut pending = self.pending();
        for (minute, pool, measured) in pending.take_before(end) {
            let minute = PoolMinute {
                region: self.region.clone(),
                pool,
                writer: self.writer.clone(),
                minute,
                measured,
                expires_at: clock::seconds(minute) + KEPT_SECONDS,
            };
            let mut number = pending.number;
            let items = items_of(minute, &self.run, &mut number);
            pending.number = number;
            pending.seal(items);
        }
        pending.sealed()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
