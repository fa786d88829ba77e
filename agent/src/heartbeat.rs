//! The store's side of the agent: registration, heartbeats, deregistration.
//!
//! ```text
//!  Joining ──registered──► Beating ──drained──► Leaving ──► end
//!   │  ▲ backoff             │  ▲ backoff                    ▲
//!   │  └──failed             │  └──failed (only the latest)  │
//!   │                        └──fenced──► Silent ────────────┘ (nothing left to remove)
//!   └──draining, or drained: never joined ──► end
//! ```
//!
//! When a heartbeat is due is `pace`'s to say; it is written at once when the lifecycle or the health changes.
//! Its sequence is raised for each attempt, since an attempt that failed here may have been written all the
//! same.
//!
//! While the store cannot be reached nothing is kept but the latest snapshot, and the attempts come after
//! waits of full jitter, the longest an interval: agents that lost the store together find it again spread
//! over an interval. While it throttles, the interval itself grows.

use std::{sync::Arc, time::Duration};

use mrgc_fleet::model::{Health, Lifecycle, Registration, Report};
use mrgc_store::{Store, StoreConfig, StoreError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};

use crate::{
    backoff::Backoff,
    config,
    pace::Pace,
    signals::Heartbeats,
    state::{Event, Snapshot, StoreEvent},
};

/// The first wait after a failure.
const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// The longest wait between attempts to register.
const REGISTER_BACKOFF_CAP: Duration = Duration::from_secs(15);

/// Changes of health are told at once, but not more often than this.
const CHANGE_GAP: Duration = Duration::from_secs(1);

/// Deregistration may take this long, repeats included; then the routers find out by the silence.
pub(crate) const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// All that the task needs.
pub(crate) struct Heart {
    pub(crate) store: StoreConfig,
    pub(crate) pace: config::Heartbeat,
    pub(crate) registration: Registration,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) events: mpsc::Sender<Event>,
    /// Answers, or is dropped, when the drain is over.
    pub(crate) drained: oneshot::Receiver<()>,
}

/// A registration that holds.
struct Joined {
    store: Store,
    registration: Registration,
}

/// How the beating ended.
enum End {
    Drained,
    Fenced,
}

impl Heart {
    /// Registers, sends heartbeats until the drain is over, and deregisters.
    pub(crate) async fn run(mut self) {
        let Some(joined) = self.join().await else { return };
        match self.beat(&joined).await {
            End::Drained => leave(&joined).await,
            End::Fenced => {
                // Nothing in the store is this agent's any more. It goes on serving `/health`.
                let _ = (&mut self.drained).await;
            }
        }
    }

    /// Registers, as often as it takes; `None` when the machine is to go before that succeeds.
    async fn join(&mut self) -> Option<Joined> {
        let backoff = Backoff { base: BACKOFF_BASE, cap: REGISTER_BACKOFF_CAP };
        let mut connected = None;
        let mut failures = 0;
        loop {
            if self.snapshots.borrow().lifecycle != Lifecycle::Registering {
                return None;
            }
            match self.register(&mut connected).await {
                Ok(joined) => {
                    let generation = joined.registration.generation;
                    tracing::info!(generation, "registered");
                    self.tell(StoreEvent::Registered { generation }).await;
                    return Some(joined);
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff.wait(failures, fastrand::f64());
                    warn_failed("registration", &error, failures, wait);
                    let reason = format!("not registered: {error}");
                    self.tell(StoreEvent::Failed { sequence: None, reason }).await;
                    self.pause_unless_leaving(wait).await;
                }
            }
        }
    }

    /// Registers with the store in `connected`, or makes it first.
    async fn register(&self, connected: &mut Option<Store>) -> Result<Joined, StoreError> {
        let store = match connected {
            Some(store) => store,
            None => connected.insert(Store::connect(&self.store).await?),
        };
        let registration = store.register(&self.registration).await?;
        Ok(Joined { store: store.clone(), registration })
    }

