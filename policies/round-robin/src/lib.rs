//! Gives each candidate its turn: request `number` goes to pick `number mod n`.
//!
//! ```text
//! score = 100 · (n − turns) / n        turns: how many picks come before, around the ring
//! ```
//!
//! The one whose turn it is gets 100 and those after it descend, so that retries go on around the ring. The
//! number is counted for each view and data thread, so each thread keeps its own even turns, and the
//! turns are exact while the picks stay the same.
//!
//! It needs a picker that takes the best, and to be its route's only policy with weight.

use mrgc_policy_sdk::{Candidate, Candidates, Policy, Request, Score};

/// Nothing to configure.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Config {}

/// The policy.
#[derive(Debug)]
pub struct RoundRobin;

mrgc_policy_sdk::export!(RoundRobin);

impl Policy for RoundRobin {
    type Config = Config;

    fn new(_: Config) -> Result<Self, String> {
        Ok(Self)
    }

    /// Alone, it is always its turn.
    fn score(&self, _: &Request, _: &Candidate) -> Score {
        Score::from(100.0)
    }

    fn rank(&self, request: &Request, candidates: Candidates<'_>) -> Vec<Score> {
        turns(request.number, candidates.len()).map(Score::from).collect()
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        format!("Selected {} in turn for request {}", candidate.id, request.number)
    }
}

/// The points of `n` picks, in their order.
fn turns(number: u64, n: usize) -> impl Iterator<Item = f64> {
    // `n` fits in 64 bits and is above 0 wherever the iterator yields.
    let first = number.checked_rem(n as u64).unwrap_or(0) as usize;
    (0..n).map(move |pick| {
        let turns = if pick >= first { pick - first } else { pick + n - first };
        100.0 * (n - turns) as f64 / n as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<RoundRobin>(include_str!("../cases.json"));
    }

    #[test]
    fn in_one_round_each_pick_is_first_once_and_retries_follow_the_ring() {
        for n in 1..40_usize {
            for number in 0..n {
                let points: Vec<f64> = turns(number as u64, n).collect();
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| points[*b].total_cmp(&points[*a]));
                let ring: Vec<usize> = (0..n).map(|turn| (number + turn) % n).collect();
                assert_eq!(order, ring, "request {number} of {n}");
                assert!(points.iter().all(|points| *points > 0.0 && *points <= 100.0));
            }
        }
    }

    #[test]
    fn ten_thousand_picks_have_distinct_scores() {
        let mut points: Vec<f32> = turns(7, 10_000).map(|points| points as f32).collect();
        points.sort_by(f32::total_cmp);
        points.dedup();
        assert_eq!(points.len(), 10_000);
    }

    #[test]
    fn no_picks_and_the_last_number() {
        assert_eq!(turns(3, 0).count(), 0);
        assert_eq!(turns(u64::MAX, 1).collect::<Vec<_>>(), [100.0]);
    }
}
