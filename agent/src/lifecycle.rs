//! Where the instance is in its life. Pure: what happened comes in, with the time since the agent's start.
//!
//! ```text
//!  Registering ──registered──► Available ◄──────────── passed ───────────┐
//!    │     ▲                     │   ▲                                   │
//!    │     │ called off          │   │ called off                        │
//!    │     │ before registered   │   │                                   │
//!    └─ drain ──────────────────►▼   │                                   │
//!                             Draining ──drained, and to be cleaned──► Cleaning
//!                                │                                       │
//!                                │ drained for good                      │ failed
//!                                ▼                                       ▼
//!                           Terminated          any ──unfit, failed, wanted──► Quarantined ──released──►
//!                                                                          (Available, Cleaning, Terminated)
//! ```
//!
//! The phase follows from what holds, never from the order in which it was heard:
//!
//! - **Holds** keep it from serving: a notice of the cloud, an operator's wish in the store, a command. A
//!   notice that was seen before adds nothing, and one that is gone takes nothing back: only `undrain` or, for
//!   a wish, the operator does. Two are for good: a spot interruption, and an Auto Scaling group's end.
//! - **Quarantine** by the agent itself, for a GPU that is unfit or a cleanup that failed, ends by `clean`, or
//!   by an operator who wants the instance to serve after it was quarantined. It never ends by itself, but
//!   that a reboot gives an unfit GPU another chance.
//! - **A cleanup that is owed** comes before the instance serves again.
//!
//! So that a killed agent forgets nothing, [`Kept`] outlives the process.

mod course;
mod drain;
mod kept;
mod orders;

use std::{collections::BTreeSet, time::Duration};

use mrgc_fleet::model::{Desired, DesiredState, Lifecycle, Stamp};
use serde::{Deserialize, Serialize};

pub(crate) use self::kept::{Keeper, keep};
pub use self::{
    course::{Course, DrainView, LifeView, Milestone},
    drain::{Drain, DrainLimits, Drained, InFlight},
    kept::Kept,
    orders::{Order, Refusal},
};
use crate::notices::Notice;

/// Of a quarantine's reason, so that the record that is kept of it has room.
const MAX_REASON_BYTES: usize = 512;

/// Who wants a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// SIGTERM or SIGINT: the process is to end.
    Signal,
    SpotInterruption,
    /// Its Auto Scaling group terminates it.
    AutoScaling,
    Rebalance,
    Maintenance,
    /// Somebody on this machine.
    Command,
}

impl Cause {
    /// Whether the instance does not come back from it.
    pub fn is_for_good(self) -> bool {
        matches!(self, Self::Signal | Self::SpotInterruption | Self::AutoScaling)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::SpotInterruption => "spot interruption",
            Self::AutoScaling => "Auto Scaling",
            Self::Rebalance => "rebalance recommendation",
            Self::Maintenance => "scheduled maintenance",
            Self::Command => "command",
        }
    }
}

/// Why the agent itself keeps the instance out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub cause: QuarantineCause,
    /// For people, as in `gpu_memory: GPU 0 holds 70000 MiB`.
    pub reason: String,
    /// Of what was wanted of the instance by then: who wants it to serve later releases it.
    #[serde(flatten)]
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineCause {
    UnfitGpu,
    FailedCleanup,
    /// What an earlier process left cannot be read.
    LostRecord,
}

/// The instance's life.
#[derive(Clone, Debug)]
pub struct Life {
    phase: Lifecycle,
    is_registered: bool,
    holds: BTreeSet<Cause>,
    /// What the cloud says at present.
    notices: Vec<Notice>,
    desired: Option<Desired>,
    quarantine: Option<Quarantine>,
    drain: Option<Drain>,
    owes_cleanup: bool,
    cleans_after_drain: bool,
    /// The quarantine began when nobody knew yet what was wanted.
    is_unstamped: bool,
}

impl Life {
    /// A life that begins with what an earlier process left.
    pub fn new(cleans_after_drain: bool, kept: Kept, now: Duration) -> Self {
        let Kept { drained, owes_cleanup, quarantine } = kept;
        let mut life = Self {
            phase: Lifecycle::Registering,
            is_registered: false,
            holds: drained.then_some(Cause::Command).into_iter().collect(),
            notices: Vec::new(),
            desired: None,
            is_unstamped: quarantine
                .as_ref()
                .is_some_and(|q| q.cause == QuarantineCause::LostRecord),
            quarantine,
            drain: None,
            owes_cleanup,
            cleans_after_drain,
        };
        life.settle(now);
        life
    }

    pub fn phase(&self) -> Lifecycle {
        self.phase
    }

    /// What must outlive the process.
    pub fn kept(&self) -> Kept {
        Kept {
            drained: self.holds.contains(&Cause::Command),
            owes_cleanup: self.owes_cleanup,
            quarantine: self.quarantine.clone(),
        }
    }

    /// Who wants it drained.
    pub fn holds(&self) -> &BTreeSet<Cause> {
        &self.holds
    }

    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    pub fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    pub fn desired(&self) -> Option<&Desired> {
        self.desired.as_ref()
    }

    /// Why the drain ended, once it has.
    pub fn drained(&self) -> Option<Drained> {
        self.drain.as_ref()?.over()
    }

