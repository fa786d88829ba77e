//! Failovers as they happen here: told in the log, and counted for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mrgc_fleet::{
    failover::{Cause, FailoverEvent, Output, Transition},
    model::{RegionId, Timestamp},
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

    /// Takes what one evaluation, at `at`, came to.
    pub fn take(&self, outputs: &[Output], timeout_ms: u64, at: Timestamp) {
        for output in outputs {
            match output {
                Output::Changed {
                    region,
                    transition: Transition { from, to, share, reason, .. },
                } => {
                    tracing::warn!(%region, %from, %to, share, reason, "a region changed");
                }
                Output::Event(event) => {
                    let FailoverEvent { id, to, duration_ms, ended_at, .. } = event;
                    let is_over = ended_at.is_some();
                    tracing::warn!(id, ?to, duration_ms, is_over, "failover");
                    if !is_over {
                        self.count(event, timeout_ms, at);
                    }
                }
            }
        }
    }

    /// One under way comes when it begins and once more when its traffic has moved, which may be the same
    /// moment.
    fn count(&self, event: &FailoverEvent, timeout_ms: u64, at: Timestamp) {
        let FailoverEvent { id, from, cause, duration_ms, .. } = event;
        let mut counts = self.lock();
        if event.at == at {
            let causes = counts.by_region.entry(from.clone()).or_default();
            match cause {
                Cause::Automatic => causes.automatic += 1,
                Cause::Manual => causes.manual += 1,
            }
        }
        if event.is_late(timeout_ms) {
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
    use mrgc_fleet::failover::Strategy;

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
        let take = |event: &FailoverEvent, at| {
            failovers.take(&[Output::Event(event.clone())], TIMEOUT_MS, Timestamp(at));
        };
        // At once, and late by a millisecond.
        let late = event(Cause::Automatic, 5_000, Some(TIMEOUT_MS + 1));
        take(&late, 5_000);
        take(&FailoverEvent { ended_at: Some(Timestamp(9_000)), ..late }, 9_000);
        take(&event(Cause::Automatic, 10_000, Some(TIMEOUT_MS)), 10_000);
        // An operator's takes the time that was asked for.
        take(&event(Cause::Manual, 20_000, None), 20_000);
        take(&event(Cause::Manual, 20_000, Some(2_500)), 22_500);
        let counts = failovers.counts();
        assert_eq!(counts.of(&"us".into()), Causes { automatic: 2, manual: 1 });
        assert_eq!(counts.of(&"eu".into()), Causes::default());
        assert_eq!(counts.late, 1);
    }
}