    /// Waits, or less where the lifecycle changes meanwhile.
    async fn pause_unless_leaving(&mut self, wait: Duration) {
        let leaving = self.snapshots.wait_for(|s| s.lifecycle != Lifecycle::Registering);
        let _ = time::timeout(wait, leaving).await;
    }

    async fn beat(&mut self, joined: &Joined) -> End {
        let mut beats = Beats::new(self.pace);
        loop {
            let generation = joined.registration.generation;
            let wake = self.wait_until(beats.due, beats.told, generation).await;
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            match wake {
                Wake::Drained => return End::Drained,
                Wake::Due if beats.skip(&snapshot) => {
                    self.tell(StoreEvent::Counted(beats.counted(&joined.store))).await;
                    continue;
                }
                Wake::Due | Wake::Changed => {}
            }
            let report = beats.next(&snapshot, generation);
            let sequence = report.sequence;
            let event = match joined.store.report(&report).await {
                Ok(()) => {
                    beats.written(report);
                    StoreEvent::Written { sequence }
                }
                Err(
                    error @ (StoreError::Fenced { .. }
                    // Somebody removed the instance: only an agent that starts anew may bring it back.
                    | StoreError::IllegalTransition { from: Lifecycle::Terminated, .. }),
                ) => {
                    tracing::error!(%error, "fenced: this agent writes no more");
                    self.tell(StoreEvent::Fenced { reason: error.to_string() }).await;
                    return End::Fenced;
                }
                Err(error) => {
                    beats.failed(&error);
                    let reason = format!("heartbeat {sequence} not written: {error}");
                    StoreEvent::Failed { sequence: Some(sequence), reason }
                }
            };
            self.tell(StoreEvent::Counted(beats.counted(&joined.store))).await;
            self.tell(event).await;
        }
    }

    /// Waits until a heartbeat is due, something is worth telling at once, or the drain is over.
    async fn wait_until(&mut self, due: Instant, told: Option<Told>, generation: u64) -> Wake {
        let Self { snapshots, drained, .. } = self;
        // A report from before the control loop knew the generation would say "registering".
        let known = |s: &Arc<Snapshot>| s.signals.store.generation == Some(generation);
        let change = async {
            let Some(told) = told else {
                let _ = snapshots.wait_for(known).await;
                return;
            };
            let changed = snapshots.wait_for(|s| facts(s).0 != told.facts.0);
            let _ = time::timeout_at(told.at + CHANGE_GAP, changed).await;
            let _ = snapshots.wait_for(|s| facts(s) != told.facts).await;
        };
        tokio::select! {
            biased;
            _ = drained => Wake::Drained,
            () = change => Wake::Changed,
            () = time::sleep_until(due), if told.is_some() => Wake::Due,
        }
    }

    async fn tell(&self, event: StoreEvent) {
        // Where the control loop has ended there is nobody to tell.
        let _ = self.events.send(Event::Store(event)).await;
    }
}

/// Why a wait for the next heartbeat ended.
enum Wake {
    Due,
    Changed,
    Drained,
}

/// The heartbeats of one registration: what was written, what failed, and when the next is due.
struct Beats {
    pace: Pace,
    /// The first is due as soon as the control loop knows of the registration.
    due: Instant,
    told: Option<Told>,
    /// What the store holds, as far as this agent knows, and since when; `None` after a failure.
    held: Option<(Instant, Report)>,
    sequence: u64,
    /// In a row.
    failures: u32,
    counts: Heartbeats,
}

impl Beats {
    fn new(config: config::Heartbeat) -> Self {
        Self {
            pace: Pace::new(config),
            due: Instant::now(),
            told: None,
            held: None,
            sequence: 0,
            failures: 0,
            counts: Heartbeats::default(),
        }
    }