    /// Whether a drain runs.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some_and(|drain| drain.over().is_none())
    }

    /// Whether it goes for good: there is no point in registering any more.
    pub fn is_leaving(&self) -> bool {
        self.holds.iter().any(|cause| cause.is_for_good())
    }

    /// Whether the process is to end now.
    pub fn is_over(&self) -> bool {
        self.phase == Lifecycle::Terminated && self.holds.contains(&Cause::Signal)
    }

    /// Why it does not serve, for people; `None` where it does, or only its fitness is in the way.
    pub fn reason(&self) -> Option<String> {
        if let Some(quarantine) = &self.quarantine {
            return Some(format!("quarantined: {}", quarantine.reason));
        }
        let mut wants: Vec<String> = self.holds.iter().map(|c| c.as_str().to_owned()).collect();
        if let Some(desired) = self.desired.as_ref().filter(|d| d.state != DesiredState::Serving) {
            let by = desired.operator.as_deref().unwrap_or("an operator");
            wants.push(format!("wanted {} by {by}", desired.state.as_str()));
        }
        (!wants.is_empty()).then(|| wants.join(", "))
    }

    /// The store has accepted the registration. What was wanted was asked before.
    pub fn registered(&mut self, desired: Option<Desired>, now: Duration) {
        self.is_registered = true;
        if let Some(quarantine) = self.quarantine.as_mut().filter(|_| self.is_unstamped) {
            quarantine.stamp = desired.as_ref().map(|desired| desired.stamp);
        }
        self.is_unstamped = false;
        self.wish(desired, now);
    }

    /// What operators and routers want of the instance.
    pub fn wish(&mut self, desired: Option<Desired>, now: Duration) {
        self.desired = desired;
        let serves_since = self
            .desired
            .as_ref()
            .filter(|desired| desired.state == DesiredState::Serving)
            .map(|desired| desired.stamp);
        if serves_since.is_some() {
            self.quarantine.take_if(|quarantine| quarantine.stamp != serves_since);
        }
        self.settle(now);
    }

    /// The process is to end.
    pub fn terminate(&mut self, now: Duration) {
        self.holds.insert(Cause::Signal);
        self.settle(now);
    }

    /// What the cloud says at present. Only what it did not say before begins a drain.
    pub fn notice(&mut self, notices: Vec<Notice>, now: Duration) {
        let fresh = notices.iter().filter(|notice| !self.notices.contains(notice));
        self.holds.extend(fresh.filter_map(|notice| notice.cause));
        self.notices = notices;
        self.settle(now);
    }

    /// The GPUs are not fit to serve.
    pub fn unfit(&mut self, reason: &str, now: Duration) {
        if self.quarantine.is_none() {
            self.put_in_quarantine(QuarantineCause::UnfitGpu, reason.to_owned());
        }
        self.settle(now);
    }

    /// How the cleanup ended: why it failed, or that it passed and is on record.
    pub fn cleaned(&mut self, failure: Option<String>, now: Duration) {
        self.owes_cleanup = false;
        if let Some(reason) = failure {
            self.put_in_quarantine(QuarantineCause::FailedCleanup, reason);
        }
        self.settle(now);
    }

    fn put_in_quarantine(&mut self, cause: QuarantineCause, mut reason: String) {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        let stamp = self.desired.as_ref().map(|desired| desired.stamp);
        self.quarantine = Some(Quarantine { cause, reason, stamp });
        self.is_unstamped = !self.is_registered;
    }

    /// Takes what was in flight at `sampled`.
    pub fn observe(
        &mut self,
        in_flight: InFlight,
        sampled: Duration,
        now: Duration,
        limits: &DrainLimits,
    ) {
        if let Some(drain) = &mut self.drain {
            drain.observe(in_flight, sampled, now, limits);
        }
        self.settle(now);
    }

    /// Goes on for as long as what holds says so. Each step goes on in life, so there are few.
    fn settle(&mut self, now: Duration) {
        while let Some(next) = self.next() {
            // Whom the store does not know yet may go back, and nobody was told otherwise.
            let is_allowed = self.phase.may_become(next) || !self.is_registered;
            debug_assert!(is_allowed, "{} to {next}", self.phase);
            self.phase = next;
            match next {
                Lifecycle::Registering | Lifecycle::Available => self.drain = None,
                Lifecycle::Draining | Lifecycle::Quarantined => {
                    self.drain.get_or_insert(Drain::new(now));
                }
                _ => {}
            }
        }
    }

    /// The step that what holds asks for; `None` where the phase is as it should be. Once registered, each is
    /// one that [`Lifecycle::successors`] allows.
    fn next(&self) -> Option<Lifecycle> {
        use Lifecycle::{Available, Cleaning, Draining, Quarantined, Registering, Terminated};
        let is_quarantined = self.quarantine.is_some() || self.wants(DesiredState::Quarantined);
        let is_held = !self.holds.is_empty() || self.wants(DesiredState::Draining);
        let is_drained = self.drained().is_some();
        match self.phase {
            Terminated => None,
            Draining | Quarantined if is_drained && self.is_leaving() => Some(Terminated),
            Cleaning if self.is_leaving() => Some(Terminated),
            Quarantined if is_quarantined || is_held || !self.is_registered => None,
            Quarantined if !self.owes_cleanup => Some(Available),
            Quarantined => is_drained.then_some(Cleaning),
            _ if is_quarantined => Some(Quarantined),
            Registering | Available if is_held || self.owes_cleanup => Some(Draining),
            Registering => self.is_registered.then_some(Available),
            Draining if !self.is_registered && (is_held || self.owes_cleanup) => None,
            Draining if !self.is_registered => Some(Registering),
            Draining if self.owes_cleanup => is_drained.then_some(Cleaning),
            Draining | Cleaning if is_held || self.owes_cleanup => None,
            Draining | Cleaning => Some(Available),
            Available => None,
        }
    }

    fn wants(&self, least: DesiredState) -> bool {
        self.desired.as_ref().is_some_and(|desired| desired.state >= least)
    }
}

#[cfg(test)]
mod tests;
