#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    guard::PlacementRule,
    model::{Needs, Request},
    routing::{MAX_ATTEMPTS, NoRoute, Picker, Scratch, decide},
    snapshot::View,
    testing::{candidate, names, some_candidates, some_needs, some_rules, view},
};

use Outcome::{Answered, Broken, Busy, ServerError, TimedOut, Unreachable};

fn question<'a>(view: &'a View, request: &'a Request, rules: &'a [PlacementRule]) -> Question<'a> {
    Question {
        view,
        request,
        rules,
        weights: &[],
        picker: Picker::Best,
        seed: 1,
        attempts: MAX_ATTEMPTS,
        panic: false,
    }
}

fn order(question: &Question<'_>) -> Attempts {
    let score = |_: usize, _: &[u32], _: crate::routing::Loads<'_>| None::<Vec<f32>>;
    decide(&mut Scratch::default(), question, |_| Live::default(), score).unwrap()
}

fn instances(count: usize) -> View {
    view((0..count).map(|n| candidate(&format!("i-{n}"))).collect())
}

fn regions(count: usize) -> View {
    let mut view = instances(count);
    view.key.level = Level::Region;
    view.candidates.iter_mut().for_each(|candidate| candidate.level = Level::Region);
    view
}

/// Goes through an order, each attempt ending so; returns whom it tried.
fn run(trail: &mut Trail, question: &Question<'_>, outcome: Outcome) -> Vec<u32> {
    let (order, mut cursor, mut tried) = (order(question), 0, Vec::new());
    while let Some(index) = trail.next(&order, &mut cursor, question, |_| Live::default()) {
        trail.begin();
        trail.ended(&question.view.candidates[index as usize], outcome);
        tried.push(index);
        if tried.len() > 100 {
            break;
        }
    }
    tried
}

#[test]
fn a_request_makes_so_many_attempts_and_no_more() {
    let (view, request) = (instances(8), Request::default());
    for budget in 0..5 {
        let mut trail = Trail::new(budget, Vec::new());
        let tried = run(&mut trail, &question(&view, &request, &[]), TimedOut);
        assert_eq!((tried.len(), trail.attempts(), trail.is_spent()), (budget, budget, true));
    }
}

#[test]
fn who_cannot_be_connected_to_costs_no_attempt_up_to_a_bound() {
    let (view, request) = (instances(20), Request::default());
    let question = question(&view, &request, &[]);
    let mut trail = Trail::new(2, Vec::new());
    // An order has eight places; then a new decision, as for any that is over.
    let first = run(&mut trail, &question, Unreachable);
    assert_eq!((first.len(), trail.attempts_left()), (8, 2));
    let rest = view.candidates.iter().filter(|c| !trail.was_tried(c)).cloned().collect();
    let rest = crate::testing::view(rest);
    let more = run(&mut trail, &Question { view: &rest, ..question }, Unreachable);
    assert_eq!((more.len(), trail.attempts(), trail.is_spent()), (2, 10, true));
}

#[test]
fn the_third_instance_that_a_request_fails_on_is_not_to_blame() {
    let view = instances(4);
    for (outcomes, expected) in [
        ([ServerError; 4], [true, true, false, false]),
        ([TimedOut, Answered, Broken, ServerError], [true, true, true, false]),
        ([Busy, TimedOut, Busy, TimedOut], [true; 4]),
        // Who cannot be reached is so whatever the request.
        ([ServerError, ServerError, Unreachable, ServerError], [true, true, true, false]),
        ([Unreachable; 4], [true; 4]),
    ] {
        let mut trail = Trail::new(4, Vec::new());
        for ((candidate, outcome), counts) in view.candidates.iter().zip(outcomes).zip(expected) {
            trail.begin();
            let evidence = trail.ended(candidate, outcome);
            assert_eq!(evidence, counts.then_some(outcome), "{outcomes:?}");
        }
    }
}

#[test]
fn the_last_attempt_is_kept_for_another_region_where_there_is_one() {
    let (view, request) = (instances(8), Request::default());
    let (here, elsewhere) = (question(&view, &request, &[]), regions(3));
    for (budget, reserved, tried_here) in
        [(3, true, 2), (3, false, 3), (2, true, 1), (1, true, 1), (1, false, 1), (0, true, 0)]
    {
        let mut trail = Trail::new(budget, Vec::new());
        trail.reserve(reserved);
        assert_eq!(run(&mut trail, &here, TimedOut).len(), tried_here, "{budget}, {reserved}");
        let others = run(&mut trail, &question(&elsewhere, &request, &[]), TimedOut).len();
        assert_eq!(tried_here + others, budget, "{budget}, {reserved}");
    }
    // Nothing was sent here, so all that there is may be sent elsewhere.
    let mut trail = Trail::new(1, Vec::new());
    trail.reserve(true);
    assert_eq!(run(&mut trail, &here, Unreachable).len(), 1);
    assert_eq!(trail.attempts_left(), 1);
}

