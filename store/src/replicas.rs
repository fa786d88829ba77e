//! Which of a table's replicas is asked when a read comes: the nearest one that answers.
//!
//! A store has a primary, its own region's endpoint, and may have replicas of the same global tables in
//! other regions, nearest first. Pure: time and chance come in, and what to ask comes out.
//!
//! ```text
//!           primary failed, replica i answered
//!  Primary ───────────────────────────────────► OnReplica(i) ──probe due: one read asks the primary first
//!     ▲                                             │  ▲             │
//!     └──────────────── primary answered ───────────┼──┼─────────────┤
//!                                                   │  └──it failed──┘
//!                                                   └─► OnReplica(j), where i failed and j answered
//! ```
//!
//! A probe is a read that was due anyway. The first comes 2.5 to 5 s after the turn, later ones up to a
//! minute apart: so that a fleet that turned together does not return together.

use std::time::Duration;

/// Until the first probe, at most; half of it at least.
const FIRST_PROBE: Duration = Duration::from_secs(5);
/// The longest wait between probes.
const PROBE_CAP: Duration = Duration::from_secs(60);

/// One that may be read from. Replicas are counted from the nearest, 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Primary,
    Replica(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Primary,
    OnReplica { index: usize, probe_at: Duration, probes: u32 },
}

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    ToReplica(usize),
    ToPrimary,
}

/// Where reads go. `now` is the time since any fixed moment, `random` uniform over 0 to 1.
#[derive(Debug)]
pub(crate) struct Nearest {
    replicas: usize,
    state: State,
}

impl Nearest {
    pub(crate) fn new(replicas: usize) -> Self {
        Self { replicas, state: State::Primary }
    }

    pub(crate) fn source(&self) -> Source {
        match self.state {
            State::Primary => Source::Primary,
            State::OnReplica { index, .. } => Source::Replica(index),
        }
    }

    /// Whom a read asks, one after the other until one answers. A due probe is given to one read only.
    pub(crate) fn order(&mut self, now: Duration, random: f64) -> Vec<Source> {
        let mut order: Vec<Source> = Vec::with_capacity(self.replicas + 1);
        order.push(Source::Primary);
        order.extend((0..self.replicas).map(Source::Replica));
        if let State::OnReplica { index, probe_at, probes } = &mut self.state {
            if now >= *probe_at {
                *probes = probes.saturating_add(1);
                *probe_at = now + probe_wait(*probes, random);
            } else {
                let current = order.remove(*index + 1);
                order.insert(0, current);
                // What failed last is asked last.
                order[1..].rotate_left(1);
            }
        }
        order
    }

    /// A source answered a read. `primary_failed`: in the same read, before it.
    pub(crate) fn answered(
        &mut self,
        source: Source,
        primary_failed: bool,
        now: Duration,
        random: f64,
    ) -> Option<Turn> {
        match (source, &mut self.state) {
            (Source::Primary, State::Primary) => None,
            (Source::Primary, state) => {
                *state = State::Primary;
                Some(Turn::ToPrimary)
            }
            (Source::Replica(answered), State::OnReplica { index, .. }) => {
                let changed = *index != answered;
                *index = answered;
                changed.then_some(Turn::ToReplica(answered))
            }
            // A read that began before the return says nothing about the primary now.
            (Source::Replica(_), State::Primary) if !primary_failed => None,
            (Source::Replica(index), state) => {
                *state =
                    State::OnReplica { index, probe_at: now + probe_wait(0, random), probes: 0 };
                Some(Turn::ToReplica(index))
            }
        }
    }
}

/// Between half and all of `FIRST_PROBE · 2^probes`, at most the cap.
fn probe_wait(probes: u32, random: f64) -> Duration {
    let longest = FIRST_PROBE.saturating_mul(1 << probes.min(10)).min(PROBE_CAP);
    longest.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
}

