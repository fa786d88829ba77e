#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use RegionState::{Degraded, FailoverActive, Normal, Recovering};

const ALL: u32 = 1_000;
const SECOND_MS: u64 = 1_000;

fn healthy(healthy: u32) -> Evidence {
    Evidence { healthy, all: ALL, reachable: true }
}

/// A region under the default thresholds, and its clock.
struct Watched {
    machine: RegionMachine,
    thresholds: Thresholds,
    now_ms: u64,
}

impl Watched {
    fn new() -> Self {
        let now_ms = 5_000;
        Self { machine: RegionMachine::new(now_ms), thresholds: Thresholds::default(), now_ms }
    }

    /// A region that has just become this healthy, of 1,000.
    fn fallen_to(of_1000: u32) -> Self {
        let mut watched = Self::new();
        watched.see(healthy(of_1000));
        watched
    }

    fn see(&mut self, evidence: Evidence) -> (RegionState, f64) {
        self.machine.handle(&evidence, self.now_ms, &self.thresholds);
        self.now()
    }

    /// The same evidence each second, for so long.
    fn see_for(&mut self, seconds: u64, evidence: Evidence) -> (RegionState, f64) {
        self.see(evidence);
        for _ in 0..seconds {
            self.now_ms += SECOND_MS;
            self.see(evidence);
        }
        self.now()
    }

    /// To the millisecond before the last one of so many seconds.
    fn see_for_almost(&mut self, seconds: u64, evidence: Evidence) -> (RegionState, f64) {
        self.see_for(seconds - 1, evidence);
        self.now_ms += SECOND_MS - 1;
        let almost = self.see(evidence);
        self.now_ms += 1;
        almost
    }

    fn now(&self) -> (RegionState, f64) {
        (self.machine.state(), self.machine.share())
    }
}

#[test]
fn worse_evidence_counts_at_once() {
    for (of_1000, state, share) in [
        (800, Normal, 1.0),
        (799, Degraded, 0.7),
        (500, Degraded, 0.7),
        (400, Degraded, 0.375),
        (300, Degraded, 0.05),
        (299, FailoverActive, 0.05),
        (0, FailoverActive, 0.0),
    ] {
        assert_eq!(Watched::fallen_to(of_1000).now(), (state, share), "{of_1000} of {ALL}");
    }
}

#[test]
fn a_transition_says_from_where_to_where_and_why() {
    let mut machine = RegionMachine::new(0);
    let thresholds = Thresholds::default();
    let change = machine.handle(&Evidence { healthy: 2, all: 10, reachable: true }, 7, &thresholds);
    let change = change.unwrap();
    assert_eq!((change.from, change.to), (Normal, FailoverActive));
    assert_eq!((change.share_before, change.share), (1.0, 0.05));
    assert_eq!(change.reason, "2 of 10 instances take requests");
    assert_eq!(machine.since_ms(), 7);
    let same = machine.handle(&Evidence { healthy: 1, all: 10, reachable: true }, 8, &thresholds);
    assert_eq!(same, None);
}

#[test]
fn a_state_improves_after_thirty_seconds_and_not_before() {
    for (of_1000, next) in
        [(700, (Recovering, 0.95)), (200, (Recovering, 0.3)), (0, (Recovering, 0.25))]
    {
        let mut region = Watched::fallen_to(of_1000);
        let before = region.now();
        assert_eq!(region.see_for(29, healthy(ALL)), before, "after 29 s, from {of_1000}");
        region.now_ms += SECOND_MS - 1;
        assert_eq!(region.see(healthy(ALL)), before, "after 29.999 s, from {of_1000}");
        region.now_ms += 1;
        assert_eq!(region.see(healthy(ALL)), next, "after 30 s, from {of_1000}");
    }
}

