//! The fleet's routing score: a short queue, low latency, good health.
//!
//! ```text
//! score = 0.50·queue_points + 0.30·latency_points + 0.20·health_points
//!
//! queue_points   = max(0, 100 − 10·queue)
//! latency_points = max(0, 100 − avg_latency_ms / 10)
//! health_points  = 100 healthy, 50 degraded, 0 unhealthy
//! ```
//!
//! Queue 2, 150 ms and healthy make 85.5; with 200 ms, 84.0. Weights are relative to their sum.
//!
//! `queue` is the larger of two: what was reported, and what the router's own requests come to, which is
//! the fresher: `(in_flight − slots) / instances`, with `running` in place of `slots` that are not known.
//! What is not measured must not look perfect: an unreported queue gets half the points of the live one,
//! an unknown latency gets 50.

use mrgc_policy_sdk::{Candidate, Health, Policy, Request, Score, measured};

/// Latency points where no latency is known.
const NEUTRAL: f64 = 50.0;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    pub queue_weight: f64,
    pub latency_weight: f64,
    pub health_weight: f64,
    /// Requests waiting at one instance that leave its queue no points.
    pub queue_limit: f64,
    /// The latency that leaves no points.
    pub latency_limit_ms: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_weight: 0.5,
            latency_weight: 0.3,
            health_weight: 0.2,
            queue_limit: 10.0,
            latency_limit_ms: 1000.0,
        }
    }
}

/// The policy. Its weights sum to 1.
#[derive(Debug)]
pub struct RoutingScore {
    queue_weight: f64,
    latency_weight: f64,
    health_weight: f64,
    points_per_request: f64,
    points_per_ms: f64,
}

mrgc_policy_sdk::export!(RoutingScore);

impl Policy for RoutingScore {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        validate(&config)?;
        let sum = config.queue_weight + config.latency_weight + config.health_weight;
        Ok(Self {
            queue_weight: config.queue_weight / sum,
            latency_weight: config.latency_weight / sum,
            health_weight: config.health_weight / sum,
            points_per_request: 100.0 / config.queue_limit,
            points_per_ms: 100.0 / config.latency_limit_ms,
        })
    }

    fn score(&self, _: &Request, candidate: &Candidate) -> Score {
        Score::from(
            self.queue_weight
                * self.queue_points(measured(candidate.queue_depth), live_queue(candidate))
                + self.latency_weight * self.latency_points(measured(candidate.avg_latency_ms))
                + self.health_weight * health_points(candidate.health),
        )
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        let score = self.score(request, candidate).points();
        let live = live_queue(candidate);
        let queue = match measured(candidate.queue_depth) {
            Some(reported) if reported >= live => format!("queue {reported:.1}"),
            Some(_) => format!("queue {live:.1} by requests in flight"),
            None => format!("queue not reported, {live:.1} by requests in flight"),
        };
        let latency = match measured(candidate.avg_latency_ms) {
            Some(ms) => format!("latency {ms:.1} ms"),
            None => "latency not measured".to_owned(),
        };
        let health = match candidate.health {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
        };
        format!(
            "Selected {} with a score of {score:.1}: {queue}, {latency}, {health}",
            candidate.id
        )
    }
}

/// In WASM, `f64::max` is a call into the maths library and `clamp` is two comparisons: over 1,000
/// candidates that is half of the time.
impl RoutingScore {
    fn queue_points(&self, reported: Option<f64>, live: f64) -> f64 {
        let points = |queue: f64| (100.0 - self.points_per_request * queue).clamp(0.0, 100.0);
        match reported {
            Some(reported) if reported > live => points(reported),
            Some(_) => points(live),
            None => points(live) / 2.0,
        }
    }

    fn latency_points(&self, latency_ms: Option<f64>) -> f64 {
        latency_ms.map_or(NEUTRAL, |ms| (100.0 - self.points_per_ms * ms).clamp(0.0, 100.0))
    }
}

/// Requests that must be waiting at each instance by now, by the router's own count.
fn live_queue(candidate: &Candidate) -> f64 {
    let served = candidate.slots.or(candidate.running).unwrap_or(0);
    let waiting = candidate.in_flight.saturating_sub(served);
    f64::from(waiting) / f64::from(candidate.instances.max(1))
}

fn health_points(health: Health) -> f64 {
    match health {
        Health::Healthy => 100.0,
        Health::Degraded => 50.0,
        Health::Unhealthy => 0.0,
    }
}

fn validate(config: &Config) -> Result<(), String> {
    let weights = [
        ("queue_weight", config.queue_weight),
        ("latency_weight", config.latency_weight),
        ("health_weight", config.health_weight),
    ];
    let limits =
        [("queue_limit", config.queue_limit), ("latency_limit_ms", config.latency_limit_ms)];
    let mut errors: Vec<String> = weights
        .iter()
        .filter(|(_, weight)| !(0.0..=1000.0).contains(weight))
        .map(|(key, weight)| format!("{key} is {weight}: must be 0 to 1000"))
        .collect();
    errors.extend(
        limits
            .iter()
            .filter(|(_, limit)| !(1.0..=1e9).contains(limit))
            .map(|(key, limit)| format!("{key} is {limit}: must be 1 to 1000000000")),
    );
    if weights.iter().all(|(_, weight)| *weight == 0.0) {
        errors.push("all weights are 0: one must be above".to_owned());
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<RoutingScore>(include_str!("../cases.json"));
    }

    #[test]
    fn what_is_no_measurement_counts_as_none() {
        for hostile in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            assert_eq!(measured(Some(hostile)), None, "{hostile}");
        }
        assert_eq!(measured(Some(f64::MAX)), Some(f64::MAX));
    }

    #[test]
    fn points_stay_within_bounds_at_the_extremes_of_config_and_facts() {
        for limit in [1.0, 1e9] {
            let config =
                Config { queue_limit: limit, latency_limit_ms: limit, ..Config::default() };
            let policy = RoutingScore::new(config).expect("a valid config");
            for value in [0.0, f64::MIN_POSITIVE, 1.0, f64::MAX] {
                for points in [
                    policy.queue_points(Some(value), value),
                    policy.queue_points(None, value),
                    policy.latency_points(Some(value)),
                ] {
                    assert!((0.0..=100.0).contains(&points), "{points} for {value}");
                }
            }
        }
    }

    #[test]
    fn every_error_of_a_config_is_told() {
        let config = Config {
            queue_weight: -1.0,
            health_weight: f64::NAN,
            queue_limit: 0.0,
            ..Config::default()
        };
        let error = RoutingScore::new(config).err();
        assert_eq!(
            error.as_deref(),
            Some(
                "queue_weight is -1: must be 0 to 1000; health_weight is NaN: must be 0 to 1000; \
             queue_limit is 0: must be 1 to 1000000000"
            )
        );

        let zero = Config {
            queue_weight: 0.0,
            latency_weight: 0.0,
            health_weight: 0.0,
            ..Config::default()
        };
        assert_eq!(
            RoutingScore::new(zero).err().as_deref(),
            Some("all weights are 0: one must be above")
        );
    }
}
