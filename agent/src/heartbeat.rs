//! The store's side of the agent: registration, heartbeats, deregistration.
//!
//! ```text
//!  Joining ──registered──► Beating ──terminated──► Leaving ──► Gone, until the process ends
//!   │  ▲ backoff             │  ▲ backoff                       ▲
//!   │  └──failed             │  └──failed (only the latest)     │
//!   │                        └──fenced──────────────────────────┤ (nothing left to remove)
//!   └──terminated before it ever joined ────────────────────────┘
//! ```
//!
//! Who is gone because its Auto Scaling group said so tells the group.
//!
//! When a heartbeat is due is `pace`'s to say; it is written at once when the lifecycle or the health changes.
//! Its sequence is raised for each attempt, since an attempt that failed here may have been written all the
//! same.
//!
//! While the store cannot be reached nothing is kept but the latest snapshot, and the attempts come after
//! waits of full jitter, the longest an interval: agents that lost the store together find it again spread
//! over an interval. While it throttles, the interval itself grows.

mod beats;
mod errands;

use std::{sync::Arc, time::Duration};

use mrgc_fleet::model::{Desired, Lifecycle, Registration};
use mrgc_store::{Store, StoreConfig, StoreError};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};

use self::{
    beats::{Beats, Told, facts},
    errands::{Errand, Errands},
};
use crate::{
    backoff::Backoff,
    lifecycle::Cause,
    notices::Farewell,
    reload::Live,
    state::{Event, Snapshot, StoreEvent},
};

/// The first wait after a failure.
const BACKOFF_BASE: Duration = Duration::from_millis(250);

/// The longest wait between attempts to register.
const REGISTER_BACKOFF_CAP: Duration = Duration::from_secs(15);

/// The first heartbeat waits until every part was looked at: a GPU that is not known yet may be unfit. A part that
/// takes longer has this long.
const SAMPLE_LIMIT: Duration = Duration::from_secs(10);

/// Changes of health are told at once, but not more often than this.
const CHANGE_GAP: Duration = Duration::from_secs(1);

/// Deregistration may take this long, repeats included; then the routers find out by the silence.
pub(crate) const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// All that the task needs.
pub(crate) struct Heart {
    pub(crate) store: StoreConfig,
    pub(crate) settings: watch::Receiver<Live>,
    pub(crate) registration: Registration,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) events: mpsc::Sender<Event>,
    /// Closed when the process is to end.
    pub(crate) ending: watch::Receiver<()>,
    pub(crate) farewell: Farewell,
}

/// A registration that holds.
struct Joined {
    store: Store,
    registration: Registration,
}

/// How the beating ended.
enum End {
    Terminated,
    Fenced,
}

impl Heart {
    /// Registers, sends heartbeats until the instance is terminated, and deregisters.
    pub(crate) async fn run(mut self) {
        if let Some(joined) = self.join().await {
            match self.beat(&joined).await {
                End::Terminated => leave(&joined).await,
                // Nothing in the store is this agent's any more. It goes on serving `/health`.
                End::Fenced => {}
            }
        }
        let Self { mut snapshots, mut ending, farewell, .. } = self;
        let is_dismissed = |s: &Arc<Snapshot>| {
            s.lifecycle == Lifecycle::Terminated
                && s.course.life.holds().contains(&Cause::AutoScaling)
        };
        let dismissed = tokio::select! {
            biased;
            dismissed = snapshots.wait_for(is_dismissed) => dismissed.is_ok(),
            _ = ending.changed() => return,
        };
        if dismissed {
            farewell.complete().await;
        }
        let _ = ending.changed().await;
    }

    /// Registers, as often as it takes; `None` when the instance is terminated before that succeeds. One that
    /// is about to go registers no more, unless that is called off.
    async fn join(&mut self) -> Option<Joined> {
        let backoff = Backoff { base: BACKOFF_BASE, cap: REGISTER_BACKOFF_CAP };
        let mut connected = None;
        let mut failures = 0;
        loop {
            let is_decided = |s: &Arc<Snapshot>| {
                s.lifecycle == Lifecycle::Terminated || !s.course.life.is_leaving()
            };
            match self.snapshots.wait_for(is_decided).await {
                Ok(snapshot) if snapshot.lifecycle != Lifecycle::Terminated => {}
                _ => return None,
            }
            match self.register(&mut connected).await {
                Ok((joined, desired)) => {
                    let generation = joined.registration.generation;
                    tracing::info!(generation, "registered");
                    self.tell(StoreEvent::Registered { generation, desired }).await;
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

    /// Registers with the store in `connected`, or makes it first. What is wanted of the instance is read
    /// before, so that one in quarantine never serves for a moment.
    async fn register(
        &self,
        connected: &mut Option<Store>,
    ) -> Result<(Joined, Option<Desired>), StoreError> {
        let store = match connected {
            Some(store) => store,
            None => connected.insert(Store::connect(&self.store).await?),
        };
        let Registration { region, id, .. } = &self.registration;
        let desired = store.desired(region, id).await?;
        let registration = store.register(&self.registration).await?;
        Ok((Joined { store: store.clone(), registration }, desired))
    }

    /// Waits, or less where the instance is to go meanwhile.
    async fn pause_unless_leaving(&mut self, wait: Duration) {
        let leaving = self.snapshots.wait_for(|s| s.course.life.is_leaving());
        let _ = time::timeout(wait, leaving).await;
    }

    async fn beat(&mut self, joined: &Joined) -> End {
        let mut beats = Beats::new(self.settings.borrow_and_update().heartbeat);
        let mut errands = Errands::new(beats.longest_silence());
        loop {
            let generation = joined.registration.generation;
            let snapshots = self.snapshots.clone();
            let wake = tokio::select! {
                biased;
                wake = self.wait_until(beats.due, beats.told, generation) => wake,
                errand = errands.next(snapshots) => Wake::Errand(errand),
            };
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            if snapshot.lifecycle == Lifecycle::Terminated {
                return End::Terminated;
            }
            match wake {
                Wake::Ending => return End::Terminated,
                Wake::Errand(errand) => {
                    let event = match errand {
                        Errand::Look => errands.look(joined, beats.longest_silence()).await,
                        Errand::Record => errands.record(joined, &snapshot).await,
                    };
                    if let Some(event) = event {
                        self.tell(event).await;
                    }
                    continue;
                }
                Wake::Reconfigured => {
                    beats.configure(self.settings.borrow_and_update().heartbeat);
                    continue;
                }
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
        let Self { snapshots, ending, settings, .. } = self;
        // A report from before the control loop knew the generation would say "registering".
        let known = |s: &Arc<Snapshot>| s.signals.store.generation == Some(generation);
        let change = async {
            let Some(told) = told else {
                let _ = snapshots.wait_for(known).await;
                let is_sampled = snapshots.wait_for(|s| s.is_sampled());
                let _ = time::timeout(SAMPLE_LIMIT, is_sampled).await;
                return;
            };
            let changed = snapshots.wait_for(|s| facts(s).0 != told.facts.0);
            let _ = time::timeout_at(told.at + CHANGE_GAP, changed).await;
            let _ = snapshots.wait_for(|s| facts(s) != told.facts).await;
        };
        tokio::select! {
            biased;
            _ = ending.changed() => Wake::Ending,
            () = change => Wake::Changed,
            Ok(()) = settings.changed() => Wake::Reconfigured,
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
    Errand(Errand),
    /// The settings were read again.
    Reconfigured,
    Ending,
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
