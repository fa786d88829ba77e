//! What the store is asked for besides heartbeats: what is wanted of this instance, and to take the findings
//! of cleanups.
//!
//! The wish is one strongly consistent query of at most a few items, a read unit, as often as the longest
//! silence between two heartbeats: routers obey wishes by themselves, so the agent, which tells load balancers
//! and drains, may be half a minute behind. Where it cannot be read, the last one holds.

use std::{sync::Arc, time::Duration};

use mrgc_fleet::model::CleanupValidation;
use mrgc_store::Store;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{BACKOFF_BASE, Joined, warn_failed};
use crate::{
    backoff::Backoff,
    state::{Snapshot, StoreEvent},
};

/// The longest wait between attempts to record findings: the instance may wait for them.
const RECORD_BACKOFF: Backoff = Backoff { base: BACKOFF_BASE, cap: Duration::from_secs(15) };

pub(super) enum Errand {
    Look,
    Record,
}

pub(super) struct Errands {
    look_at: Instant,
    record_at: Instant,
    /// The last run whose findings the store has.
    recorded: u64,
    /// In a row.
    failures: u32,
}

impl Errands {
    /// The wish was read when the instance registered; those that started together spread from there.
    pub(super) fn new(interval: Duration) -> Self {
        let now = Instant::now();
        let look_at = now + interval.mul_f64(0.5 + fastrand::f64());
        Self { look_at, record_at: now, recorded: 0, failures: 0 }
    }

    /// Waits until one is due.
    pub(super) async fn next(&self, mut snapshots: watch::Receiver<Arc<Snapshot>>) -> Errand {
        let has_findings = |snapshot: &Arc<Snapshot>| self.unrecorded(snapshot).is_some();
        let record = async {
            time::sleep_until(self.record_at).await;
            if snapshots.wait_for(has_findings).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = record => Errand::Record,
            () = time::sleep_until(self.look_at) => Errand::Look,
        }
    }

    fn unrecorded<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a crate::cleanup::Findings> {
        snapshot.course.unrecorded.iter().find(|findings| findings.run > self.recorded)
    }

    /// Reads what is wanted of the instance; the next look is an interval later.
    pub(super) async fn look(&mut self, joined: &Joined, interval: Duration) -> Option<StoreEvent> {
        let Joined { store, registration } = joined;
        let read = store.desired(&registration.region, &registration.id).await;
        self.look_at = Instant::now() + interval;
        match read {
            Ok(desired) => Some(StoreEvent::Desired(desired)),
            Err(error) => {
                tracing::debug!(%error, "what is wanted of the instance was not read");
                None
            }
        }
    }

    /// Records the oldest findings that the store does not have.
    pub(super) async fn record(
        &mut self,
        joined: &Joined,
        snapshot: &Snapshot,
    ) -> Option<StoreEvent> {
        let findings = self.unrecorded(snapshot)?;
        let run = findings.run;
        let registration = &joined.registration;
        let validation = CleanupValidation {
            instance: registration.id.clone(),
            region: registration.region.clone(),
            pool: registration.pool.clone(),
            generation: registration.generation,
            sequence: run,
            at: snapshot.at,
            checks: findings.checks.clone(),
            passed: findings.passed(),
            expires_at: Store::cleanup_expires_at(snapshot.at),
        };
        match joined.store.record_cleanup(&validation).await {
            Ok(()) => {
                (self.recorded, self.failures) = (run, 0);
                Some(StoreEvent::Recorded { run })
            }
            Err(error) => {
                self.failures += 1;
                let wait = RECORD_BACKOFF.wait(self.failures, fastrand::f64());
                warn_failed("the record of a cleanup", &error, self.failures, wait);
                self.record_at = Instant::now() + wait;
                let reason = format!("cleanup {run} not recorded: {error}");
                Some(StoreEvent::Failed { sequence: None, reason })
            }
        }
    }
}