/// What the next of `left` sources may take of the time that is left: half, so that another has as
/// much, or all of it for the last.
pub(crate) fn share(time_left: Duration, left: usize) -> Duration {
    if left <= 1 { time_left } else { time_left / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: Source = Source::Primary;
    const NEAR: Source = Source::Replica(0);
    const FAR: Source = Source::Replica(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Turned to the near replica at 10 s; with `random` 1 the probe is due at 15 s.
    fn on_near() -> Nearest {
        let mut nearest = Nearest::new(2);
        assert_eq!(nearest.answered(NEAR, true, at(10), 1.0), Some(Turn::ToReplica(0)));
        nearest
    }

    #[test]
    fn a_read_asks_the_primary_and_then_the_nearest() {
        let mut nearest = Nearest::new(2);
        assert_eq!(nearest.order(at(0), 0.5), [PRIMARY, NEAR, FAR]);
        assert_eq!(nearest.answered(PRIMARY, false, at(0), 0.5), None);
        assert_eq!(nearest.source(), PRIMARY);
    }

    #[test]
    fn what_answered_instead_is_remembered_until_a_probe_is_due() {
        let mut nearest = on_near();
        for seconds in [10, 12, 14] {
            assert_eq!(nearest.order(at(seconds), 0.5), [NEAR, FAR, PRIMARY], "{seconds}");
        }
        assert_eq!(nearest.order(at(15), 1.0), [PRIMARY, NEAR, FAR], "the probe");
        assert_eq!(nearest.order(at(15), 1.0), [NEAR, FAR, PRIMARY], "one read probes, not all");
    }

    #[test]
    fn probes_get_rarer_and_their_answer_brings_reads_back() {
        let mut nearest = on_near();
        for due in [15, 25, 45, 85, 145, 205] {
            assert_eq!(nearest.order(at(due - 1), 1.0)[0], NEAR, "before {due}");
            assert_eq!(nearest.order(at(due), 1.0)[0], PRIMARY, "at {due}");
            assert_eq!(nearest.answered(NEAR, true, at(due), 1.0), None, "the probe failed");
        }
        assert_eq!(nearest.answered(PRIMARY, false, at(210), 1.0), Some(Turn::ToPrimary));
        assert_eq!(nearest.order(at(210), 1.0), [PRIMARY, NEAR, FAR]);
    }

    #[test]
    fn probes_of_a_fleet_are_spread() {
        for (random, due_ms) in [(0.0, 12_500), (0.5, 13_750), (1.0, 15_000)] {
            let mut nearest = Nearest::new(1);
            nearest.answered(NEAR, true, at(10), random);
            let due = Duration::from_millis(due_ms);
            assert_eq!(nearest.order(due - Duration::from_millis(1), 0.0)[0], NEAR, "{random}");
            assert_eq!(nearest.order(due, 0.0)[0], PRIMARY, "{random}");
        }
    }

    #[test]
    fn a_replica_that_fails_gives_way_to_the_next_and_a_probe_finds_the_nearer_again() {
        let mut nearest = on_near();
        assert_eq!(nearest.answered(FAR, false, at(11), 0.5), Some(Turn::ToReplica(1)));
        assert_eq!(nearest.order(at(12), 0.5), [FAR, NEAR, PRIMARY]);
        assert_eq!(nearest.order(at(15), 0.5), [PRIMARY, NEAR, FAR], "the probe asks by nearness");
        assert_eq!(nearest.answered(NEAR, true, at(15), 0.5), Some(Turn::ToReplica(0)));
    }

    #[test]
    fn a_read_from_before_the_return_does_not_turn_again() {
        let mut nearest = on_near();
        nearest.answered(PRIMARY, false, at(15), 0.5);
        assert_eq!(nearest.answered(NEAR, false, at(15), 0.5), None);
        assert_eq!(nearest.source(), PRIMARY);
    }

    #[test]
    fn the_last_source_has_all_the_time_that_is_left() {
        for (left_ms, sources, expected_ms) in [(2_000, 3, 1_000), (1_000, 2, 500), (500, 1, 500)] {
            let share = share(Duration::from_millis(left_ms), sources);
            assert_eq!(share.as_millis(), expected_ms, "{sources} sources");
        }
    }
}
