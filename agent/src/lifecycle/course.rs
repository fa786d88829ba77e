//! The instance's life with all that moves it: GPUs that become unfit, cleanups, notices, what is on record.
//! Pure.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mrgc_fleet::model::{CleanupCheck, Desired, Lifecycle};
use serde::Serialize;

use super::{Cause, DrainLimits, Drained, InFlight, Kept, Life, Order, Quarantine, Refusal};
use crate::{
    cleanup::{Findings, Scope, Wash, uses},
    gpu::status::Fitness,
    notices::Notice,
    signals::{Check, Signals},
};

/// Findings that wait for the store. One more, and the oldest is given up.
const MAX_UNRECORDED: usize = 8;

/// How long GPUs must be unfit, in reading after reading, before that is held against the instance until somebody
/// releases it. `/health` says it at once.
const UNFIT_FOR: Duration = Duration::from_secs(5);

/// What only a step in life changes: time alone changes nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Milestone {
    pub phase: Lifecycle,
    pub drained: Option<Drained>,
    pub cleaning: Option<u64>,
    pub unrecorded: usize,
}

/// The course of a life, for people.
#[derive(Debug, Serialize)]
pub struct LifeView<'a> {
    /// Why it does not serve.
    pub reason: Option<String>,
    pub drain: Option<DrainView<'a>>,
    pub quarantine: Option<&'a Quarantine>,
    /// What operators and routers want of it.
    pub desired: Option<&'a Desired>,
    pub notices: &'a [Notice],
    pub notices_check: &'a Check,
    /// The number of the cleanup that is under way.
    pub cleaning: Option<u64>,
    pub last_cleanup: Option<&'a Findings>,
    /// Cleanups that are not on record yet.
    pub unrecorded_cleanups: usize,
    pub state_file: &'a Check,
}

#[derive(Debug, Serialize)]
pub struct DrainView<'a> {
    pub causes: &'a BTreeSet<Cause>,
    /// Why it ended; `null` while something is in flight.
    pub over: Option<Drained>,
}

/// The course of a life.
#[derive(Clone, Debug)]
pub struct Course {
    pub life: Life,
    scope: Arc<Scope>,
    unfit_since: Option<Duration>,
    wash: Option<Wash>,
    runs: u64,
    /// What the last cleanup found.
    pub found: Option<Findings>,
    /// What the store does not have yet, the oldest first.
    pub unrecorded: Vec<Findings>,
    /// How the cloud's notices are read; nobody reads them until they are asked for.
    pub watching: Check,
    /// Whether what must outlive the process is written.
    pub keeping: Check,
}

impl Course {
    /// One that begins with what an earlier process left.
    pub fn new(scope: Scope, kept: Kept, now: Duration) -> Self {
        Self {
            life: Life::new(scope.config.after_drain, kept, now),
            scope: Arc::new(scope),
            unfit_since: None,
            wash: None,
            runs: 0,
            found: None,
            unrecorded: Vec::new(),
            watching: Check::missing("notices of the cloud are not asked for"),
            keeping: Check::missing("there is no state_directory: a restart forgets"),
        }
    }

    /// The number of the cleanup that is under way.
    pub fn cleaning(&self) -> Option<u64> {
        self.wash.as_ref().map(Wash::run)
    }

    /// Whether time alone may move it on.
    pub fn waits(&self) -> bool {
        self.life.is_draining() || self.wash.is_some()
    }

    pub fn milestone(&self) -> Milestone {
        Milestone {
            phase: self.life.phase(),
            drained: self.life.drained(),
            cleaning: self.cleaning(),
            unrecorded: self.unrecorded.len(),
        }
    }