    /// Whether there is nothing to write yet; then the next look is set.
    fn skip(&mut self, snapshot: &Snapshot) -> bool {
        let Some((at, held)) = &self.held else { return false };
        let silent = at.elapsed();
        let next = snapshot.report(held.generation, held.sequence);
        if self.pace.is_due(held, &next, silent) {
            return false;
        }
        self.counts.skipped += 1;
        self.due = *at + silent + self.pace.next_look(silent);
        true
    }

    /// The report of the next attempt.
    fn next(&mut self, snapshot: &Snapshot, generation: u64) -> Report {
        self.sequence += 1;
        self.told = Some(Told { at: Instant::now(), facts: facts(snapshot) });
        let promise = u32::try_from(self.pace.promise().as_millis()).unwrap_or(u32::MAX);
        Report { next_within_ms: Some(promise), ..snapshot.report(generation, self.sequence) }
    }

    fn written(&mut self, report: Report) {
        if self.failures > 0 {
            let (sequence, failures) = (report.sequence, self.failures);
            tracing::info!(sequence, failures, "the store takes heartbeats again");
        }
        self.pace.succeeded();
        // The second comes anywhere within an interval after the first, so that instances that started
        // together do not beat together.
        let is_first = self.counts.written == 0;
        let share = if is_first { fastrand::f64() } else { 1.0 };
        let now = Instant::now();
        self.due = now + self.pace.interval().mul_f64(share);
        self.failures = 0;
        self.counts.written += 1;
        self.held = Some((now, report));
    }

    fn failed(&mut self, error: &StoreError) {
        self.failures += 1;
        self.counts.failed += 1;
        self.held = None;
        let wait = if matches!(error, StoreError::Throttled { .. }) {
            self.counts.throttled += 1;
            self.pace.throttled();
            self.pace.wait_after_throttle(fastrand::f64())
        } else {
            let backoff = Backoff { base: BACKOFF_BASE, cap: self.pace.interval() };
            backoff.wait(self.failures, fastrand::f64())
        };
        warn_failed("heartbeat", error, self.failures, wait);
        self.due = Instant::now() + wait;
    }

    fn counted(&self, store: &Store) -> Heartbeats {
        let calls = store.counts();
        Heartbeats {
            interval_ms: u64::try_from(self.pace.interval().as_millis()).unwrap_or(u64::MAX),
            throttled_answers: calls.throttled,
            retried_calls: calls.retried,
            ..self.counts
        }
    }
}

/// The last attempt at a heartbeat.
#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    facts: (Lifecycle, Health),
}

/// What the routers should know at once.
fn facts(snapshot: &Snapshot) -> (Lifecycle, Health) {
    (snapshot.lifecycle, snapshot.assessment.health)
}

async fn leave(joined: &Joined) {
    let Joined { store, registration } = joined;
    let backoff = Backoff { base: BACKOFF_BASE, cap: Duration::from_secs(1) };
    let attempts = async {
        let mut failures = 0;
        loop {
            let Registration { id, region, generation, .. } = registration;
            match store.deregister(id, region, *generation).await {
                Ok(()) => return tracing::info!("deregistered"),
                Err(error) if !error.is_retryable() => {
                    return tracing::warn!(%error, "not deregistered");
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff.wait(failures, fastrand::f64());
                    warn_failed("deregistration", &error, failures, wait);
                    time::sleep(wait).await;
                }
            }
        }
    };
    if time::timeout(LEAVE_LIMIT, attempts).await.is_err() {
        tracing::warn!(
            "not deregistered within {LEAVE_LIMIT:?}: the routers will find this instance silent"
        );
    }
}

fn warn_failed(what: &str, error: &StoreError, failures: u32, wait: Duration) {
    let wait_ms = wait.as_millis();
    // A long outage is told of less and less often.
    if failures.is_power_of_two() {
        tracing::warn!(%error, failures, wait_ms, "{what} failed; it is tried again");
    } else {
        tracing::debug!(%error, failures, wait_ms, "{what} failed; it is tried again");
    }
}
