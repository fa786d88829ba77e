//! What the `metrics` table holds: what programs measured of each pool, minute by minute.
//!
//! Everything here adds up: minutes, writers and halves of an item merge into one [`PoolMetrics`]. What
//! nobody measured is absent, never 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{PoolId, RegionId, Timestamp};
use crate::histogram::Histogram;

/// Enclave operations that are told apart in one minute of a pool; further ones count as `other`.
pub const MAX_OPERATIONS: usize = 16;
/// Bytes of an operation's name; of a longer one the start counts.
pub const MAX_OPERATION_BYTES: usize = 48;
/// What a gauge may be, so that sums stay numbers that every store takes.
const MAX_GAUGE: f64 = 1e15;
const OTHER: &str = "other";

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample<'a> {
    /// Requests per second that the writer itself served.
    RequestsPerSecond(f64),
    /// Requests waiting at one instance.
    QueueDepth(u32),
    ModelLoad {
        seconds: f64,
    },
    InferenceLatency {
        ms: f64,
    },
    EnclaveOperation {
        /// As in `attest`.
        name: &'a str,
        ms: f64,
    },
    Cleanup {
        passed: bool,
    },
}

/// Samples of a value that has a level, not a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    pub samples: u64,
    pub sum: f64,
    pub max: f64,
}

impl Gauge {
    /// `None` where there is no sample.
    pub fn mean(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.sum / self.samples as f64)
    }

    pub fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }
}

/// How many cleanup validations passed, and how many did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupTally {
    pub passed: u64,
    pub failed: u64,
}

/// What was measured of a pool, over whatever time and by however many writers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Over one writer's samples: it means nothing over several writers', whose rates add up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<Gauge>,
    /// Over instances and time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<Gauge>,
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub inference_latency: Histogram,
    #[serde(skip_serializing_if = "Histogram::is_empty")]
    pub model_load: Histogram,
    /// By operation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub enclave_operations: BTreeMap<String, Histogram>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<CleanupTally>,
}

impl Measured {
    /// Adds a sample. What is no measurement (negative, infinite, not a number) is left out: `false`.
    pub fn record(&mut self, sample: &Sample<'_>) -> bool {
        match *sample {
            Sample::RequestsPerSecond(rate) => gauge(&mut self.requests_per_second, rate),
            Sample::QueueDepth(depth) => gauge(&mut self.queue_depth, f64::from(depth)),
            Sample::ModelLoad { seconds } => self.model_load.record(seconds * 1_000.0),
            Sample::InferenceLatency { ms } => self.inference_latency.record(ms),
            Sample::EnclaveOperation { name, ms } => {
                let mut duration = Histogram::default();
                duration.record(ms) && {
                    self.enclave_operation(name).merge(&duration);
                    true
                }
            }
            Sample::Cleanup { passed } => {
                let one = CleanupTally { passed: passed.into(), failed: (!passed).into() };
                merge_cleanup(&mut self.cleanup, Some(one));
                true
            }
        }
    }

    /// Adds all that the other has.
    pub fn merge(&mut self, other: &Self) {
        merge_gauge(&mut self.requests_per_second, other.requests_per_second);
        merge_gauge(&mut self.queue_depth, other.queue_depth);
        self.inference_latency.merge(&other.inference_latency);
        self.model_load.merge(&other.model_load);
        for (name, histogram) in &other.enclave_operations {
            self.enclave_operations.entry(name.clone()).or_default().merge(histogram);
        }
        merge_cleanup(&mut self.cleanup, other.cleanup);
    }

    /// Two that merge into this one, with about as many buckets each; `None` where that makes nothing
    /// smaller. For a store whose items are bounded.
    pub fn halves(&self) -> Option<(Self, Self)> {
        let mut left = self.buckets() / 2;
        if left == 0 {
            return None;
        }
        let mut cut = |histogram: &Histogram| {
            let (first, rest) = histogram.split(left);
            left -= first.buckets();
            (first, rest)
        };
        let mut first = self.clone();
        let mut rest = Self::default();
        (first.inference_latency, rest.inference_latency) = cut(&self.inference_latency);
        (first.model_load, rest.model_load) = cut(&self.model_load);
        for (name, histogram) in &self.enclave_operations {
            let (before, after) = cut(histogram);
            if before.is_empty() {
                first.enclave_operations.remove(name);
            } else {
                first.enclave_operations.insert(name.clone(), before);
            }
            if !after.is_empty() {
                rest.enclave_operations.insert(name.clone(), after);
            }
        }
        Some((first, rest))
    }

    fn buckets(&self) -> usize {
        let operations: usize = self.enclave_operations.values().map(Histogram::buckets).sum();
        self.inference_latency.buckets() + self.model_load.buckets() + operations
    }

    fn enclave_operation(&mut self, name: &str) -> &mut Histogram {
        let name = &name[..name.floor_char_boundary(MAX_OPERATION_BYTES)];
        let is_known = self.enclave_operations.contains_key(name);
        let has_room = self.enclave_operations.len() + 1 < MAX_OPERATIONS;
        let name = if is_known || has_room { name } else { OTHER };
        self.enclave_operations.entry(name.to_owned()).or_default()
    }
}