#[test]
fn a_dip_in_between_starts_the_hold_again() {
    let cut_off = Evidence { reachable: false, ..healthy(ALL) };
    let unknown = Evidence { healthy: 0, all: 0, reachable: true };
    for dip in [healthy(299), healthy(0), cut_off, unknown] {
        let mut region = Watched::fallen_to(200);
        region.see_for(29, healthy(ALL));
        region.see(dip);
        let (state, share) = region.see_for_almost(30, healthy(ALL));
        assert_eq!(state, FailoverActive, "{dip:?}");
        assert!(share <= 0.05, "{dip:?}");
        assert_eq!(region.see(healthy(ALL)).0, Recovering, "{dip:?}");
    }
    // Evidence short of the recovery threshold is a dip for a region that is failed over.
    let mut region = Watched::fallen_to(200);
    region.see_for(29, healthy(ALL));
    region.see(healthy(799));
    assert_eq!(region.see_for_almost(30, healthy(ALL)), (FailoverActive, 0.05));
}

#[test]
fn traffic_returns_by_a_quarter_each_thirty_seconds() {
    for (of_1000, shares) in [
        (200, &[0.30, 0.55, 0.80, 1.0][..]),
        (0, &[0.25, 0.50, 0.75, 1.0]),
        (700, &[0.95, 1.0]),
        (400, &[0.625, 0.875, 1.0]),
    ] {
        let mut region = Watched::fallen_to(of_1000);
        let mut before = region.now();
        for share in shares {
            assert_eq!(region.see_for_almost(30, healthy(800)), before, "from {of_1000}");
            let state = if *share == 1.0 { Normal } else { Recovering };
            before = region.see(healthy(800));
            assert_eq!(before, (state, *share), "from {of_1000}");
        }
    }
}

#[test]
fn worse_evidence_in_a_recovery_takes_it_back_at_once() {
    for (of_1000, then) in [
        (799, (Degraded, 0.55)),
        (400, (Degraded, 0.375)),
        (299, (FailoverActive, 0.05)),
        (0, (FailoverActive, 0.0)),
    ] {
        let mut region = Watched::fallen_to(200);
        assert_eq!(region.see_for(60, healthy(ALL)), (Recovering, 0.55));
        assert_eq!(region.see(healthy(of_1000)), then, "to {of_1000} of {ALL}");
        let held = region.see_for_almost(30, healthy(ALL));
        assert_eq!(held, then, "and not back before the hold");
    }
}

#[test]
fn a_failover_ends_at_the_recovery_threshold_and_nowhere_below() {
    let mut region = Watched::fallen_to(299);
    assert_eq!(region.see_for(3_600, healthy(799)), (FailoverActive, 0.05));
    assert_eq!(region.see_for(30, healthy(800)), (Recovering, 0.30));
}

#[test]
fn a_region_that_lost_all_gets_the_least_share_with_its_first_instance() {
    let mut region = Watched::fallen_to(0);
    assert_eq!(region.see_for_almost(30, healthy(1)), (FailoverActive, 0.0));
    assert_eq!(region.see(healthy(1)), (FailoverActive, 0.05));
    assert_eq!(region.see_for(300, healthy(1)), (FailoverActive, 0.05));
}

#[test]
fn a_degraded_region_rises_by_steps_within_its_state() {
    let mut region = Watched::fallen_to(300);
    for expected in [0.30, 0.55, 0.70] {
        region.see_for_almost(30, healthy(600));
        assert_eq!(region.see(healthy(600)), (Degraded, expected));
    }
    assert_eq!(region.see_for(600, healthy(600)), (Degraded, 0.70));
}

#[test]
fn the_worst_of_the_hold_counts_not_the_last() {
    let mut region = Watched::fallen_to(320);
    assert_eq!(region.now(), (Degraded, 0.115));
    region.see_for(10, healthy(ALL));
    region.see_for(10, healthy(340));
    assert_eq!(region.see_for(10, healthy(ALL)), (Degraded, 0.18), "what 34 % allows");
}

#[test]
fn a_region_that_does_not_answer_keeps_nothing_until_it_does_for_a_while() {
    let cut_off = Evidence { reachable: false, ..healthy(ALL) };
    let mut region = Watched::new();
    assert_eq!(region.see(cut_off), (FailoverActive, 0.0));
    assert!(region.machine.is_unreachable());
    assert_eq!(region.see_for(600, cut_off), (FailoverActive, 0.0));
    assert_eq!(region.see_for_almost(30, healthy(ALL)), (FailoverActive, 0.0));
    assert_eq!(region.see(healthy(ALL)), (Recovering, 0.25));
}

