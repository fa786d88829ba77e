//! Prefers the lowest utilization: room for one more request.
//!
//! ```text
//! score       = 100 · (1 − utilization), 0 where full
//! utilization = max(reported, running / slots, in_flight / slots), of what is known; with 0 slots, 1
//! ```
//!
//! The router's own requests in flight are fresher than any report. A place that reports neither
//! utilization nor running requests must not look empty: only the router's own are known there, held
//! against its slots or `assumed_slots` for each instance, and its score is half of what that gives.

use mrgc_policy_sdk::{Candidate, Policy, Request, Score, measured};

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// Rules out what is known to be full, instead of scoring it 0.
    pub rule_out_full: bool,
    /// Requests that an instance serves at once, where it does not say.
    pub assumed_slots: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { rule_out_full: false, assumed_slots: 16 }
    }
}

/// The policy.
#[derive(Debug)]
pub struct Capacity {
    config: Config,
}

mrgc_policy_sdk::export!(Capacity);

/// A share of the slots, 1 for all.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Utilization {
    Known(f64),
    /// By the router's own requests only.
    Assumed(f64),
}

impl Policy for Capacity {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        match config.assumed_slots {
            0 => Err("assumed_slots is 0: must be 1 or more".to_owned()),
            _ => Ok(Self { config }),
        }
    }

    fn score(&self, _: &Request, candidate: &Candidate) -> Score {
        match self.utilization(candidate) {
            Utilization::Known(share) if self.rules_out(share) => Score::RuledOut,
            Utilization::Known(share) => Score::from(points(share)),
            Utilization::Assumed(share) => Score::from(points(share) / 2.0),
        }
    }

    fn explain(&self, _: &Request, candidate: &Candidate) -> String {
        let id = &candidate.id;
        match self.utilization(candidate) {
            Utilization::Known(share) if self.rules_out(share) => {
                format!("Ruled out {id}: full, with {:.1}% utilization", 100.0 * share)
            }
            Utilization::Known(share) => {
                format!("Selected {id} with {:.1}% utilization", 100.0 * share)
            }
            Utilization::Assumed(_) => {
                format!("Selected {id} with unknown utilization, {} in flight", candidate.in_flight)
            }
        }
    }
}

impl Capacity {
    fn utilization(&self, candidate: &Candidate) -> Utilization {
        if candidate.slots == Some(0) {
            return Utilization::Known(1.0);
        }
        let slots = candidate.slots.map(f64::from);
        let served =
            candidate.running.zip(slots).map(|(running, slots)| f64::from(running) / slots);
        let reported = match (measured(candidate.utilization), served) {
            (Some(reported), Some(served)) => Some(reported.max(served)),
            (reported, served) => reported.or(served),
        };
        let in_flight = f64::from(candidate.in_flight);
        match (reported, slots) {
            (Some(reported), Some(slots)) => Utilization::Known(reported.max(in_flight / slots)),
            (Some(reported), None) => Utilization::Known(reported),
            (None, Some(slots)) if in_flight >= slots => Utilization::Known(in_flight / slots),
            (None, Some(slots)) => Utilization::Assumed(in_flight / slots),
            (None, None) => Utilization::Assumed(in_flight / self.assumed_slots(candidate)),
        }
    }

    fn assumed_slots(&self, candidate: &Candidate) -> f64 {
        f64::from(self.config.assumed_slots) * f64::from(candidate.instances.max(1))
    }

    fn rules_out(&self, share: f64) -> bool {
        self.config.rule_out_full && share >= 1.0
    }
}

fn points(share: f64) -> f64 {
    (100.0 * (1.0 - share)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<Capacity>(include_str!("../cases.json"));
    }

    #[test]
    fn points_end_at_full() {
        for (share, expected) in
            [(0.0, 100.0), (0.2, 80.0), (1.0, 0.0), (7.0, 0.0), (f64::MAX, 0.0)]
        {
            assert!((points(share) - expected).abs() < 1e-9, "{share}");
        }
    }

    #[test]
    fn what_is_no_measurement_counts_as_none() {
        for hostile in [f64::NAN, f64::INFINITY, -0.1] {
            assert_eq!(measured(Some(hostile)), None, "{hostile}");
        }
    }

    #[test]
    fn no_assumed_slots_are_refused() {
        let error = Capacity::new(Config { assumed_slots: 0, ..Config::default() }).err();
        assert_eq!(error.as_deref(), Some("assumed_slots is 0: must be 1 or more"));
    }
}
