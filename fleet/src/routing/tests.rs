#![allow(clippy::unwrap_used)]

mod live;
mod properties;

use super::*;
use crate::{
    model::Needs,
    testing::{candidate, names, view},
};

const PICKERS: [Picker; 3] = [Picker::Best, Picker::PowerOfTwo, Picker::NearBest];

/// Four ready candidates that measured nothing.
fn four() -> View {
    view(["i-0", "i-1", "i-2", "i-3"].map(candidate).to_vec())
}

fn question<'a>(view: &'a View, request: &'a Request, weights: &'a [Weight]) -> Question<'a> {
    Question {
        view,
        request,
        rules: &[],
        weights,
        picker: Picker::Best,
        seed: 1,
        attempts: MAX_ATTEMPTS,
        panic: false,
    }
}

fn weighs(weight: f32) -> Weight {
    Weight { weight, required: false }
}

fn nothing_in_flight(_: u32) -> Live {
    Live::default()
}

/// Decides over [`four`] by what each policy says of each candidate, and tells the totals, too.
fn decide_by(
    weights: &[Weight],
    says: &[Option<[f32; 4]>],
) -> (Result<Attempts, NoRoute>, Vec<f32>) {
    let (view, request, mut scratch) = (four(), Request::default(), Scratch::default());
    let question = question(&view, &request, weights);
    let got = decide(&mut scratch, &question, nothing_in_flight, |policy, _, _| says[policy]);
    (got, scratch.totals)
}

#[test]
fn the_seeds_examples_hold() {
    for (queue, latency_ms, health, expected) in [
        (2.0, 150.0, Health::Healthy, 85.5),
        (2.0, 200.0, Health::Healthy, 84.0),
        (2.0, 200.0, Health::Degraded, 74.0),
        (2.0, 200.0, Health::Unhealthy, 64.0),
        (0.0, 0.0, Health::Healthy, 100.0),
        (10.0, 0.0, Health::Healthy, 50.0),
        (25.0, 0.0, Health::Healthy, 50.0),
        (0.0, 1_000.0, Health::Healthy, 70.0),
        (0.0, 9_000.0, Health::Healthy, 70.0),
        (99.0, 9_000.0, Health::Unhealthy, 0.0),
    ] {
        let got = routing_score(queue, latency_ms, health);
        assert!((got - expected).abs() < 1e-9, "{queue}, {latency_ms} ms, {health:?}: {got}");
    }
}

#[test]
fn the_native_score_makes_do_with_what_was_measured() {
    let reported = |queue_depth, avg_latency_ms, health| Candidate {
        queue_depth,
        avg_latency_ms,
        health,
        ..candidate("i-0")
    };
    for (candidate, in_flight, expected) in [
        (reported(Some(2.0), Some(150.0), Health::Healthy), 9, 85.5),
        (reported(None, Some(150.0), Health::Healthy), 2, 85.5),
        (reported(Some(0.0), None, Health::Healthy), 9, 85.0),
        (reported(None, None, Health::Degraded), 0, 75.0),
        (reported(Some(0.0), Some(0.0), Health::Unhealthy), 0, 0.0),
    ] {
        assert_eq!(native_score(&candidate, in_flight), expected, "{candidate:?}, {in_flight}");
    }
}

#[test]
fn the_weighted_sum_ranks() {
    let (got, totals) = decide_by(
        &[weighs(3.0), weighs(1.0)],
        &[Some([100.0, 50.0, 0.0, 60.0]), Some([0.0, 50.0, 100.0, 60.0])],
    );
    assert_eq!(totals, [75.0, 50.0, 25.0, 60.0]);
    assert_eq!(got.unwrap().as_slice(), [0, 3, 1, 2]);
}

