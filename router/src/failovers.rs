//! Failovers as they happen here: told in the log, and counted for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mrgc_fleet::{
    failover::{Cause, FailoverEvent, Output, Phase, Transition},
    model::RegionId,
};

/// What this router saw since it started. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Failovers(Arc<Mutex<Counts>>);

#[derive(Clone, Debug, Default)]
pub struct Counts {
    by_region: BTreeMap<RegionId, Causes>,
    /// Automatic ones that took longer than the failover timeout to move the traffic.
    pub late: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    pub automatic: u64,
    pub manual: u64,
}

impl Counts {
    pub fn of(&self, region: &RegionId) -> Causes {
        self.by_region.get(region).copied().unwrap_or_default()
    }
}

impl Failovers {
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Takes what one evaluation came to.
    pub fn take(&self, outputs: &[Output], timeout_ms: u64) {
        for output in outputs {
            match output {
                Output::Changed {
                    region,
                    transition: Transition { from, to, share, reason, .. },
                } => {
                    tracing::warn!(%region, %from, %to, share, reason, "a region changed");
                }
                Output::Event { phase, event } => {
                    let FailoverEvent { id, to, duration_ms, .. } = event;
                    tracing::warn!(id, ?phase, ?to, duration_ms, "failover");
                    self.count(*phase, event, timeout_ms);
                }
            }
        }
    }

    fn count(&self, phase: Phase, event: &FailoverEvent, timeout_ms: u64) {
        let FailoverEvent { id, from, cause, duration_ms, .. } = event;
        let mut counts = self.lock();
        if phase == Phase::Began {
            let causes = counts.by_region.entry(from.clone()).or_default();
            match cause {
                Cause::Automatic => causes.automatic += 1,
                Cause::Manual => causes.manual += 1,
            }
        }
        if phase != Phase::Ended && event.is_late(timeout_ms) {
            counts.late += 1;
            tracing::warn!(id, region = %from, duration_ms, timeout_ms, "a failover was late");
        }
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::{failover::Strategy, model::Timestamp};

    use super::*;

    const TIMEOUT_MS: u64 = 1_000;

    fn event(cause: Cause, at: u64, duration_ms: Option<u64>) -> FailoverEvent {
        FailoverEvent {
            id: format!("{at}-us"),
            from: "us".into(),
            to: vec!["eu".into()],
            at: Timestamp(at),
            ended_at: None,
            duration_ms,
            cause,
            strategy: Strategy::Immediate,
            reason: None,
            operator: None,
            writer_region: "eu".into(),
        }
    }

    #[test]
    fn a_failover_counts_once_however_often_it_is_told_of() {
        let failovers = Failovers::default();
        let take = |phase, event: &FailoverEvent| {
            failovers.take(&[Output::Event { phase, event: event.clone() }], TIMEOUT_MS);
        };
        // At once, and late by a millisecond.
        let late = event(Cause::Automatic, 5_000, Some(TIMEOUT_MS + 1));
        take(Phase::Began, &late);
        take(Phase::Ended, &FailoverEvent { ended_at: Some(Timestamp(9_000)), ..late });
        take(Phase::Began, &event(Cause::Automatic, 10_000, Some(TIMEOUT_MS)));
        // An operator's takes the time that was asked for. Two may begin in one millisecond.
        take(Phase::Began, &event(Cause::Manual, 20_000, None));
        take(Phase::Moved, &event(Cause::Manual, 20_000, Some(0)));
        take(Phase::Began, &event(Cause::Manual, 20_000, Some(2_500)));
        let counts = failovers.counts();
        assert_eq!(counts.of(&"us".into()), Causes { automatic: 2, manual: 2 });
        assert_eq!(counts.of(&"eu".into()), Causes::default());
        assert_eq!(counts.late, 1);
    }
}
