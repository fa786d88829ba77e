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
//! A heartbeat is due every interval, and at once when the lifecycle or the health changes. Its sequence is
//! raised for each attempt, since an attempt that failed here may have been written all the same.

use std::{sync::Arc, time::Duration};

use mrgc_fleet::model::{Health, Lifecycle, Registration};
use mrgc_store::{Store, StoreConfig, StoreError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};

use crate::{
    backoff::Backoff,
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
    pub(crate) interval: Duration,
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
        let generation = joined.registration.generation;
        let backoff = Backoff { base: BACKOFF_BASE, cap: self.interval };
        let mut sequence = 0;
        let mut failures = 0;
        // The first is due as soon as the control loop knows of the registration; those that follow begin
        // anywhere within an interval, so that instances that started together do not beat together.
        let mut due = Instant::now();
        let mut pause = self.interval.mul_f64(fastrand::f64());
        let mut told = None;
        loop {
            if self.wait_until(due, told, generation).await {
                return End::Drained;
            }
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            sequence += 1;
            told = Some(Told { at: Instant::now(), facts: facts(&snapshot) });
            match joined.store.report(&snapshot.report(generation, sequence)).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!(sequence, failures, "the store takes heartbeats again");
                    }
                    failures = 0;
                    due = Instant::now() + pause;
                    pause = self.interval;
                    self.tell(StoreEvent::Written { sequence }).await;
                }
                Err(error @ StoreError::Fenced { .. }) => {
                    tracing::error!(%error, "fenced: another agent has registered this id; this one writes no more");
                    self.tell(StoreEvent::Fenced { reason: error.to_string() }).await;
                    return End::Fenced;
                }
                Err(error) => {
                    failures += 1;
                    let wait = backoff.wait(failures, fastrand::f64());
                    warn_failed("heartbeat", &error, failures, wait);
                    due = Instant::now() + wait;
                    let reason = format!("heartbeat {sequence} not written: {error}");
                    self.tell(StoreEvent::Failed { sequence: Some(sequence), reason }).await;
                }
            }
        }
    }

    /// Waits until a heartbeat is due or something is worth telling at once; true when the drain is over.
    async fn wait_until(&mut self, due: Instant, told: Option<Told>, generation: u64) -> bool {
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
            _ = drained => true,
            () = change => false,
            () = time::sleep_until(due), if told.is_some() => false,
        }
    }

    async fn tell(&self, event: StoreEvent) {
        // Where the control loop has ended there is nobody to tell.
        let _ = self.events.send(Event::Store(event)).await;
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