#[test]
fn what_another_region_tried_counts_and_what_it_had_no_room_for_does_not() {
    let mut trail = Trail::new(4, vec!["ap".into()]);
    trail.begin();
    trail.give_back();
    assert_eq!((trail.attempts(), trail.attempts_left()), (0, 4));
    trail.begin();
    trail.count_elsewhere(2);
    assert_eq!((trail.attempts(), trail.attempts_left()), (2, 2));
    trail.begin();
    trail.count_elsewhere(9);
    assert_eq!((trail.attempts(), trail.attempts_left()), (11, 0));
    trail.region_tried("eu".into());
    trail.region_tried("ap".into());
    assert_eq!(trail.regions_tried(), ["ap".into(), "eu".into()]);
}

#[test]
fn a_body_that_is_gone_ends_it() {
    let (view, request) = (instances(3), Request::default());
    let mut trail = Trail::new(3, Vec::new());
    trail.begin();
    trail.give_up();
    assert!(run(&mut trail, &question(&view, &request, &[]), Answered).is_empty());
}

#[test]
fn who_is_masked_by_now_is_passed_over_unless_nobody_else_is_left() {
    let (view, request) = (instances(3), Request::default());
    for (panic, expected) in [(false, [1].as_slice()), (true, &[0, 1, 2])] {
        let question = Question { panic, ..question(&view, &request, &[]) };
        let (order, mut cursor, trail) = (order(&question), 0, Trail::new(3, Vec::new()));
        let live = |index| Live { masked: index != 1, ..Live::default() };
        let next = || trail.next(&order, &mut cursor, &question, live);
        let mut offered: Vec<_> = std::iter::from_fn(next).collect();
        offered.sort_unstable();
        assert_eq!(offered, expected);
    }
}

/// A request that needs an enclave is decided; then the enclaves of all but one are gone.
fn tried_after_enclaves_are_gone() -> Vec<u32> {
    use crate::model::EnclaveState::{Absent, Running};
    let with_enclaves = |kept: Option<usize>| {
        let mut view = instances(3);
        for (i, candidate) in view.candidates.iter_mut().enumerate() {
            candidate.enclave = if kept.is_none_or(|kept| kept == i) { Running } else { Absent };
        }
        view
    };
    let needs = Needs { enclave: true, ..Needs::default() };
    let request = Request { needs, ..Request::default() };
    let decided = with_enclaves(None);
    let order = order(&question(&decided, &request, &[]));
    let first = order.as_slice()[0];
    let (mut trail, mut cursor) = (Trail::new(3, Vec::new()), 0);
    trail.next(&order, &mut cursor, &question(&decided, &request, &[]), |_| Live::default());
    trail.begin();
    trail.ended(&decided.candidates[first as usize], TimedOut);

    let now = with_enclaves(Some(first as usize));
    let question = question(&now, &request, &[]);
    let next = || trail.next(&order, &mut cursor, &question, |_| Live::default());
    std::iter::from_fn(next).take(10).collect()
}

#[test]
fn the_guard_is_asked_again_on_each_retry() {
    assert!(tried_after_enclaves_are_gone().is_empty());
}

#[cfg(feature = "planted")]
#[test]
fn without_the_guard_a_retry_would_leak() {
    let _planted = planted::plant(Fault::GuardSkippedOnRetry);
    assert_eq!(tried_after_enclaves_are_gone().len(), 2);
}

#[test]
fn a_rule_that_came_between_two_attempts_holds_for_the_second() {
    let mut view = instances(2);
    view.candidates.iter_mut().for_each(|c| c.frameworks = names(&["gdpr"]));
    let needs = Needs { frameworks: names(&["gdpr"]), ..Needs::default() };
    let request = Request { needs, ..Request::default() };
    let order = order(&question(&view, &request, &[]));
    let rules = [PlacementRule {
        name: "eu only".to_owned(),
        frameworks: names(&["gdpr"]),
        allowed_regions: names(&["eu"]),
    }];
    let (trail, live) = (Trail::new(2, Vec::new()), |_| Live::default());
    assert!(trail.next(&order, &mut 0, &question(&view, &request, &[]), live).is_some());
    assert_eq!(trail.next(&order, &mut 0, &question(&view, &request, &rules), live), None);
}

