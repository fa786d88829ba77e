//! Virtual time: what happens next, and what each process takes for now.

use std::{cmp::Ordering, collections::BinaryHeap};

use fastrand::Rng;
use mrgc_fleet::model::Timestamp;

/// What happens when. Of two events at one moment, the one that was planned first comes first.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    heap: BinaryHeap<Planned<E>>,
    planned: u64,
}

#[derive(Debug)]
struct Planned<E> {
    at_ms: u64,
    number: u64,
    event: E,
}

impl<E> Planned<E> {
    /// A heap gives the greatest first, which has to be the earliest.
    fn rank(&self) -> impl Ord + use<E> {
        std::cmp::Reverse((self.at_ms, self.number))
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), planned: 0 }
    }
}

impl<E> Agenda<E> {
    pub(crate) fn plan(&mut self, at_ms: u64, event: E) {
        self.planned += 1;
        self.heap.push(Planned { at_ms, number: self.planned, event });
    }

    /// The next event that happens before `end_ms`, and when.
    pub(crate) fn next_before(&mut self, end_ms: u64) -> Option<(u64, E)> {
        if self.heap.peek()?.at_ms >= end_ms {
            return None;
        }
        self.heap.pop().map(|planned| (planned.at_ms, planned.event))
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

/// A process's own clocks. The monotonic one starts anywhere and runs a little fast or slow, the wall clock
/// is off by hours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started_ms: u64,
    begins_at_ms: u64,
    /// Milliseconds of its own for each million that pass.
    rate: u64,
    wall_ahead_ms: u64,
}

const MILLION: u64 = 1_000_000;
/// How much faster or slower than time a clock runs, at most. A lease is safe as long as one clock does not
/// run a third faster than another.
const MAX_DRIFT: u64 = 100_000;
const MAX_WALL_AHEAD_MS: u64 = 6 * 60 * 60 * 1_000;
/// Longest that a process has been up, by its own clock, when a run begins.
const MAX_UPTIME_MS: u64 = 60 * 60 * 1_000;

impl Clock {
    /// A clock that tells the time.
    pub(crate) fn exact(now_ms: u64) -> Self {
        Self { started_ms: now_ms, begins_at_ms: 0, rate: MILLION, wall_ahead_ms: 0 }
    }

    pub(crate) fn skewed(now_ms: u64, rng: &mut Rng) -> Self {
        Self {
            started_ms: now_ms,
            begins_at_ms: rng.u64(0..MAX_UPTIME_MS),
            rate: rng.u64(MILLION - MAX_DRIFT..=MILLION + MAX_DRIFT),
            wall_ahead_ms: rng.u64(0..MAX_WALL_AHEAD_MS),
        }
    }

    /// Its monotonic time.
    pub(crate) fn now_ms(&self, at_ms: u64) -> u64 {
        self.begins_at_ms + (at_ms - self.started_ms) * self.rate / MILLION
    }

    /// When, in virtual time, so much of its own has passed.
    pub(crate) fn after(&self, at_ms: u64, own_ms: u64) -> u64 {
        at_ms + (own_ms * MILLION).div_ceil(self.rate)
    }

    pub(crate) fn wall(&self, at_ms: u64) -> Timestamp {
        Timestamp(EPOCH_MS + self.now_ms(at_ms) + self.wall_ahead_ms)
    }

    /// Somebody sets the wall clock.
    pub(crate) fn set_wall(&mut self, rng: &mut Rng) {
        self.wall_ahead_ms = rng.u64(0..MAX_WALL_AHEAD_MS);
    }
}

/// The time of day at which a run begins, about 2025.
const EPOCH_MS: u64 = 1_760_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_for_one_moment_keeps_its_order() {
        let mut agenda = Agenda::default();
        for (at_ms, event) in [(20, 'c'), (10, 'a'), (20, 'd'), (10, 'b'), (30, 'e')] {
            agenda.plan(at_ms, event);
        }
        let first: Vec<_> = std::iter::from_fn(|| agenda.next_before(30)).collect();
        assert_eq!(first, [(10, 'a'), (10, 'b'), (20, 'c'), (20, 'd')]);
        assert_eq!(agenda.len(), 1);
    }

    #[test]
    fn a_clock_s_own_time_is_reached_when_it_says() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..100 {
            let clock = Clock::skewed(5_000, &mut rng);
            let now = rng.u64(5_000..100_000);
            let own = rng.u64(0..60_000);
            let then = clock.now_ms(clock.after(now, own)) - clock.now_ms(now);
            assert!((own..=own + 2).contains(&then), "{own} ms took {then}");
        }
    }
}
