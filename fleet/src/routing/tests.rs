#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    model::Needs,
    testing::{candidate, names, some_candidates, some_needs, some_rules, view},
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

/// Of so many decisions, how many each candidate of [`four`] is first in.
fn firsts(live: impl Fn(u32) -> Live + Copy, decisions: u64) -> [u32; 4] {
    let (view, request, mut scratch) = (four(), Request::default(), Scratch::default());
    let mut firsts = [0; 4];
    for seed in 0..decisions {
        let question = Question { seed, ..question(&view, &request, &[]) };
        let order = decide(&mut scratch, &question, live, |_, _, _| None::<[f32; 0]>).unwrap();
        firsts[order.as_slice()[0] as usize] += 1;
    }
    firsts
}

#[test]
fn one_that_came_back_is_part_of_its_share_of_the_decisions() {
    for (share, least, most) in
        [(1.0, 2_300, 2_700), (0.5, 1_100, 1_400), (0.1, 200, 300), (0.0, 0, 0)]
    {
        let live = |i| Live { share: if i == 2 { share } else { 1.0 }, ..Live::default() };
        let firsts = firsts(live, 10_000);
        assert!((least..=most).contains(&firsts[2]), "{share}: {firsts:?}");
        // The others take the rest alike.
        let rest = [firsts[0], firsts[1], firsts[3]];
        assert!(rest.iter().all(|n| n.abs_diff((10_000 - firsts[2]) / 3) < 250), "{firsts:?}");
    }
}

#[test]
fn where_all_came_back_a_moment_ago_they_take_everything() {
    let live = |_| Live { share: 0.001, ..Live::default() };
    let firsts = firsts(live, 10_000);
    assert!(firsts.iter().all(|n| (2_300..2_700).contains(n)), "{firsts:?}");
}

#[test]
fn the_loads_of_those_that_wait_are_left_out_with_them() {
    let (view, request) = (four(), Request::default());
    let question = question(&view, &request, &[Weight { weight: 1.0, required: true }]);
    let live = |i: u32| Live {
        in_flight: i * 10,
        in_flight_tokens: u64::from(i) * 1_000,
        share: if i.is_multiple_of(2) { 0.0 } else { 1.0 },
        ..Live::default()
    };
    let score = |_: usize, picks: &[u32], loads: Loads<'_>| {
        assert_eq!((picks, loads.in_flight), (&[1, 3][..], &[10, 30][..]));
        assert_eq!(loads.in_flight_tokens, [1_000, 3_000]);
        Some([1.0, 2.0])
    };
    let order = decide(&mut Scratch::default(), &question, live, score).unwrap();
    assert_eq!(order.as_slice(), [3, 1]);
}

/// Where nobody is eligible, evidence is set aside, and nothing else.
#[test]
fn in_a_panic_the_masked_and_the_last_resorts_are_taken_but_nobody_that_may_not_be() {
    let one = |ready, last_resort| Candidate { ready, last_resort, ..candidate("i") };
    let gdpr = Request {
        needs: Needs { frameworks: names(&["gdpr"]), ..Needs::default() },
        ..Request::default()
    };
    for (what, candidate, masked, usual, in_a_panic) in [
        ("ready", one(true, false), false, true, true),
        ("ejected", one(true, false), true, false, true),
        ("stale or failing", one(false, true), false, false, true),
        ("both", one(false, true), true, false, true),
        ("draining, quarantined or unhealthy", one(false, false), false, false, false),
    ] {
        let view = view(vec![candidate]);
        let live = |_| Live { masked, ..Live::default() };
        for (panic, expected) in [(false, usual), (true, in_a_panic)] {
            let decides = |request: &Request| {
                let question = Question { panic, ..question(&view, request, &[]) };
                decide(&mut Scratch::default(), &question, live, |_, _, _| None::<[f32; 0]>)
            };
            assert_eq!(decides(&Request::default()).is_ok(), expected, "{what}, {panic}");
            let forbidden = if expected { NoRoute::NonePermitted } else { NoRoute::NoneReady };
            assert_eq!(decides(&gdpr), Err(forbidden), "{what}, {panic}");
        }
    }
}

/// Everything a decision depends on. Scores are by candidate; a policy without any faults.
#[derive(Debug)]
struct Case {
    view: View,
    masked: Vec<bool>,
    request: Request,
    rules: Vec<PlacementRule>,
    policies: Vec<(Weight, Option<Vec<f32>>)>,
    picker: Picker,
    seed: u64,
    attempts: usize,
}

const MOST: usize = 20;

fn some_policy() -> impl Strategy<Value = (Weight, Option<Vec<f32>>)> {
    let points = prop_oneof![6 => 0.0..=100.0f32, 3 => Just(50.0), 1 => -100.0..0.0f32];
    let scores = prop::option::weighted(0.8, prop::collection::vec(points, MOST));
    let weight = prop_oneof![Just(0.0), 0.0..10.0f32];
    let weight = (weight, prop::bool::weighted(0.1))
        .prop_map(|(weight, required)| Weight { weight, required });
    (weight, scores)
}

fn some_case() -> impl Strategy<Value = Case> {
    let needs = prop_oneof![3 => Just(Needs::default()), 2 => some_needs()];
    let model = prop::option::of(Just("llama".to_owned()));
    let request =
        (needs, model).prop_map(|(needs, model)| Request { needs, model, ..Request::default() });
    (
        some_candidates(MOST).prop_map(view),
        prop::collection::vec(prop::bool::weighted(0.2), MOST),
        request,
        some_rules(),
        prop::collection::vec(some_policy(), 0..4),
        prop::sample::select(PICKERS.to_vec()),
        any::<u64>(),
        1..12usize,
    )
        .prop_map(|(view, masked, request, rules, policies, picker, seed, attempts)| Case {
            view,
            masked,
            request,
            rules,
            policies,
            picker,
            seed,
            attempts,
        })
}