#[test]
fn a_weight_of_zero_counts_for_nothing_but_ruling_out() {
    let says = [Some([10.0, 20.0, 30.0, 40.0]), Some([99.0, 0.0, 99.0, -1.0])];
    let (got, totals) = decide_by(&[weighs(1.0), weighs(0.0)], &says);
    assert_eq!(totals, [10.0, 20.0, 30.0, -1.0]);
    assert_eq!(got.unwrap().as_slice(), [2, 1, 0]);
    let (_, totals) = decide_by(&[weighs(0.0), weighs(0.0)], &says);
    assert_eq!(totals, [0.0, 0.0, 0.0, -1.0]);
}

#[test]
fn ruled_out_once_is_ruled_out() {
    let high = Some([100.0; 4]);
    let out = Some([-0.1, 1.0, -100.0, 1.0]);
    for says in [
        [out, high, high],
        [high, out, high],
        [high, high, out],
        [out, None, high],
        [out, high, None],
    ] {
        let (got, totals) = decide_by(&[weighs(1.0), weighs(5.0), weighs(5.0)], &says);
        let mut order = got.unwrap().as_slice().to_vec();
        order.sort_unstable();
        assert_eq!(order, [1, 3], "{says:?}");
        assert!(totals[0] < 0.0 && totals[2] < 0.0, "{says:?}: {totals:?}");
    }
}

#[test]
fn every_candidate_ruled_out_is_no_route() {
    let says = [Some([-1.0, 50.0, -1.0, 50.0]), Some([50.0, -1.0, 50.0, -1.0])];
    for picker in PICKERS {
        let (view, request) = (four(), Request::default());
        let weights = [weighs(1.0); 2];
        let question = Question { picker, ..question(&view, &request, &weights) };
        let score = |policy: usize, _: &[u32], _: Loads<'_>| says[policy];
        let got = decide(&mut Scratch::default(), &question, nothing_in_flight, score);
        assert_eq!(got, Err(NoRoute::RuledOut), "{picker:?}");
    }
}

#[test]
fn a_policy_that_faults_is_answered_for_by_the_native_score() {
    // Healthy, at half the latency's scale, with no queue: 50 + 15 + 20.
    let native = 85.0;
    let (got, totals) =
        decide_by(&[weighs(1.0), weighs(3.0)], &[None, Some([0.0, 20.0, 100.0, 20.0])]);
    assert_eq!(totals, [0.0, 20.0, 100.0, 20.0].map(|said| 0.25 * native + 0.75 * said));
    assert_eq!(got.unwrap().as_slice()[0], 2);
}

#[test]
fn without_policies_the_native_score_decides() {
    let slow = [400.0, 100.0, 300.0, 200.0].map(Some);
    let view =
        view(slow.map(|avg_latency_ms| Candidate { avg_latency_ms, ..candidate("i") }).to_vec());
    let request = Request::default();
    let no_policy = |_: usize, _: &[u32], _: Loads<'_>| -> Option<Vec<f32>> { unreachable!() };
    let decide = |live: fn(u32) -> Live| {
        decide(&mut Scratch::default(), &question(&view, &request, &[]), live, no_policy)
    };
    assert_eq!(decide(nothing_in_flight).unwrap().as_slice(), [1, 3, 2, 0]);
    // The counts are those of the candidate at hand, also where some are left out.
    let busy =
        |i| Live { in_flight: if i == 1 { 8 } else { 0 }, masked: i == 0, ..Live::default() };
    assert_eq!(decide(busy).unwrap().as_slice(), [3, 2, 1]);
}

#[test]
fn a_required_policy_that_faults_refuses() {
    let required = |required| Weight { weight: 1.0, required };
    let high = Some([90.0; 4]);
    for (weights, says, refused) in [
        ([required(true), required(false)], [None, high], Some(0)),
        ([required(false), required(true)], [high, None], Some(1)),
        ([required(false), required(true)], [None, None], Some(1)),
        ([required(true), required(true)], [None, None], Some(0)),
        ([required(true), required(false)], [high, None], None),
        ([Weight { weight: 0.0, required: true }, required(false)], [None, high], Some(0)),
    ] {
        let (got, _) = decide_by(&weights, &says);
        let policy = refused.map(|policy| NoRoute::RequiredPolicy { policy });
        assert_eq!(got.err(), policy, "{weights:?}, {says:?}");
    }
}

