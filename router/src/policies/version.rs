//! One version of a policy, with what it has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mrgc_policy_host::Policy;

/// A version that is or was active. Generations of a name only grow.
#[derive(Debug)]
pub struct Version {
    pub name: String,
    pub generation: u64,
    pub policy: Policy,
    /// One for each data thread, and one for the conductor.
    counters: Box<[Counters]>,
}

/// Counts of one thread, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    pub decisions: AtomicU64,
    pub faults: AtomicU64,
    /// Scores above 100.
    pub clamped: AtomicU64,
}

impl Version {
    pub fn new(name: String, generation: u64, policy: Policy, threads: usize) -> Self {
        let counters = (0..=threads).map(|_| Counters::default()).collect();
        Self { name, generation, policy, counters }
    }

    /// The counters of a data thread; those past the last are the conductor's.
    pub fn counters(&self, thread: usize) -> &Counters {
        &self.counters[thread.min(self.counters.len() - 1)]
    }

    pub fn sum(&self, count: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        self.counters.iter().map(|counters| count(counters).load(Relaxed)).sum()
    }
}
