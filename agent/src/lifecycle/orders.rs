//! What somebody on this machine wants, and why it may be refused.

use std::time::Duration;

use mrgc_fleet::model::{DesiredState, Lifecycle};
use thiserror::Error;

use super::{Cause, Life};

/// What somebody on this machine asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Drain,
    Undrain,
    Clean,
}

/// Why an order is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the instance goes for good ({}): it does not come back", .0.as_str())]
    ForGood(Cause),
    #[error("it is wanted {state} by {operator}{reason}: `mrgc instances release` lifts that")]
    Wanted { state: &'static str, operator: String, reason: String },
    #[error(
        "it is quarantined ({0}): `mrgc-agent clean` validates and releases it, or an operator does"
    )]
    Quarantined(String),
    #[error("nothing is configured that could be looked at: see [cleanup]")]
    NothingToCheck,
    #[error("it is being cleaned already")]
    Cleaning,
}

impl Life {
    /// Obeys somebody on this machine. `can_clean`: there is something that a cleanup would look at.
    pub fn obey(&mut self, order: Order, can_clean: bool, now: Duration) -> Result<(), Refusal> {
        match order {
            Order::Drain => {
                self.holds.insert(Cause::Command);
            }
            Order::Undrain => self.undrain(can_clean)?,
            Order::Clean => self.clean(can_clean)?,
        }
        self.settle(now);
        Ok(())
    }

    fn undrain(&mut self, can_clean: bool) -> Result<(), Refusal> {
        self.refuse_for_good()?;
        self.refuse_wanted(DesiredState::Draining)?;
        if let Some(quarantine) = &self.quarantine {
            return Err(Refusal::Quarantined(quarantine.reason.clone()));
        }
        let was_drained = self.phase == Lifecycle::Draining && self.drained().is_some();
        self.owes_cleanup |= was_drained && can_clean && self.cleans_after_drain;
        self.holds.clear();
        Ok(())
    }

    fn clean(&mut self, can_clean: bool) -> Result<(), Refusal> {
        self.refuse_for_good()?;
        self.refuse_wanted(DesiredState::Quarantined)?;
        if !can_clean {
            return Err(Refusal::NothingToCheck);
        }
        if self.phase == Lifecycle::Cleaning {
            return Err(Refusal::Cleaning);
        }
        self.owes_cleanup = true;
        self.quarantine = None;
        self.holds.remove(&Cause::Command);
        Ok(())
    }

    /// What is for good can be taken back while its notice is gone and the drain still runs.
    fn refuse_for_good(&self) -> Result<(), Refusal> {
        let stands = |cause: Cause| {
            cause == Cause::Signal
                || self.phase == Lifecycle::Terminated
                || self.notices.iter().any(|notice| notice.cause == Some(cause))
        };
        let mut for_good = self.holds.iter().filter(|cause| cause.is_for_good());
        for_good.find(|cause| stands(**cause)).map_or(Ok(()), |cause| Err(Refusal::ForGood(*cause)))
    }

    fn refuse_wanted(&self, least: DesiredState) -> Result<(), Refusal> {
        let Some(desired) = self.desired.as_ref().filter(|desired| desired.state >= least) else {
            return Ok(());
        };
        let reason = desired.reason.as_deref().map(|reason| format!(" ({reason})"));
        Err(Refusal::Wanted {
            state: desired.state.as_str(),
            operator: desired.operator.clone().unwrap_or_else(|| "an operator".to_owned()),
            reason: reason.unwrap_or_default(),
        })
    }
}
