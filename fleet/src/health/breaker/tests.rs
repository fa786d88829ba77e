#![allow(clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::health::{ProbeConfig, ProbeResult, Probes, Verdict};

use Outcome::{Answered, Broken, Busy, ServerError, TimedOut, Unreachable};

const CONFIG: EjectionConfig = EjectionConfig {
    consecutive_failures: 5,
    base_ms: 2_000,
    max_ms: 60_000,
    max_share: 0.5,
    trial_requests: 3,
    slow_start_ms: 30_000,
    slow_start_floor: 0.1,
};
const PLENTY: Room = Room { taken: 0, instances: 10 };
const NONE: Room = Room { taken: 5, instances: 10 };

/// One attempt from its beginning to its end, in no time.
fn attempt(breaker: &mut Breaker, outcome: Outcome, now_ms: u64) -> Change {
    let admission = breaker.admit(now_ms, &CONFIG);
    breaker.handle(outcome, admission, PLENTY, now_ms, &CONFIG)
}

fn ejected(outcome: Outcome, now_ms: u64) -> Breaker {
    let mut breaker = Breaker::default();
    let times = if outcome.is_soft() { 5 } else { 1 };
    let changes: Vec<_> = (0..times).map(|_| attempt(&mut breaker, outcome, now_ms)).collect();
    assert!(matches!(changes.last(), Some(Change::Ejected { .. })), "{changes:?}");
    breaker
}

#[test]
fn the_default_is_what_the_documentation_says_and_has_no_problems() {
    assert_eq!(EjectionConfig::default(), CONFIG);
    assert_eq!(CONFIG.problems(), [""; 0]);
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let config = EjectionConfig {
        consecutive_failures: 0,
        base_ms: 5_000,
        max_ms: 1_000,
        max_share: f64::NAN,
        trial_requests: 0,
        slow_start_ms: 0,
        slow_start_floor: 0.0,
    };
    let problems = config.problems();
    assert_eq!(problems.len(), 5, "{problems:#?}");
    assert!(problems[2].contains("5000 ms") && problems[2].contains("1000 ms"), "{problems:#?}");
}

#[test]
fn who_cannot_be_connected_to_is_out_at_once_and_others_after_five_failures_in_a_row() {
    let five = [ServerError, TimedOut, Broken, TimedOut, ServerError];
    let (four, not_found, busy) = ([ServerError; 4], Outcome::of_status(404), [Busy; 50]);
    for (outcomes, ejects_at) in [
        (vec![Unreachable], Some(0)),
        (vec![Answered, Unreachable], Some(1)),
        ([ServerError; 5].to_vec(), Some(4)),
        (five.to_vec(), Some(4)),
        ([&four[..], &[Answered], &four[..]].concat(), None),
        ([&four[..], &[not_found], &four[..]].concat(), None),
        // A 429 neither counts nor clears.
        ([&four[..], &busy, &[ServerError]].concat(), Some(54)),
        (busy.to_vec(), None),
        (vec![not_found; 50], None),
    ] {
        let mut breaker = Breaker::default();
        let ejection = outcomes.iter().position(|outcome| {
            matches!(attempt(&mut breaker, *outcome, 7), Change::Ejected { cause, .. } if cause == *outcome)
        });
        assert_eq!(ejection, ejects_at, "{outcomes:?}");
    }
}

#[test]
fn while_ejected_nothing_is_admitted_and_then_a_few_at_once() {
    let mut breaker = ejected(Unreachable, 0);
    assert_eq!(breaker.state(1_999, &CONFIG), BreakerState::Ejected { soft: false });
    assert_eq!(breaker.admit(1_999, &CONFIG), Admission::No);
    assert_eq!(breaker.state(2_000, &CONFIG), BreakerState::Probing { room: true });
    let admissions = [(); 5].map(|()| breaker.admit(2_000, &CONFIG));
    use Admission::{No, Trial};
    assert_eq!(admissions, [Trial, Trial, Trial, No, No]);
    assert_eq!(breaker.state(2_000, &CONFIG), BreakerState::Probing { room: false });

    breaker.abandon(Trial);
    assert_eq!([(); 2].map(|()| breaker.admit(2_000, &CONFIG)), [Trial, No]);
    // What was never a trial has no place to give back.
    breaker.abandon(No);
    assert_eq!(breaker.admit(2_000, &CONFIG), No);
}