fn gauge(gauge: &mut Option<Gauge>, value: f64) -> bool {
    let valid = (0.0..=MAX_GAUGE).contains(&value);
    if valid {
        merge_gauge(gauge, Some(Gauge { samples: 1, sum: value, max: value }));
    }
    valid
}

fn merge_gauge(gauge: &mut Option<Gauge>, other: Option<Gauge>) {
    if let Some(other) = other {
        gauge.get_or_insert_default().merge(&other);
    }
}

fn merge_cleanup(tally: &mut Option<CleanupTally>, other: Option<CleanupTally>) {
    if let Some(other) = other {
        let tally = tally.get_or_insert_default();
        tally.passed = tally.passed.saturating_add(other.passed);
        tally.failed = tally.failed.saturating_add(other.failed);
    }
}

/// What one writer measured of a pool in one minute, or a part of it. Stored in `metrics`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolMinute {
    pub region: RegionId,
    pub pool: PoolId,
    /// The program that measured, as in `router-1`; the same after a restart.
    pub writer: String,
    /// The minute's start, by the writer's clock.
    pub minute: Timestamp,
    #[serde(flatten)]
    pub measured: Measured,
    /// When it may be removed, in seconds since 1970.
    pub expires_at: u64,
}

/// What all writers measured of a pool over a window of minutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolMetrics {
    /// Each writer's own rate.
    rates: BTreeMap<String, Gauge>,
    measured: Measured,
}

impl PoolMetrics {
    pub fn add(&mut self, minute: &PoolMinute) {
        if let Some(rate) = &minute.measured.requests_per_second {
            self.rates.entry(minute.writer.clone()).or_default().merge(rate);
        }
        self.measured.merge(&minute.measured);
    }

    /// The sum of the writers' mean rates, for each sees other requests. One that stopped counts with what
    /// it measured until the window has passed it.
    pub fn requests_per_second(&self) -> Option<f64> {
        let mut means = self.rates.values().filter_map(Gauge::mean).peekable();
        means.peek()?;
        Some(means.sum())
    }

    pub fn queue_depth(&self) -> Option<&Gauge> {
        self.measured.queue_depth.as_ref()
    }

    pub fn inference_latency(&self) -> &Histogram {
        &self.measured.inference_latency
    }

    /// P50, P95 and P99 of all requests; `None` where none was measured.
    pub fn latency_percentiles(&self) -> Option<Percentiles> {
        Percentiles::of(&self.measured.inference_latency)
    }

    /// How long loading a model took.
    pub fn model_load(&self) -> &Histogram {
        &self.measured.model_load
    }

    /// How long enclave operations took, by operation.
    pub fn enclave_operations(&self) -> &BTreeMap<String, Histogram> {
        &self.measured.enclave_operations
    }

    pub fn cleanup(&self) -> Option<CleanupTally> {
        self.measured.cleanup
    }
}

/// Quantiles of a histogram, in milliseconds and to its relative error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
}

impl Percentiles {
    /// `None` where nothing was recorded.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        Some(Self {
            p50_ms: histogram.quantile(0.50)?,
            p95_ms: histogram.quantile(0.95)?,
            p99_ms: histogram.quantile(0.99)?,
        })
    }
}

/// The load of a pool, a region or the whole fleet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Registered instances.
    pub instances: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<Gauge>,
}

impl Load {
    /// The mean over all samples of all instances.
    pub fn average_queue_depth(&self) -> Option<f64> {
        self.queue_depth.and_then(|depth| depth.mean())
    }

    pub fn add(&mut self, other: &Self) {
        self.instances += other.instances;
        if let Some(rate) = other.requests_per_second {
            *self.requests_per_second.get_or_insert_default() += rate;
        }
        merge_gauge(&mut self.queue_depth, other.queue_depth);
    }
}

/// A region's load, and that of each of its pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RegionLoad {
    pub total: Load,
    pub pools: BTreeMap<PoolId, Load>,
}

impl RegionLoad {
    /// From how many instances each pool has, and what was measured of each.
    pub fn new(
        instances: impl IntoIterator<Item = PoolId>,
        metrics: &BTreeMap<PoolId, PoolMetrics>,
    ) -> Self {
        let mut pools: BTreeMap<PoolId, Load> = BTreeMap::new();
        for pool in instances {
            pools.entry(pool).or_default().instances += 1;
        }
        for (pool, measured) in metrics {
            let load = pools.entry(pool.clone()).or_default();
            load.requests_per_second = measured.requests_per_second();
            load.queue_depth = measured.queue_depth().copied();
        }
        let mut total = Load::default();
        pools.values().for_each(|pool| total.add(pool));
        Self { total, pools }
    }
}

/// The fleet's load, by region and pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterHealth {
    pub total: Load,
    pub regions: BTreeMap<RegionId, RegionLoad>,
}

impl ClusterHealth {
    pub fn new(regions: BTreeMap<RegionId, RegionLoad>) -> Self {
        let mut total = Load::default();
        regions.values().for_each(|region| total.add(&region.total));
        Self { total, regions }
    }
}

#[cfg(test)]
mod tests;
