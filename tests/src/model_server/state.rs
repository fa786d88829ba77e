//! What all connections of one server share, and the life of one completion within it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::metrics::{E2E_BOUNDS, Histogram, TTFT_BOUNDS};
use super::{Config, Counters, Failure, Settings};

/// `slow` multiplies the latency by this,
const SLOW_FACTOR: u64 = 10;
/// and takes at least this long.
const SLOW_MIN_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct State {
    pub(super) model: String,
    pub(super) tokens: u32,
    pub(super) slots_total: usize,
    pub(super) served_by: HeaderValue,
    /// From a completion's arrival to its last byte, queue included.
    pub(super) e2e: Histogram,
    /// From a completion's arrival to its first token.
    pub(super) ttft: Histogram,
    settings: Mutex<Settings>,
    slots: Arc<Semaphore>,
    /// Counts releases; a held request waits for the next one after its arrival.
    releases: watch::Sender<u64>,
    received: AtomicU64,
    waiting: AtomicU64,
    running: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    abandoned: AtomicU64,
    refused: AtomicU64,
}

impl State {
    pub(super) fn new(config: Config) -> anyhow::Result<Self> {
        let served_by = HeaderValue::from_str(&config.name)
            .with_context(|| format!("name {:?} is no header value", config.name))?;
        anyhow::ensure!(
            (1..=Semaphore::MAX_PERMITS).contains(&config.slots),
            "slots is {}, must be 1 to {}",
            config.slots,
            Semaphore::MAX_PERMITS
        );
        Ok(Self {
            model: config.model,
            tokens: config.tokens.max(1),
            slots_total: config.slots,
            served_by,
            e2e: Histogram::new(E2E_BOUNDS),
            ttft: Histogram::new(TTFT_BOUNDS),
            settings: Mutex::new(Settings {
                failure: config.failure,
                latency_ms: config.latency_ms,
            }),
            slots: Arc::new(Semaphore::new(config.slots)),
            releases: watch::Sender::new(0),
            received: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            running: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            received: self.received.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            running: self.running.load(Relaxed),
            completed: self.completed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// A receiver whose next change is the first release from now on.
    pub(super) fn next_release(&self) -> watch::Receiver<u64> {
        self.releases.subscribe()
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}

impl Settings {
    /// How long a completion takes under these settings.
    pub(super) fn latency(self) -> Duration {
        Duration::from_millis(match self.failure {
            Failure::Slow => self.latency_ms.saturating_mul(SLOW_FACTOR).max(SLOW_MIN_MS),
            _ => self.latency_ms,
        })
    }
}

/// A completion that waits for a slot; dropped when it gets one or its client goes away.
struct Waiting<'a> {
    state: &'a State,
    admitted: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.state.waiting.fetch_sub(1, Relaxed);
        if !self.admitted {
            self.state.abandoned.fetch_add(1, Relaxed);
        }
    }
}

/// A completion that runs. It holds its slot until dropped, and a drop before
/// [`complete`](Job::complete) or [`fail`](Job::fail) means that the client went away.
#[derive(Debug)]
pub(super) struct Job {
    state: Arc<State>,
    arrived: Instant,
    end: End,
    // Dropped after the body of `drop` has run: a slot is never free while still counted as running.
    _slot: Option<OwnedSemaphorePermit>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Abandoned,
    Completed,
    Failed,
}

impl Job {
    /// Takes a slot, in order of arrival.
    pub(super) async fn admit(state: &Arc<State>) -> Self {
        let arrived = Instant::now();
        state.received.fetch_add(1, Relaxed);
        let slot = match Arc::clone(&state.slots).try_acquire_owned() {
            Ok(slot) => {
                state.running.fetch_add(1, Relaxed);
                Some(slot)
            }
            Err(_) => {
                state.waiting.fetch_add(1, Relaxed);
                let mut waiting = Waiting { state, admitted: false };
                // It fails on a closed semaphore only, and nothing closes this one.
                let slot = Arc::clone(&state.slots).acquire_owned().await.ok();
                state.running.fetch_add(1, Relaxed);
                waiting.admitted = true;
                slot
            }
        };
        Self { state: Arc::clone(state), arrived, end: End::Abandoned, _slot: slot }
    }

    pub(super) fn first_token(&self) {
        self.state.ttft.record(self.arrived.elapsed());
    }

    pub(super) fn complete(mut self) {
        self.state.e2e.record(self.arrived.elapsed());
        self.end = End::Completed;
    }

    pub(super) fn fail(mut self) {
        self.end = End::Failed;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let count = match self.end {
            End::Abandoned => &self.state.abandoned,
            End::Completed => &self.state.completed,
            End::Failed => &self.state.failed,
        };
        self.state.running.fetch_sub(1, Relaxed);
        count.fetch_add(1, Relaxed);
    }
}