#[test]
fn three_answers_bring_it_back_and_it_starts_slowly() {
    let mut breaker = ejected(ServerError, 0);
    let changes = [(); 3].map(|()| attempt(&mut breaker, Answered, 2_000));
    assert_eq!(changes, [Change::None, Change::None, Change::Rejoined]);
    for (at_ms, expected) in [
        (2_000, BreakerState::Ramping { share: 0.1 }),
        (17_000, BreakerState::Ramping { share: 0.55 }),
        (31_999, BreakerState::Ramping { share: 0.99997 }),
        (32_000, BreakerState::Healthy),
    ] {
        assert_eq!(breaker.state(at_ms, &CONFIG), expected, "{at_ms}");
    }
    // It takes all that is sent there meanwhile: its share is the decision's to keep.
    assert_eq!(breaker.admit(2_000, &CONFIG), Admission::Yes);
}

#[test]
fn one_that_comes_back_and_fails_is_out_for_longer_each_time_and_never_for_longer_than_a_minute() {
    let (mut breaker, mut now_ms) = (Breaker::default(), 0);
    let times_s = [(); 8].map(|()| {
        let Change::Ejected { until_ms, .. } = attempt(&mut breaker, Unreachable, now_ms) else {
            panic!("{breaker:?} is not ejected at {now_ms}");
        };
        let for_ms = until_ms - now_ms;
        now_ms = until_ms;
        for_ms / 1_000
    });
    assert_eq!(times_s, [2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn an_ejection_is_forgotten_for_each_minute_of_health() {
    for (healthy_s, next_s) in [(0, 16), (59, 16), (60, 8), (119, 8), (120, 4), (180, 2), (900, 2)]
    {
        let (mut breaker, mut now_ms) = (Breaker::default(), 0);
        for _ in 0..3 {
            let Change::Ejected { until_ms, .. } = attempt(&mut breaker, Unreachable, now_ms)
            else {
                panic!("{breaker:?}");
            };
            now_ms = until_ms;
        }
        for _ in 0..3 {
            attempt(&mut breaker, Answered, now_ms);
        }
        now_ms += healthy_s * 1_000;
        attempt(&mut breaker, Answered, now_ms);
        assert_eq!(breaker.is_clean(), healthy_s >= 180, "{healthy_s} s");
        let change = attempt(&mut breaker, Unreachable, now_ms);
        let until_ms = now_ms + next_s * 1_000;
        assert_eq!(change, Change::Ejected { until_ms, cause: Unreachable }, "{healthy_s} s");
    }
}

#[test]
fn a_failed_trial_ejects_again_and_a_few_answers_before_do_not_help() {
    let mut breaker = ejected(ServerError, 0);
    attempt(&mut breaker, Answered, 2_000);
    attempt(&mut breaker, Answered, 2_000);
    let change = attempt(&mut breaker, TimedOut, 2_000);
    assert_eq!(change, Change::Ejected { until_ms: 6_000, cause: TimedOut });
    // The two answers are gone: three more are needed.
    let changes = [(); 3].map(|()| attempt(&mut breaker, Answered, 6_000));
    assert_eq!(changes, [Change::None, Change::None, Change::Rejoined]);
}

#[test]
fn who_is_out_for_soft_failures_stays_in_its_own_room_when_a_trial_fails() {
    let mut breaker = ejected(ServerError, 0);
    assert_eq!(breaker.admit(2_000, &CONFIG), Admission::Trial);
    let change = breaker.handle(ServerError, Admission::Trial, NONE, 2_000, &CONFIG);
    assert_eq!(change, Change::Ejected { until_ms: 6_000, cause: ServerError });
}

#[test]
fn one_that_is_tried_without_a_trial_and_not_reached_is_out_for_longer() {
    let mut breaker = ejected(Unreachable, 0);
    // Its time is over, and nobody asked whether it takes trials.
    let change = breaker.handle(Unreachable, Admission::No, PLENTY, 2_000, &CONFIG);
    assert_eq!(change, Change::Ejected { until_ms: 6_000, cause: Unreachable });
}

#[test]
fn it_is_not_clean_before_the_last_trial_has_ended() {
    let mut breaker = ejected(Unreachable, 0);
    let slow = breaker.admit(2_000, &CONFIG);
    for _ in 0..3 {
        attempt(&mut breaker, Answered, 2_000);
    }
    attempt(&mut breaker, Answered, 900_000);
    assert_eq!(breaker.state(900_000, &CONFIG), BreakerState::Healthy);
    assert!(!breaker.is_clean());
    breaker.handle(Answered, slow, PLENTY, 900_000, &CONFIG);
    assert!(breaker.is_clean());
}

#[test]
fn an_answer_while_ejected_begins_the_trials_early() {
    let mut breaker = ejected(ServerError, 0);
    let change = breaker.handle(Answered, Admission::Yes, PLENTY, 10, &CONFIG);
    assert_eq!(change, Change::Probing);
    assert_eq!(breaker.state(10, &CONFIG), BreakerState::Probing { room: true });
    // Answers to requests from before are no trials.
    for _ in 0..10 {
        assert_eq!(breaker.handle(Answered, Admission::Yes, PLENTY, 10, &CONFIG), Change::None);
    }
    assert_eq!(breaker.state(10, &CONFIG), BreakerState::Probing { room: true });
}

#[test]
fn what_began_before_the_ejection_says_nothing_new_when_it_fails() {
    let mut breaker = ejected(TimedOut, 0);
    let before = breaker.state(0, &CONFIG);
    for outcome in [TimedOut, Broken, ServerError, Unreachable] {
        let change = breaker.handle(outcome, Admission::Yes, PLENTY, 1_000, &CONFIG);
        assert_eq!(change, Change::None, "{outcome:?}");
    }
    assert_eq!(before, BreakerState::Ejected { soft: true });
    // But that it cannot be connected to makes room for another.
    assert_eq!(breaker.state(1_000, &CONFIG), BreakerState::Ejected { soft: false });
    assert_eq!(breaker.admit(2_000, &CONFIG), Admission::Trial);
    // A timeout of long ago does not end the trials; that of a trial does.
    assert_eq!(breaker.handle(TimedOut, Admission::Yes, PLENTY, 2_000, &CONFIG), Change::None);
    let change = breaker.handle(TimedOut, Admission::Trial, PLENTY, 2_000, &CONFIG);
    assert_eq!(change, Change::Ejected { until_ms: 6_000, cause: TimedOut });
}

#[test]
fn a_health_answer_that_lies_brings_nobody_back_whose_requests_fail() {
    let id = "i-1".into();
    let mut probes = Probes::new(ProbeConfig::default());
    probes.keep([&id], 0);
    let mut breaker = ejected(ServerError, 0);
    let mut served = 0;
    // A request wants to go there every 100 ms for five minutes, and fails; each probe passes.
    for now_ms in (0..300_000).step_by(100) {
        for id in probes.due(now_ms) {
            probes.handle(&id, ProbeResult::Passed, true, now_ms);
            breaker.rejoin(now_ms, &CONFIG);
        }
        let admission = breaker.admit(now_ms, &CONFIG);
        if admission != Admission::No {
            served += 1;
            breaker.handle(ServerError, admission, PLENTY, now_ms, &CONFIG);
        }
        assert!(!matches!(breaker.state(now_ms, &CONFIG), BreakerState::Healthy), "{now_ms}");
    }
    assert_eq!(probes.verdict(&id), &Verdict::Healthy);
    // One each time that an ejection was over: after 2, 4, 8, 16, 32 and then each 60 s.
    assert_eq!(served, 8);
}

#[test]
fn other_evidence_that_it_is_back_starts_it_slowly() {
    let mut breaker = Breaker::default();
    breaker.rejoin(1_000, &CONFIG);
    assert_eq!(breaker.state(1_000, &CONFIG), BreakerState::Ramping { share: 0.1 });
    assert_eq!(breaker.state(31_000, &CONFIG), BreakerState::Healthy);
    assert!(!breaker.is_clean());
    attempt(&mut breaker, Answered, 31_000);
    assert!(breaker.is_clean());
}

#[test]
fn soft_failures_take_out_at_most_a_share_of_a_pool_yet_one_always() {
    for (instances, most) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5), (11, 5), (100, 50)] {
        assert_eq!(soft_ejected(instances), most, "of {instances}");
    }
}

/// How many of a pool are out after each has failed a hundred times.
fn soft_ejected(instances: u32) -> u32 {
    let mut pool: Vec<Breaker> = (0..instances).map(|_| Breaker::default()).collect();
    for round in 0..100 {
        for i in 0..pool.len() {
            let taken = pool.iter().filter(|breaker| breaker.takes_room()).count() as u32;
            let admission = pool[i].admit(round, &CONFIG);
            pool[i].handle(ServerError, admission, Room { taken, instances }, round, &CONFIG);
        }
    }
    let out =
        |breaker: &&Breaker| breaker.state(100, &CONFIG) == BreakerState::Ejected { soft: true };
    pool.iter().filter(out).count() as u32
}

#[cfg(feature = "planted")]
#[test]
fn without_the_cap_a_whole_pool_would_be_out() {
    let _planted = planted::plant(Fault::NoEjectionCap);
    assert_eq!(soft_ejected(10), 10);
}

#[test]
fn where_there_is_no_room_who_cannot_be_connected_to_is_out_all_the_same() {
    let mut breaker = Breaker::default();
    for _ in 0..50 {
        let change = breaker.handle(ServerError, Admission::Yes, NONE, 0, &CONFIG);
        assert_eq!(change, Change::None);
    }
    let change = breaker.handle(Unreachable, Admission::Yes, NONE, 0, &CONFIG);
    assert_eq!(change, Change::Ejected { until_ms: 2_000, cause: Unreachable });
    // Back, and failing as the others do: it stays where a few at a time are sent.
    assert_eq!(breaker.admit(2_000, &CONFIG), Admission::Trial);
    let change = breaker.handle(ServerError, Admission::Trial, NONE, 2_000, &CONFIG);
    assert_eq!(change, Change::None);
    assert_eq!(breaker.state(2_000, &CONFIG), BreakerState::Probing { room: true });
    assert!(!breaker.takes_room());
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    /// Of those under way, the one at this place ends so.
    End(usize, Option<Outcome>),
    Rejoin,
    Wait(u64),
}

fn some_step() -> impl Strategy<Value = Step> {
    let outcome = prop::sample::select(vec![
        Answered,
        Answered,
        Busy,
        ServerError,
        ServerError,
        TimedOut,
        Broken,
        Unreachable,
    ]);
    prop_oneof![
        6 => Just(Step::Begin),
        6 => (any::<usize>(), prop::option::weighted(0.9, outcome)).prop_map(|(i, how)| Step::End(i, how)),
        1 => Just(Step::Rejoin),
        2 => (0..40_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order, over a pool of four.
    #[test]
    fn probing_is_bounded_ejections_are_bounded_and_the_cap_holds(
        steps in prop::collection::vec((0..4usize, some_step()), 1..300)
    ) {
        let mut pool: [Breaker; 4] = Default::default();
        let mut under_way: [Vec<Admission>; 4] = Default::default();
        let mut out_until_ms = [0; 4];
        let mut now_ms = 0;
        for (i, step) in steps {
            let taken = pool.iter().filter(|breaker| breaker.takes_room()).count() as u32;
            let room = Room { taken, instances: 4 };
            match step {
                Step::Begin => {
                    let before = pool[i].state(now_ms, &CONFIG);
                    let admission = pool[i].admit(now_ms, &CONFIG);
                    prop_assert_eq!(admission == Admission::No, before.is_masked());
                    prop_assert!(admission == Admission::No || now_ms >= out_until_ms[i]);
                    // One without may go there all the same, where nobody is left.
                    under_way[i].push(admission);
                }
                Step::End(which, outcome) => {
                    if under_way[i].is_empty() {
                        continue;
                    }
                    let which = which % under_way[i].len();
                    let admission = under_way[i].swap_remove(which);
                    match outcome {
                        None => pool[i].abandon(admission),
                        Some(outcome) => match pool[i].handle(outcome, admission, room, now_ms, &CONFIG) {
                            Change::Ejected { until_ms, cause } => {
                                prop_assert!(cause == outcome && outcome.is_failure());
                                prop_assert!((2_000..=60_000).contains(&(until_ms - now_ms)));
                                out_until_ms[i] = until_ms;
                            }
                            Change::Probing | Change::Rejoined => {
                                prop_assert_eq!(outcome, Answered);
                                out_until_ms[i] = 0;
                            }
                            Change::None => {}
                        },
                    }
                }
                Step::Rejoin => pool[i].rejoin(now_ms, &CONFIG),
                Step::Wait(ms) => now_ms += ms,
            }
            for (breaker, under_way) in pool.iter().zip(&under_way) {
                let trials = under_way.iter().filter(|a| **a == Admission::Trial).count();
                prop_assert!(trials <= 3, "{trials} trials at once");
                let state = breaker.state(now_ms, &CONFIG);
                prop_assert!(!breaker.is_clean() || state == BreakerState::Healthy);
                prop_assert!((0.1..=1.0).contains(&state.share(&CONFIG)));
            }
            let taken = pool.iter().filter(|breaker| breaker.takes_room()).count();
            prop_assert!(taken <= 2, "{taken} of 4 are out for soft failures");
        }
        // Whatever was: once all that is under way has ended and only answers come, all are well again.
        for (breaker, under_way) in pool.iter_mut().zip(&under_way) {
            under_way.iter().for_each(|admission| breaker.abandon(*admission));
            for _ in 0..20 {
                now_ms += 60_000;
                for _ in 0..3 {
                    let admission = breaker.admit(now_ms, &CONFIG);
                    prop_assert_ne!(admission, Admission::No);
                    breaker.handle(Answered, admission, PLENTY, now_ms, &CONFIG);
                }
            }
            prop_assert!(breaker.is_clean(), "{breaker:?}");
        }
    }
}