impl Case {
    fn decide(&self, scratch: &mut Scratch) -> Result<Attempts, NoRoute> {
        let weights: Vec<_> = self.policies.iter().map(|(weight, _)| *weight).collect();
        let question = Question {
            view: &self.view,
            request: &self.request,
            rules: &self.rules,
            weights: &weights,
            picker: self.picker,
            seed: self.seed,
            attempts: self.attempts,
            panic: false,
        };
        let live = |i| Live { masked: self.masked[i as usize], ..Live::default() };
        let score = |policy: usize, picks: &[u32], loads: Loads<'_>| {
            let scores = self.policies[policy].1.as_ref()?;
            let all = (0..loads.in_flight.len() as u32).collect::<Vec<_>>();
            let picks = if picks.is_empty() { &all } else { picks };
            Some(picks.iter().map(|pick| scores[*pick as usize]).collect::<Vec<_>>())
        };
        decide(scratch, &question, live, score)
    }

    fn is_eligible(&self, i: usize) -> bool {
        let candidate = &self.view.candidates[i];
        let serves =
            self.request.model.as_ref().is_none_or(|model| {
                candidate.models.is_empty() || candidate.models.contains(model)
            });
        let permitted = guard::check(&self.request.needs, &self.rules, candidate).is_ok();
        candidate.ready && !self.masked[i] && serves && permitted
    }

    /// The weighted sum, or `None` where a policy ruled the candidate out.
    fn total(&self, i: usize) -> Option<f32> {
        let native = native_score(&self.view.candidates[i], 0);
        if self.policies.is_empty() {
            return Some(native);
        }
        let sum: f32 = self.policies.iter().map(|(weight, _)| weight.weight).sum();
        let mut total = 0.0;
        for (weight, scores) in &self.policies {
            let points = scores.as_ref().map_or(native, |scores| scores[i]);
            if points < 0.0 {
                return None;
            }
            total += if sum > 0.0 { points * weight.weight / sum } else { 0.0 };
        }
        Some(total)
    }

    /// The candidates that may be tried, with their totals.
    fn open(&self) -> Vec<(u32, f32)> {
        let eligible = (0..self.view.candidates.len()).filter(|i| self.is_eligible(*i));
        eligible.filter_map(|i| Some((i as u32, self.total(i)?))).collect()
    }
}

/// More than rounding makes of equal totals.
const ROUNDING: f32 = 1e-3;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The one that matters: whatever comes in, no attempt goes where it may not.
    #[test]
    fn attempts_are_distinct_open_and_the_best_there_are(case in some_case()) {
        let open = case.open();
        let mut scratch = Scratch::default();
        let Ok(attempts) = case.decide(&mut scratch) else { return Ok(()) };
        let order = attempts.as_slice();
        prop_assert_eq!(order.len(), case.attempts.min(MAX_ATTEMPTS).min(open.len()));
        let mut totals = Vec::new();
        for (n, attempt) in order.iter().enumerate() {
            prop_assert!(!order[..n].contains(attempt), "{:?} tries one twice", order);
            let found = open.iter().find(|(i, _)| i == attempt);
            prop_assert!(found.is_some(), "{} is not open: {:?}", attempt, open);
            totals.push(found.unwrap().1);
        }
        let after_first = usize::from(case.picker != Picker::Best);
        let descends = totals[after_first..].is_sorted_by(|a, b| *a >= *b - ROUNDING);
        prop_assert!(descends, "{:?} by {:?} are not sorted", totals, case.picker);
        let best = open.iter().map(|(_, total)| *total).fold(0.0, f32::max);
        prop_assert!(case.picker != Picker::NearBest || totals[0] >= best - 5.0 - ROUNDING);
        for (i, total) in open.iter().filter(|(i, _)| !order.contains(i)) {
            let beats = totals[after_first..].iter().any(|tried| *total > *tried + ROUNDING);
            prop_assert!(!beats, "{} was passed over", i);
        }
    }

    #[test]
    fn a_refusal_has_its_reason(case in some_case()) {
        let eligible = (0..case.view.candidates.len()).any(|i| case.is_eligible(i));
        let faulted = case.policies.iter().position(|(w, scores)| w.required && scores.is_none());
        let required = faulted.map(|policy| NoRoute::RequiredPolicy { policy });
        let expected = match required {
            _ if !eligible => None,
            Some(required) => Some(required),
            None => case.open().is_empty().then_some(NoRoute::RuledOut),
        };
        let got = case.decide(&mut Scratch::default()).err();
        if eligible {
            prop_assert_eq!(got, expected);
        } else {
            let nowhere = [NoRoute::NoneReady, NoRoute::NoneServes, NoRoute::NonePermitted];
            prop_assert!(got.as_ref().is_some_and(|got| nowhere.contains(got)), "{:?}", got);
        }
    }

    /// A decision can be replayed, and leaves nothing behind for the next.
    #[test]
    fn the_same_inputs_decide_the_same(case in some_case(), other in some_case()) {
        let mut scratch = Scratch::default();
        let first = case.decide(&mut scratch);
        let _ = other.decide(&mut scratch);
        prop_assert_eq!(case.decide(&mut scratch), first);
    }

    #[test]
    fn the_seeds_score_is_within_its_scale(
        queue in any::<f64>(),
        latency_ms in prop_oneof![any::<f64>(), -1e4..1e4, Just(f64::NAN), Just(f64::NEG_INFINITY)],
    ) {
        let got = routing_score(queue, latency_ms, Health::Healthy);
        prop_assert!((0.0..=100.0).contains(&got), "{}", got);
    }
}