#[test]
fn a_region_without_instances_is_not_failed() {
    let none = Evidence { healthy: 0, all: 0, reachable: true };
    let mut region = Watched::new();
    assert_eq!(region.see_for(600, none), (Normal, 1.0));
    assert_eq!(region.see(Evidence { reachable: false, ..none }), (Normal, 1.0));
    // Nor has it recovered.
    let mut region = Watched::fallen_to(0);
    assert_eq!(region.see_for(600, none), (FailoverActive, 0.0));
    assert_eq!(region.see_for_almost(30, healthy(ALL)), (FailoverActive, 0.0));
}

#[test]
fn evidence_that_flaps_faster_than_the_hold_moves_the_share_once() {
    for (good, bad) in [(ALL, 0), (ALL, 299), (800, 799), (600, 400), (ALL, 499)] {
        for period_s in [1, 7, 29] {
            let mut region = Watched::new();
            let mut shares = vec![1.0];
            for _ in 0..40 {
                for evidence in [healthy(bad), healthy(good)] {
                    let (_, share) = region.see_for(period_s, evidence);
                    if shares.last() != Some(&share) {
                        shares.push(share);
                    }
                }
            }
            assert_eq!(shares.len(), 2, "{good}/{bad} each {period_s} s: {shares:?}");
        }
    }
}

#[test]
fn evidence_between_normal_and_recovered_holds_a_recovery_where_it_is() {
    let mut region = Watched::new();
    region.thresholds.recovery_threshold = 0.9;
    region.see(healthy(200));
    assert_eq!(region.see_for(300, healthy(899)), (FailoverActive, 0.05));
    assert_eq!(region.see_for(30, healthy(900)), (Recovering, 0.30));
    assert_eq!(region.see_for(300, healthy(850)), (Recovering, 0.30));
    assert_eq!(region.see_for_almost(30, healthy(900)), (Recovering, 0.30));
    assert_eq!(region.see(healthy(900)), (Recovering, 0.55));
    // A degraded region is no better off.
    let mut region = Watched::new();
    region.thresholds.recovery_threshold = 0.9;
    region.see(healthy(700));
    assert_eq!(region.see_for(300, healthy(899)), (Degraded, 0.70));
}

#[test]
fn steps_of_any_size_come_to_a_whole() {
    for (step, steps) in [(1.0 / 3.0, 3), (0.1, 10), (0.07, 15), (1.0, 1)] {
        let mut region = Watched::new();
        region.thresholds.recovery_step = step;
        region.see(healthy(0));
        assert!(region.see_for_almost(30 * steps, healthy(ALL)).1 < 1.0, "by {step}");
        assert_eq!(region.see(healthy(ALL)), (Normal, 1.0), "by {step}");
    }
}

#[test]
fn a_clock_that_leaps_brings_one_step_and_one_that_goes_back_none() {
    let mut region = Watched::fallen_to(200);
    region.see_for(30, healthy(ALL));
    region.now_ms += 3_600 * SECOND_MS;
    assert_eq!(region.see(healthy(ALL)), (Recovering, 0.55));
    region.now_ms -= 1_800 * SECOND_MS;
    assert_eq!(region.see(healthy(ALL)), (Recovering, 0.55));
}

