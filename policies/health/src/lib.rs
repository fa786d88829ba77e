//! Prefers the highest health score.
//!
//! ```text
//! score = health_score                       healthy
//!         degraded_factor · health_score     degraded
//!         0, or ruled out                    unhealthy
//! ```
//!
//! `health_score` is 0 to 100 and held to that; one that is not a number counts as 50.

use mrgc_policy_sdk::{Candidate, Health, Policy, Request, Score};

/// For a health score that is not a number.
const NEUTRAL: f64 = 50.0;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// What a degraded place's score is multiplied by, 0 to 1.
    pub degraded_factor: f64,
    /// Rules out the unhealthy, instead of scoring them 0.
    pub rule_out_unhealthy: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { degraded_factor: 0.5, rule_out_unhealthy: false }
    }
}

/// The policy.
#[derive(Debug)]
pub struct HealthScore {
    config: Config,
}

mrgc_policy_sdk::export!(HealthScore);

impl Policy for HealthScore {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&config.degraded_factor) {
            return Err(format!("degraded_factor is {}: must be 0 to 1", config.degraded_factor));
        }
        Ok(Self { config })
    }

    fn score(&self, _: &Request, candidate: &Candidate) -> Score {
        match candidate.health {
            Health::Healthy => Score::from(health_score(candidate.health_score)),
            Health::Degraded => {
                Score::from(self.config.degraded_factor * health_score(candidate.health_score))
            }
            Health::Unhealthy if self.config.rule_out_unhealthy => Score::RuledOut,
            Health::Unhealthy => Score::from(0.0),
        }
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        let id = &candidate.id;
        let health = health_score(candidate.health_score);
        match (candidate.health, self.score(request, candidate)) {
            (_, Score::RuledOut) => format!("Ruled out {id}: unhealthy"),
            (Health::Healthy, _) => format!("Selected {id} with {health:.1} health score"),
            (Health::Degraded, score) => {
                let points = score.points();
                format!(
                    "Selected {id} with {health:.1} health score, {points:.1} as it is degraded"
                )
            }
            (Health::Unhealthy, _) => {
                format!("Selected {id} with {health:.1} health score, 0.0 as it is unhealthy")
            }
        }
    }
}

fn health_score(reported: f64) -> f64 {
    if reported.is_nan() { NEUTRAL } else { reported.clamp(0.0, 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<HealthScore>(include_str!("../cases.json"));
    }

    #[test]
    fn a_health_score_is_held_to_its_range() {
        let cases = [
            (95.0, 95.0),
            (-1.0, 0.0),
            (100.1, 100.0),
            (f64::INFINITY, 100.0),
            (f64::NEG_INFINITY, 0.0),
            (f64::NAN, NEUTRAL),
        ];
        for (reported, expected) in cases {
            assert_eq!(health_score(reported), expected, "{reported}");
        }
    }

    #[test]
    fn a_factor_out_of_range_is_refused() {
        for degraded_factor in [-0.1, 1.1, f64::NAN] {
            let error = HealthScore::new(Config { degraded_factor, ..Config::default() }).err();
            assert_eq!(
                error,
                Some(format!("degraded_factor is {degraded_factor}: must be 0 to 1"))
            );
        }
    }
}
