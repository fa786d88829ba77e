//! Whatever comes in.

use proptest::prelude::*;

use super::*;
use crate::testing::{some_candidates, some_needs, some_rules};

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