#[test]
fn what_was_known_before_a_restart_is_taken_over_where_it_is_worse() {
    let thresholds = Thresholds::default();
    for (state, share, then) in [
        (FailoverActive, 0.05, (FailoverActive, 0.05)),
        (FailoverActive, 0.0, (FailoverActive, 0.0)),
        (Degraded, 0.7, (Degraded, 0.7)),
        (Recovering, 0.55, (Recovering, 0.55)),
        (Normal, 1.0, (Normal, 1.0)),
    ] {
        let mut region = Watched::new();
        let change = region.machine.adopt(Rating { state, share }, String::new(), region.now_ms);
        assert_eq!(change.is_some(), state != Normal, "it is told");
        assert_eq!(region.now(), then);
        if then.1 < 1.0 {
            assert_eq!(region.see_for_almost(30, healthy(ALL)), then, "it holds anew");
            assert!(region.see(healthy(ALL)).1 > then.1, "and goes on");
        }
    }
    let mut region = Watched::fallen_to(200);
    region.machine.adopt(Rating::new(Recovering, 0.8), String::new(), region.now_ms);
    assert_eq!(region.now(), (FailoverActive, 0.05), "never better than what is known");
    assert_eq!(region.machine.tick(region.now_ms, &thresholds), None);
}

#[test]
fn one_who_asks_only_when_told_misses_nothing() {
    let mut region = Watched::fallen_to(0);
    let began_ms = region.now_ms;
    region.see(healthy(ALL));
    let mut steps = Vec::new();
    while let Some(next_ms) = region.machine.next_ms(&region.thresholds) {
        assert!(next_ms > region.now_ms, "a time that has passed");
        region.now_ms = next_ms;
        region.machine.tick(next_ms, &region.thresholds);
        steps.push((next_ms - began_ms, region.now().1));
    }
    assert_eq!(steps, [(30_000, 0.25), (60_000, 0.5), (90_000, 0.75), (120_000, 1.0)]);
}

/// What is seen, and how long after what was seen before.
fn some_course() -> impl Strategy<Value = Vec<(u64, Evidence)>> {
    let evidence =
        (0..=20u32, 0..=20u32, prop::bool::weighted(0.9)).prop_map(|(healthy, all, reachable)| {
            Evidence { healthy: healthy.min(all), all, reachable }
        });
    let wait_ms = prop_oneof![Just(0), 1..2_000u64, 20_000..40_000u64, Just(30_000)];
    prop::collection::vec((wait_ms, evidence), 1..80)
}

proptest! {
    #[test]
    fn the_share_is_what_evidence_allows_and_rises_by_a_step_each_step(course in some_course()) {
        let mut region = Watched::new();
        let mut risen_ms: Option<u64> = None;
        for (wait_ms, evidence) in course {
            region.now_ms += wait_ms;
            let before = region.machine.share();
            region.see(evidence);
            let after = region.machine.share();
            prop_assert!((0.0..=1.0).contains(&after));
            if let Some(allowed) = region.thresholds.rate(&evidence) {
                prop_assert!(after <= allowed.share, "{after} of {allowed:?}");
            }
            if after > before {
                prop_assert!(after - before <= region.thresholds.recovery_step + 1e-9);
                let waited_ms = risen_ms.map_or(u64::MAX, |risen_ms| region.now_ms - risen_ms);
                prop_assert!(waited_ms >= region.thresholds.step_ms, "{waited_ms} ms");
                risen_ms = Some(region.now_ms);
            }
            match region.machine.state() {
                Normal => prop_assert_eq!(after, 1.0),
                Recovering => prop_assert!(after < 1.0),
                Degraded => prop_assert!(after <= 0.7),
                FailoverActive => prop_assert!(after <= 0.05),
            }
        }
    }

    #[test]
    fn no_state_improves_before_it_was_held(course in some_course()) {
        let mut region = Watched::new();
        let mut since_ms = region.now_ms;
        for (wait_ms, evidence) in course {
            region.now_ms += wait_ms;
            let before = region.machine.state();
            region.see(evidence);
            let after = region.machine.state();
            if after.severity() < before.severity() {
                prop_assert!(region.now_ms - since_ms >= region.thresholds.hold_ms);
            }
            if after != before {
                since_ms = region.now_ms;
            }
        }
    }

    #[test]
    fn good_evidence_brings_every_region_back(course in some_course()) {
        let mut region = Watched::new();
        for (wait_ms, evidence) in course {
            region.now_ms += wait_ms;
            region.see(evidence);
        }
        prop_assert_eq!(region.see_for(30 + 4 * 30, healthy(ALL)), (Normal, 1.0));
    }
}
