//! The heartbeats of one registration: what was told, and what is due.
//!
//! The control loop may take several steps in life between two heartbeats, and the store takes one at a time,
//! by [`Lifecycle::successors`]: so a heartbeat says the next step on the way.

use std::time::Duration;

use mrgc_fleet::model::{Health, Lifecycle, Report};
use mrgc_store::{Store, StoreError};
use tokio::time::Instant;

use super::{BACKOFF_BASE, warn_failed};
use crate::{backoff::Backoff, config, pace::Pace, signals::Heartbeats, state::Snapshot};

/// The heartbeats of one registration: what was written, what failed, and when the next is due.
pub(super) struct Beats {
    pace: Pace,
    /// The first is due as soon as the control loop knows of the registration.
    pub(super) due: Instant,
    pub(super) told: Option<Told>,
    /// What the store holds, as far as this agent knows, and since when; `None` after a failure.
    held: Option<(Instant, Report)>,
    /// The lifecycle that the store holds, as far as this agent knows.
    reported: Lifecycle,
    sequence: u64,
    /// In a row.
    failures: u32,
    counts: Heartbeats,
}

impl Beats {
    pub(super) fn new(config: config::Heartbeat) -> Self {
        Self {
            pace: Pace::new(config),
            due: Instant::now(),
            told: None,
            held: None,
            reported: Lifecycle::Registering,
            sequence: 0,
            failures: 0,
            counts: Heartbeats::default(),
        }
    }

    /// A shorter interval holds at once, a longer one after the next heartbeat.
    pub(super) fn configure(&mut self, config: config::Heartbeat) {
        self.pace.configure(config);
        self.due = self.due.min(Instant::now() + self.pace.interval());
    }

    /// Whether there is nothing to write yet; then the next look is set.
    pub(super) fn skip(&mut self, snapshot: &Snapshot) -> bool {
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
    pub(super) fn next(&mut self, snapshot: &Snapshot, generation: u64) -> Report {
        self.sequence += 1;
        let lifecycle = step(self.reported, snapshot.lifecycle);
        self.told = Some(Told { at: Instant::now(), facts: facts(snapshot) });
        let promise = u32::try_from(self.pace.promise().as_millis()).unwrap_or(u32::MAX);
        let report = snapshot.report(generation, self.sequence);
        Report { lifecycle, next_within_ms: Some(promise), ..report }
    }

    pub(super) fn written(&mut self, report: Report) {
        if self.failures > 0 {
            let (sequence, failures) = (report.sequence, self.failures);
            tracing::info!(sequence, failures, "the store takes heartbeats again");
        }
        self.pace.succeeded();
        // The second comes anywhere within an interval after the first, so that instances that started
        // together do not beat together.
        let is_first = self.counts.written == 0;
        let is_there = self.told.is_some_and(|told| told.facts.0 == report.lifecycle);
        let share = match is_there {
            // The next step on the way.
            false => 0.0,
            true if is_first => fastrand::f64(),
            true => 1.0,
        };
        let now = Instant::now();
        self.due = now + self.pace.interval().mul_f64(share);
        self.failures = 0;
        self.counts.written += 1;
        self.reported = report.lifecycle;
        self.held = Some((now, report));
    }

    pub(super) fn failed(&mut self, error: &StoreError) {
        self.failures += 1;
        self.counts.failed += 1;
        self.held = None;
        if let StoreError::IllegalTransition { from, .. } = error {
            // An attempt that seemed to fail was written.
            self.reported = *from;
        }
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

    /// The longest silence: also how often it is read what is wanted of the instance.
    pub(super) fn longest_silence(&self) -> Duration {
        self.pace.promise()
    }

    pub(super) fn counted(&self, store: &Store) -> Heartbeats {
        let calls = store.counts();
        Heartbeats {
            interval_ms: u64::try_from(self.pace.interval().as_millis()).unwrap_or(u64::MAX),
            throttled_answers: calls.throttled,
            retried_calls: calls.retried,
            ..self.counts
        }
    }
}

/// The last attempt at a heartbeat, and what it was about: all of it, or the first step on the way there.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) at: Instant,
    pub(super) facts: (Lifecycle, Health),
}

/// What the routers should know at once.
pub(super) fn facts(snapshot: &Snapshot) -> (Lifecycle, Health) {
    (snapshot.lifecycle, snapshot.assessment.health)
}

/// The first step on the shortest way that the store allows. None is longer than two.
fn step(from: Lifecycle, to: Lifecycle) -> Lifecycle {
    if from.may_become(to) {
        return to;
    }
    from.successors().iter().copied().find(|via| via.may_become(to)).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lifecycle: Lifecycle) -> Snapshot {
        Snapshot { lifecycle, ..Snapshot::blank() }
    }

    #[test]
    fn a_step_on_the_way_is_followed_by_the_next_at_once_and_a_failure_is_not() {
        let interval = Duration::from_secs(300);
        let mode = config::HeartbeatMode::Adaptive;
        let mut beats =
            Beats::new(config::Heartbeat { mode, interval, max_interval: 3 * interval });
        let reason = "no answer".to_owned();
        let error = StoreError::NotConfigured { reason };
        let available = beats.next(&snapshot(Lifecycle::Available), 1);
        beats.written(available);
        for (fails, expected) in
            [(true, "draining"), (false, "draining"), (true, "cleaning"), (false, "cleaning")]
        {
            let cleaning = snapshot(Lifecycle::Cleaning);
            assert!(!beats.skip(&cleaning), "{expected}");
            let report = beats.next(&cleaning, 1);
            assert_eq!(report.lifecycle.as_str(), expected);
            assert_eq!(beats.told.map(|told| told.facts), Some(facts(&cleaning)), "no news");
            let is_last = expected == "cleaning";
            if fails {
                beats.failed(&error)
            } else {
                beats.written(report)
            }
            let is_soon = beats.due < Instant::now() + interval / 2;
            assert_eq!(is_soon, fails || !is_last, "{expected}, fails: {fails}");
        }
    }

    #[test]
    fn every_lifecycle_is_reached_in_two_steps() {
        for from in Lifecycle::ALL.into_iter().filter(|from| *from != Lifecycle::Terminated) {
            for to in Lifecycle::ALL.into_iter().filter(|to| *to != Lifecycle::Registering) {
                let first = step(from, to);
                let second = step(first, to);
                assert!(from.may_become(first) && first.may_become(second), "{from} to {to}");
                assert_eq!(second, to, "{from} to {to} by {first}");
            }
        }
        assert_eq!(step(Lifecycle::Available, Lifecycle::Cleaning), Lifecycle::Draining);
    }
}
