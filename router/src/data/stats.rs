//! Counters of the data threads: each writes its own, a scrape adds them up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::StatusCode;
use mrgc_fleet::health::Outcome;

/// What takes candidates out.
pub const EJECTION_CAUSES: [Outcome; 4] =
    [Outcome::Unreachable, Outcome::ServerError, Outcome::TimedOut, Outcome::Broken];

/// Upper bounds of the latency histogram's buckets; the last one is open.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000];

/// One data thread's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Stats {
    /// How often the thread turned.
    pub turns: AtomicU64,
    pub connections: AtomicU64,
    pub requests: AtomicU64,
    pub retries: AtomicU64,
    pub connect_failures: AtomicU64,
    /// Attempts given up because who they waited for turned out to be gone.
    pub abandoned: AtomicU64,
    pub trials: AtomicU64,
    /// Requests moved away from a region that fails.
    pub moved: AtomicU64,
    /// Requests that no region had room for.
    pub shed: AtomicU64,
    pub forwarded_to_peers: AtomicU64,
    pub native_decisions: AtomicU64,
    pub client_gone: AtomicU64,
    pub connections_refused: AtomicU64,
    /// By [`EJECTION_CAUSES`].
    ejections: [AtomicU64; EJECTION_CAUSES.len()],
    by_class: [AtomicU64; 5],
    /// Time to the response's head.
    latency: [AtomicU64; LATENCY_BOUNDS_MS.len() + 1],
    latency_sum_us: AtomicU64,
}

/// The sum over all threads.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Totals {
    pub connections: u64,
    pub requests: u64,
    pub retries: u64,
    pub connect_failures: u64,
    pub abandoned: u64,
    pub trials: u64,
    pub moved: u64,
    pub shed: u64,
    /// By [`EJECTION_CAUSES`].
    pub ejections: [u64; EJECTION_CAUSES.len()],
    pub forwarded_to_peers: u64,
    pub native_decisions: u64,
    pub client_gone: u64,
    pub connections_refused: u64,
    /// Responses 1xx to 5xx.
    pub by_class: [u64; 5],
    pub latency: [u64; LATENCY_BOUNDS_MS.len() + 1],
    pub latency_sum_ms: f64,
}

impl Stats {
    pub fn count(counter: &AtomicU64) {
        add_own(counter, 1);
    }

    pub fn ejected(&self, cause: Outcome) {
        if let Some(nth) = EJECTION_CAUSES.iter().position(|other| *other == cause) {
            add_own(&self.ejections[nth], 1);
        }
    }

    /// Counts a response and the time to its head.
    pub fn answered(&self, status: StatusCode, latency_us: u64) {
        let class = (status.as_u16() / 100).clamp(1, 5) as usize - 1;
        add_own(&self.by_class[class], 1);
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| bound * 1000 < latency_us);
        add_own(&self.latency[bucket], 1);
        add_own(&self.latency_sum_us, latency_us);
    }

    pub fn total<'a>(all: impl IntoIterator<Item = &'a Self>) -> Totals {
        let mut sum = Totals::default();
        let mut latency_sum_us = 0;
        for one in all {
            for (to, from) in [
                (&mut sum.connections, &one.connections),
                (&mut sum.requests, &one.requests),
                (&mut sum.retries, &one.retries),
                (&mut sum.connect_failures, &one.connect_failures),
                (&mut sum.abandoned, &one.abandoned),
                (&mut sum.trials, &one.trials),
                (&mut sum.moved, &one.moved),
                (&mut sum.shed, &one.shed),
                (&mut sum.forwarded_to_peers, &one.forwarded_to_peers),
                (&mut sum.native_decisions, &one.native_decisions),
                (&mut sum.client_gone, &one.client_gone),
                (&mut sum.connections_refused, &one.connections_refused),
                (&mut latency_sum_us, &one.latency_sum_us),
            ] {
                *to += from.load(Relaxed);
            }
            add(&mut sum.ejections, &one.ejections);
            add(&mut sum.by_class, &one.by_class);
            add(&mut sum.latency, &one.latency);
        }
        sum.latency_sum_ms = latency_sum_us as f64 / 1000.0;
        sum
    }
}

/// Adds to a counter that no other thread writes, which needs no locked instruction.
fn add_own(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

fn add(to: &mut [u64], from: &[AtomicU64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from.load(Relaxed);
    }
}