#[test]
fn no_route_tells_how_near_the_nearest_came() {
    let request = Request {
        model: Some("llama".to_owned()),
        needs: Needs { frameworks: names(&["gdpr"]), ..Needs::default() },
        ..Request::default()
    };
    let asleep = || Candidate { ready: false, ..candidate("asleep") };
    let other = || Candidate { models: names(&["mixtral"]), ..candidate("other") };
    let lacking = || Candidate { models: names(&["llama"]), ..candidate("lacking") };
    for (candidates, expected) in [
        (vec![], NoRoute::NoneReady),
        (vec![asleep()], NoRoute::NoneReady),
        (vec![asleep(), other()], NoRoute::NoneServes),
        (vec![other(), asleep()], NoRoute::NoneServes),
        (vec![lacking(), other(), asleep()], NoRoute::NonePermitted),
        (vec![asleep(), other(), lacking()], NoRoute::NonePermitted),
    ] {
        let view = view(candidates);
        let mut scratch = Scratch { totals: vec![1.0], ..Scratch::default() };
        let score = |_: usize, _: &[u32], _: Loads<'_>| Some([0.0f32; 0]);
        let got = decide(&mut scratch, &question(&view, &request, &[]), nothing_in_flight, score);
        assert_eq!(got, Err(expected), "{:?}", view.candidates);
        assert!(scratch.totals().is_empty(), "the totals are of an earlier decision");
    }
}

#[test]
fn an_instance_whose_models_are_unknown_is_taken_at_its_pools_word() {
    let request = Request { model: Some("llama".to_owned()), ..Request::default() };
    let serving = |models| Candidate { models: names(models), ..candidate("i") };
    let view = view(vec![serving(&["mixtral"]), serving(&[]), serving(&["mixtral", "llama"])]);
    let mut scratch = Scratch::default();
    let score = |_: usize, _: &[u32], _: Loads<'_>| Some([1.0, 2.0]);
    let question = question(&view, &request, &[Weight { weight: 1.0, required: true }]);
    let got = decide(&mut scratch, &question, nothing_in_flight, score).unwrap();
    assert_eq!(got.as_slice(), [2, 1]);
}

#[test]
fn a_policy_is_shown_picks_and_the_loads_that_run_parallel() {
    let (view, request) = (four(), Request::default());
    let question = question(&view, &request, &[Weight { weight: 1.0, required: true }]);
    let mut scratch = Scratch::default();
    // The scratch is kept: what one decision left must not be seen by the next.
    for (masked, picks) in
        [(None, &[][..]), (Some(1), &[0, 2, 3]), (None, &[]), (Some(0), &[1, 2, 3])]
    {
        let live = |i| Live {
            in_flight: i * 10,
            in_flight_tokens: u64::from(i) * 1_000,
            masked: Some(i) == masked,
            ..Live::default()
        };
        let shown = if picks.is_empty() { &[0, 1, 2, 3][..] } else { picks };
        let score = |_: usize, got: &[u32], loads: Loads<'_>| {
            assert_eq!(got, picks);
            assert_eq!(loads.in_flight, shown.iter().map(|i| i * 10).collect::<Vec<_>>());
            let tokens: Vec<_> = shown.iter().map(|i| u64::from(*i) * 1_000).collect();
            assert_eq!(loads.in_flight_tokens, tokens);
            Some(vec![50.0; shown.len()])
        };
        let got = decide(&mut scratch, &question, live, score).unwrap();
        assert_eq!(got.as_slice().len(), shown.len());
        assert_eq!((scratch.picks(), scratch.totals().len()), (picks, shown.len()));
    }
}