    pub fn view(&self) -> LifeView<'_> {
        let is_drained = matches!(self.life.phase(), Lifecycle::Draining | Lifecycle::Terminated);
        let drain =
            is_drained.then(|| DrainView { causes: self.life.holds(), over: self.life.drained() });
        LifeView {
            reason: self.life.reason(),
            drain,
            quarantine: self.life.quarantine(),
            desired: self.life.desired(),
            notices: self.life.notices(),
            notices_check: &self.watching,
            cleaning: self.cleaning(),
            last_cleanup: self.found.as_ref(),
            unrecorded_cleanups: self.unrecorded.len(),
            state_file: &self.keeping,
        }
    }

    pub fn gpu_sampled(&mut self, signals: &Signals, now: Duration) {
        if let Some(wash) = &mut self.wash {
            wash.gpu_sampled(full_rounds(signals));
        }
        let verdict = signals.gpu.value.as_ref().map(|gpus| &gpus.verdict);
        let Some(unfit) = verdict.filter(|verdict| verdict.fitness == Fitness::Unfit) else {
            self.unfit_since = None;
            return;
        };
        let since = *self.unfit_since.get_or_insert(now);
        if now.saturating_sub(since) >= UNFIT_FOR {
            self.life.unfit(&unfit.reasons.join("; "), now);
        }
    }

    pub fn enclave_sampled(&mut self) {
        if let Some(wash) = &mut self.wash {
            wash.enclave_sampled();
        }
    }

    pub fn noticed(&mut self, notices: Vec<Notice>, check: Check, now: Duration) {
        self.watching = check;
        self.life.notice(notices, now);
    }

    pub fn registered(&mut self, desired: Option<Desired>, now: Duration) {
        self.life.registered(desired, now);
    }

    pub fn obey(&mut self, order: Order, signals: &Signals, now: Duration) -> Result<(), Refusal> {
        let can_clean = self.scope.has_any(&signals.gpu.check, &signals.enclave.check);
        self.life.obey(order, can_clean, now)
    }

    /// The command and the paths were looked at.
    pub fn looked(&mut self, run: u64, checks: Vec<CleanupCheck>, now: Duration) {
        if let Some(wash) = &mut self.wash {
            wash.outside(run, checks, now);
        }
    }

    /// The store has the findings of this run. Only what is on record lets an instance serve again.
    pub fn recorded(&mut self, run: u64, now: Duration) {
        let recorded = self.unrecorded.iter().any(|findings| findings.run == run);
        self.unrecorded.retain(|findings| findings.run != run);
        if recorded && self.cleaning() == Some(run) {
            self.wash = None;
            self.life.cleaned(None, now);
        }
    }

    /// Takes time, and what was in flight at `sampled`; begins, judges and gives up cleanups.
    pub fn step(
        &mut self,
        signals: &Signals,
        in_flight: InFlight,
        sampled: Duration,
        now: Duration,
        limits: &DrainLimits,
    ) {
        self.life.observe(in_flight, sampled, now, limits);
        if self.life.phase() != Lifecycle::Cleaning {
            self.wash = None;
            return;
        }
        if !self.life.kept().owes_cleanup {
            // Clean, and held by somebody.
            return;
        }
        let Some(wash) = &self.wash else {
            self.runs += 1;
            self.wash = Some(Wash::new(self.runs, full_rounds(signals)));
            return;
        };
        if self.unrecorded.iter().any(|findings| findings.run == wash.run()) {
            return;
        }
        let found = wash.findings(&self.scope, &uses(&signals.gpu), &signals.enclave, now);
        if let Some(findings) = found {
            self.judge(findings, now);
        }
    }

    fn judge(&mut self, findings: Findings, now: Duration) {
        if self.unrecorded.len() >= MAX_UNRECORDED {
            self.unrecorded.remove(0);
        }
        self.unrecorded.push(findings.clone());
        if let Some(failure) = findings.failure() {
            self.wash = None;
            self.life.cleaned(Some(failure), now);
        }
        self.found = Some(findings);
    }
}

/// How often everything was asked of every GPU.
fn full_rounds(signals: &Signals) -> u64 {
    signals.gpu.value.as_ref().map_or(0, |gpus| gpus.full_rounds)
}

#[cfg(test)]
mod tests;
