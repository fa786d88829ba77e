//! Prefers the lowest cost.
//!
//! ```text
//! score = 100 · (cheapest / cost) ^ sharpness     cheapest: of this decision's candidates
//!         50                                      cost not known
//! ```
//!
//! With sharpness 1, twice the price is worth half the points. A decision compares one kind of cost:
//! the configured one, or the other where no candidate has it. By default that is the
//! multiplier, the price relative to the reference region, which instances inherit.

use mrgc_policy_sdk::{Candidate, Candidates, Policy, Request, Score, measured};

/// Where the cost is not known: what is not known must not look cheap.
const NEUTRAL: f64 = 50.0;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    pub unit: Unit,
    /// How steeply points fall as cost rises, 0.1 to 10.
    pub sharpness: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { unit: Unit::Multiplier, sharpness: 1.0 }
    }
}

/// Which cost is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    #[default]
    Multiplier,
    PerHour,
}

/// The policy.
#[derive(Debug)]
pub struct Cost {
    config: Config,
}

mrgc_policy_sdk::export!(Cost);

impl Policy for Cost {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if !(0.1..=10.0).contains(&config.sharpness) {
            return Err(format!("sharpness is {}: must be 0.1 to 10", config.sharpness));
        }
        Ok(Self { config })
    }

    /// Alone, it is the cheapest, if its cost is known.
    fn score(&self, _: &Request, candidate: &Candidate) -> Score {
        Score::from(self.known_cost(candidate).map_or(NEUTRAL, |_| 100.0))
    }

    fn rank(&self, _: &Request, candidates: Candidates<'_>) -> Vec<Score> {
        let unit = self.unit(candidates);
        let cheapest = candidates
            .iter()
            .filter_map(|candidate| unit.cost(&candidate))
            .fold(f64::INFINITY, f64::min);
        candidates
            .iter()
            .map(|candidate| Score::from(self.points(unit.cost(&candidate), cheapest)))
            .collect()
    }

    fn explain(&self, _: &Request, candidate: &Candidate) -> String {
        let id = &candidate.id;
        match self.known_cost(candidate) {
            Some((Unit::Multiplier, cost)) => {
                format!("Selected {id} with {}x cost multiplier", decimals(cost))
            }
            Some((Unit::PerHour, cost)) => format!("Selected {id} at {cost:.2} per hour"),
            None => format!("Selected {id} with unknown cost"),
        }
    }
}

impl Cost {
    /// What this decision's costs are compared in.
    fn unit(&self, candidates: Candidates<'_>) -> Unit {
        let unit = self.config.unit;
        match candidates.iter().any(|candidate| unit.cost(&candidate).is_some()) {
            true => unit,
            false => unit.other(),
        }
    }

    fn known_cost(&self, candidate: &Candidate) -> Option<(Unit, f64)> {
        [self.config.unit, self.config.unit.other()]
            .into_iter()
            .find_map(|unit| unit.cost(candidate).map(|cost| (unit, cost)))
    }

    fn points(&self, cost: Option<f64>, cheapest: f64) -> f64 {
        match cost {
            None => NEUTRAL,
            // Also where both are 0, which have no ratio.
            Some(cost) if cost <= cheapest => 100.0,
            Some(cost) => 100.0 * (cheapest / cost).powf(self.config.sharpness),
        }
    }
}

impl Unit {
    fn other(self) -> Self {
        match self {
            Self::Multiplier => Self::PerHour,
            Self::PerHour => Self::Multiplier,
        }
    }

    fn cost(self, candidate: &Candidate) -> Option<f64> {
        measured(match self {
            Self::Multiplier => candidate.cost_multiplier,
            Self::PerHour => candidate.cost_per_hour,
        })
    }
}

/// One decimal, or two where they say more: 0.9, 1.0, 1.25.
fn decimals(value: f64) -> String {
    let two = format!("{value:.2}");
    two.strip_suffix('0').map(str::to_owned).unwrap_or(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<Cost>(include_str!("../cases.json"));
    }

    #[test]
    fn points_stay_within_bounds_at_the_extremes() {
        let values = [0.0, f64::MIN_POSITIVE, 1.0, f64::MAX];
        for sharpness in [0.1, 1.0, 10.0] {
            let policy =
                Cost::new(Config { sharpness, ..Config::default() }).expect("a valid config");
            for cost in values {
                for cheapest in values {
                    let points = policy.points(Some(cost), cheapest);
                    assert!((0.0..=100.0).contains(&points), "{points} for {cost}, {cheapest}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_cost_counts_as_none() {
        for hostile in [f64::NAN, f64::INFINITY, -0.5] {
            assert_eq!(measured(Some(hostile)), None, "{hostile}");
        }
    }

    #[test]
    fn multipliers_read_well() {
        for (value, text) in [(0.9, "0.9"), (1.0, "1.0"), (1.25, "1.25"), (10.0, "10.0")] {
            assert_eq!(decimals(value), text);
        }
    }

    #[test]
    fn a_sharpness_out_of_range_is_refused() {
        for sharpness in [0.0, 11.0, f64::NAN] {
            let error = Cost::new(Config { sharpness, ..Config::default() }).err();
            assert_eq!(error, Some(format!("sharpness is {sharpness}: must be 0.1 to 10")));
        }
    }
}
