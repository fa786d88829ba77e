//! When a call has run for too long.
//!
//! Epoch ticks count the clock's time, and a busy machine may keep a thread off its processor for longer
//! than a whole deadline. That is no fault of the policy's, and must not end it or roll it back. So a
//! call is looked at when half its deadline has passed, and ends when its thread has then truly run for
//! the other half:
//!
//! ```text
//!   start ──── half the deadline, by the clock ───► look ──── half of it, by the thread's time ───► end
//!          (the call of a well-behaved policy is over: reading the thread's time costs it nothing)
//! ```

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::UpdateDeadline;

use crate::ticker::TICK;

/// Watches one call at a time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    half: Duration,
    /// What the thread had run for at the first look.
    ran_before: Option<Duration>,
}

impl Watch {
    /// A call starts. In how many ticks to look at it.
    pub(crate) fn start(&mut self, deadline: Duration) -> u64 {
        *self = Self { half: deadline / 2, ran_before: None };
        ticks(self.half)
    }

    pub(crate) fn look(&mut self) -> UpdateDeadline {
        self.look_at(thread_time())
    }

    fn look_at(&mut self, ran: Duration) -> UpdateDeadline {
        let Some(before) = self.ran_before else {
            self.ran_before = Some(ran);
            return UpdateDeadline::Continue(ticks(self.half));
        };
        match self.half.saturating_sub(ran.saturating_sub(before)) {
            Duration::ZERO => UpdateDeadline::Interrupt,
            left => UpdateDeadline::Continue(ticks(left)),
        }
    }
}

/// Ticks after which at least this much has passed.
fn ticks(time: Duration) -> u64 {
    (time.as_micros() / TICK.as_micros()) as u64 + 1
}

/// How long this thread has been on a processor.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_call_that_runs_on_ends_after_its_deadline() {
        let mut watch = Watch::default();
        assert_eq!(watch.start(50 * MS), 26);
        assert!(matches!(watch.look_at(100 * MS), UpdateDeadline::Continue(26)));
        assert!(matches!(watch.look_at(124 * MS), UpdateDeadline::Continue(2)));
        assert!(matches!(watch.look_at(125 * MS), UpdateDeadline::Interrupt));
    }

    #[test]
    fn a_call_that_was_kept_from_running_goes_on() {
        let mut watch = Watch::default();
        watch.start(2 * MS);
        for _ in 0..1000 {
            assert!(matches!(watch.look_at(7 * MS), UpdateDeadline::Continue(2)));
        }
    }

    #[test]
    fn each_call_is_watched_anew() {
        let mut watch = Watch::default();
        watch.start(2 * MS);
        assert!(matches!(watch.look_at(7 * MS), UpdateDeadline::Continue(2)));
        watch.start(2 * MS);
        assert!(matches!(watch.look_at(20 * MS), UpdateDeadline::Continue(2)));
        assert!(matches!(watch.look_at(21 * MS), UpdateDeadline::Interrupt));
    }

    #[test]
    fn a_thread_that_sleeps_does_not_run() {
        let before = thread_time();
        std::thread::sleep(20 * MS);
        assert!(thread_time() - before < 10 * MS);
    }
}