/// Whom a request tries whose every attempt fails, where each retry is a decision of its own.
fn tried_over_decisions() -> Vec<u32> {
    let (view, request) = (instances(3), Request::default());
    let (mut trail, mut tried) = (Trail::new(6, Vec::new()), Vec::new());
    for _ in 0..6 {
        let question = question(&view, &request, &[]);
        let order = order(&question);
        if let Some(index) = trail.next(&order, &mut 0, &question, |_| Live::default()) {
            trail.begin();
            trail.ended(&view.candidates[index as usize], TimedOut);
            tried.push(index);
        }
    }
    tried
}

#[test]
fn nobody_is_tried_twice_over_all_decisions_of_a_request() {
    let mut tried = tried_over_decisions();
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2]);
}

#[cfg(feature = "planted")]
#[test]
fn with_a_retry_on_the_tried_the_same_would_fail_again() {
    let _planted = planted::plant(Fault::RetryOnTried);
    let tried = tried_over_decisions();
    assert!(tried.len() == 6 && tried.iter().all(|index| *index == tried[0]), "{tried:?}");
    let (view, request) = (instances(3), Request::default());
    let mut trail = Trail::new(3, Vec::new());
    let tried = run(&mut trail, &question(&view, &request, &[]), TimedOut);
    assert_eq!(tried, [tried[0]; 3]);
}

#[test]
fn an_instance_of_a_regions_name_is_not_the_region() {
    let (request, outcome) = (Request::default(), TimedOut);
    let (here, there) = (instances(1), regions(1));
    let mut trail = Trail::new(4, Vec::new());
    assert_eq!(run(&mut trail, &question(&there, &request, &[]), outcome), [0]);
    assert_eq!(run(&mut trail, &question(&here, &request, &[]), outcome), [0]);
    assert_eq!(run(&mut trail, &question(&here, &request, &[]), outcome), [0; 0]);
}

fn some_outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![Busy, ServerError, TimedOut, Broken, Unreachable, Unreachable])
}

proptest! {
    /// Over several decisions between which the fleet and the rules change: nobody is tried twice, nobody
    /// that the guard forbids is tried, and no more is sent than the budget has.
    #[test]
    fn no_candidate_twice_none_forbidden_and_no_more_than_the_budget(
        candidates in some_candidates(20),
        needs in some_needs(),
        decisions in prop::collection::vec((some_rules(), some_rules(), prop::collection::vec(any::<bool>(), 20)), 1..6),
        outcomes in prop::collection::vec(some_outcome(), 64),
        budget in 0..6usize,
        reserved in any::<bool>(),
        panic in any::<bool>(),
    ) {
        let view = view(candidates);
        let request = Request { needs, ..Request::default() };
        let (mut trail, mut outcomes) = (Trail::new(budget, Vec::new()), outcomes.into_iter());
        trail.reserve(reserved);
        let (mut tried, mut sent, mut connects) = (Vec::new(), 0, 0);
        for (at_first, by_now, masked) in &decisions {
            let at_first = Question { panic, ..question(&view, &request, at_first) };
            let live = |i: u32| Live { masked: masked[i as usize], ..Live::default() };
            let mut scratch = Scratch::default();
            let decided: Result<_, NoRoute> = decide(&mut scratch, &at_first, live, |_, _, _| None::<Vec<f32>>);
            let Ok(order) = decided else { continue };
            let by_now = Question { rules: by_now, ..at_first };
            let mut cursor = 0;
            while let Some(index) = trail.next(&order, &mut cursor, &by_now, live) {
                let candidate = &view.candidates[index as usize];
                prop_assert!(guard::check(&request.needs, by_now.rules, candidate).is_ok());
                prop_assert!(panic || !masked[index as usize]);
                prop_assert!(!tried.contains(&index), "{index} again after {tried:?}");
                trail.begin();
                let outcome = outcomes.next().unwrap();
                trail.ended(candidate, outcome);
                if outcome != Busy {
                    tried.push(index);
                }
                sent += usize::from(outcome != Unreachable);
                connects += usize::from(outcome == Unreachable);
            }
        }
        prop_assert!(sent <= budget, "{sent} of {budget}");
        prop_assert!(sent + connects <= budget + MAX_CONNECTS);
        prop_assert_eq!(trail.attempts(), sent + connects);
    }
}
