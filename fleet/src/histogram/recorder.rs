//! A histogram under construction, for a thread that counts many durations.

use std::collections::BTreeMap;

use super::{Histogram, MAX_BUCKETS, index};

/// Counts durations without allocating: every bucket has its place, 4 KB in all. [`Recorder::take`] makes
/// the mergeable [`Histogram`] of what was counted.
#[derive(Debug)]
pub struct Recorder {
    buckets: Box<[u64; MAX_BUCKETS]>,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { buckets: Box::new([0; MAX_BUCKETS]), sum_us: 0, min_us: u64::MAX, max_us: 0 }
    }
}

impl Recorder {
    /// Counts a duration.
    pub fn record_us(&mut self, us: u64) {
        // An index is below the number of buckets.
        self.buckets[usize::from(index(us))] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.min_us = self.min_us.min(us);
        self.max_us = self.max_us.max(us);
    }

    /// What was counted so far; the recorder starts anew.
    pub fn take(&mut self) -> Histogram {
        let counted = (0..).zip(self.buckets.iter().copied()).filter(|(_, count)| *count > 0);
        let buckets: BTreeMap<u16, u64> = counted.collect();
        if buckets.is_empty() {
            return Histogram::default();
        }
        let taken =
            Histogram { buckets, sum_us: self.sum_us, min_us: self.min_us, max_us: self.max_us };
        self.buckets.fill(0);
        (self.sum_us, self.min_us, self.max_us) = (0, u64::MAX, 0);
        taken
    }
}
