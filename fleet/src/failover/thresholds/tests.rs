use proptest::prelude::*;

use super::*;

const ALL: u32 = 1_000;

fn healthy(healthy: u32) -> Evidence {
    Evidence { healthy, all: ALL, reachable: true }
}

fn rate(evidence: Evidence) -> Option<(RegionState, f64)> {
    Thresholds::default().rate(&evidence).map(|rating| (rating.state, rating.share))
}

#[test]
fn the_defaults_do_not_contradict_themselves() {
    assert_eq!(Thresholds::default().problems(), Vec::<String>::new());
}

#[test]
fn each_edge_belongs_to_the_better_side() {
    use RegionState::{Degraded, FailoverActive, Normal};
    for (of_1000, state, share) in [
        (1_000, Normal, 1.0),
        (801, Normal, 1.0),
        (800, Normal, 1.0),
        (799, Degraded, 0.70),
        (501, Degraded, 0.70),
        (500, Degraded, 0.70),
        // 30 % moved at 50 %, 95 % at 30 %, and a line between them.
        (499, Degraded, 0.69675),
        (400, Degraded, 0.375),
        (300, Degraded, 0.05),
        (299, FailoverActive, 0.05),
        (1, FailoverActive, 0.05),
        (0, FailoverActive, 0.0),
    ] {
        let got = rate(healthy(of_1000));
        let is_right = got.is_some_and(|got| got.0 == state && got.1 == share);
        assert!(is_right, "{of_1000} of {ALL}: {got:?}, not {state} with {share}");
    }
}

#[test]
fn counts_that_are_exactly_a_threshold_are_on_it_whatever_the_fleets_size() {
    for all in (10..=10_000).step_by(10) {
        let of = |tenths: u32| Evidence { healthy: all / 10 * tenths, all, reachable: true };
        let below = |tenths: u32| Evidence { healthy: all / 10 * tenths - 1, all, reachable: true };
        let state = |evidence| rate(evidence).map(|(state, _)| state);
        assert_eq!(state(of(8)), Some(RegionState::Normal), "80 % of {all}");
        assert_eq!(state(below(8)), Some(RegionState::Degraded), "less than 80 % of {all}");
        assert_eq!(state(of(3)), Some(RegionState::Degraded), "30 % of {all}");
        assert_eq!(state(below(3)), Some(RegionState::FailoverActive), "less than 30 % of {all}");
    }
}

#[test]
fn what_cannot_be_reached_keeps_nothing_and_what_has_no_instances_is_not_judged() {
    let cut_off = Evidence { reachable: false, ..healthy(ALL) };
    assert_eq!(rate(cut_off), Some((RegionState::FailoverActive, 0.0)));
    assert_eq!(rate(Evidence { healthy: 0, all: 0, reachable: true }), None);
    // More healthy than there are is as good as all.
    let counted_twice = Evidence { healthy: 12, all: 10, reachable: true };
    assert_eq!(rate(counted_twice), Some((RegionState::Normal, 1.0)));
}

#[test]
fn all_contradictions_are_told_at_once() {
    let thresholds = Thresholds {
        normal_threshold: 0.4,
        degraded_threshold: 0.5,
        unhealthy_threshold: 0.6,
        recovery_threshold: 0.3,
        hold_ms: 0,
        step_ms: 0,
        recovery_step: 0.0,
        degraded_share_moved: 0.9,
        failover_share_moved: 0.8,
        evaluation_ms: 0,
        graceful_ms: 0,
        failover_timeout_ms: 0,
        minimum_healthy: -0.1,
        max_utilization: 1.5,
    };
    let problems = thresholds.problems();
    let expected = [
        "minimum_healthy -0.1 is not within 0 and 1",
        "recovery_step 0 is not above 0 and at most 1",
        "max_utilization 1.5 is not above 0 and at most 1",
        "hold is 0 ms: it must be longer",
        "step is 0 ms: it must be longer",
        "evaluation is 0 ms: it must be longer",
        "graceful is 0 ms: it must be longer",
        "failover_timeout is 0 ms: it must be longer",
        "unhealthy_threshold 0.6 is above degraded_threshold 0.5: a region would be failed over \
         before it is degraded",
        "degraded_threshold 0.5 is above normal_threshold 0.4: more would be moved of a region that \
         is normal",
        "normal_threshold 0.4 is above recovery_threshold 0.3: a region that has recovered would be \
         degraded at once",
        "degraded_share_moved 0.9 is above failover_share_moved 0.8: a failover would move less than \
         a degradation",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn what_is_no_number_is_a_problem() {
    let thresholds = Thresholds {
        normal_threshold: f64::NAN,
        recovery_step: f64::NAN,
        max_utilization: f64::INFINITY,
        ..Thresholds::default()
    };
    assert_eq!(thresholds.problems().len(), 3, "{:?}", thresholds.problems());
}

#[test]
fn thresholds_that_meet_leave_no_gap_and_no_line() {
    let thresholds = Thresholds {
        degraded_threshold: 0.5,
        unhealthy_threshold: 0.5,
        recovery_threshold: 0.9,
        ..Thresholds::default()
    };
    assert_eq!(thresholds.problems(), Vec::<String>::new());
    let share = |of_1000| thresholds.rate(&healthy(of_1000)).map(|rating| rating.share);
    assert_eq!(share(500), Some(0.7));
    assert_eq!(share(499), Some(0.05));
}

proptest! {
    #[test]
    fn fewer_healthy_never_keep_more(one in 0..=ALL, other in 0..=ALL) {
        let thresholds = Thresholds::default();
        let (fewer, more) = (one.min(other), one.max(other));
        let fewer = thresholds.rate(&healthy(fewer)).map(|rating| rating.share);
        let more = thresholds.rate(&healthy(more)).map(|rating| rating.share);
        prop_assert!(fewer <= more);
        prop_assert!(more <= Some(1.0) && fewer >= Some(0.0));
    }
}
