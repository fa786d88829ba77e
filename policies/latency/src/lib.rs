//! Prefers the lowest latency: for a region the round trip, for an instance the time it takes to answer.
//!
//! ```text
//! score = 100 · half_ms / (half_ms + ms)              50 where nothing is known; nothing is ruled out
//!
//! region:   ms = round trip, half_ms = half_ms
//! instance: ms = serving_weight · serving + measured round trip, half_ms = instance_half_ms
//!
//! distance  = great circle from the request's origin, km
//! estimate  = 2 · path_factor · distance / 200 km/ms      light in fibre: two thirds of c, each way
//! wait      = service_time_ms · max(queue_depth, in_flight − slots) / slots
//! serving   = max(avg_latency_ms, service_time_ms + wait), of what is known;
//!             for a stream with a known time to first token, max(time_to_first_token_ms, wait)
//! ```
//!
//! A measured round trip begins at the router, where the request is; the estimate, at the client, serves
//! where nothing was measured. [`Basis`] can turn that round. The instances of one region share their
//! distance, so it plays no part among them.
//!
//! Pings were found to take about 3 times as long as light in vacuum, 2 times as long as light in
//! fibre (Singla et al., "The Internet at the Speed of Light", HotNets 2014): `path_factor` is 2.

mod distance;

use mrgc_policy_sdk::{Candidate, Level, Policy, Request, Score, measured};

const FIBRE_KM_PER_MS: f64 = 200.0;

/// Where nothing is known.
const NEUTRAL: f64 = 50.0;

#[derive(Debug, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    pub basis: Basis,
    /// The round trip to a region that is worth 50 points.
    pub half_ms: f64,
    /// The time at an instance that is worth 50 points.
    pub instance_half_ms: f64,
    /// How much longer than straight fibre a path is.
    pub path_factor: f64,
    /// How much an instance's own time counts beside its round trip. 0: not at all.
    pub serving_weight: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            basis: Basis::Measured,
            half_ms: 100.0,
            instance_half_ms: 1000.0,
            path_factor: 2.0,
            serving_weight: 1.0,
        }
    }
}

/// Which round trip to a region counts. Where only one is known, it is that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// What the router measured: a request is here already, so the way on is what is left to choose.
    #[default]
    Measured,
    /// What the client's distance comes to, wherever its request entered.
    Distance,
}

/// The policy.
#[derive(Debug)]
pub struct Latency {
    config: Config,
}

mrgc_policy_sdk::export!(Latency);

/// `km` where it is an estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
struct RoundTrip {
    ms: f64,
    km: Option<f64>,
}

impl Policy for Latency {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let errors: Vec<String> = [
            ("half_ms", config.half_ms, 0.1..=1e6),
            ("instance_half_ms", config.instance_half_ms, 0.1..=1e6),
            ("path_factor", config.path_factor, 1.0..=100.0),
            ("serving_weight", config.serving_weight, 0.0..=100.0),
        ]
        .into_iter()
        .filter(|(_, value, range)| !range.contains(value))
        .map(|(key, value, range)| {
            format!("{key} is {value}: must be {} to {}", range.start(), range.end())
        })
        .collect();
        if errors.is_empty() { Ok(Self { config }) } else { Err(errors.join("; ")) }
    }

    fn score(&self, request: &Request, candidate: &Candidate) -> Score {
        Score::from(match candidate.level {
            Level::Region => {
                let ms = self.round_trip(request, candidate).map(|trip| trip.ms);
                points(ms, self.config.half_ms)
            }
            Level::Instance => {
                points(self.instance_ms(request, candidate), self.config.instance_half_ms)
            }
        })
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        let why = match candidate.level {
            Level::Region => self.round_trip(request, candidate).map(|trip| trip.to_string()),
            Level::Instance => self.explain_instance(request, candidate),
        };
        match why {
            Some(why) => format!("Selected {} for lowest latency: {why}", candidate.id),
            None => format!("Selected {} with no latency known", candidate.id),
        }
    }
}

impl Latency {
    fn round_trip(&self, request: &Request, candidate: &Candidate) -> Option<RoundTrip> {
        let trip = measured(candidate.rtt_ms).map(|ms| RoundTrip { ms, km: None });
        let estimate = || self.estimate(request, candidate);
        match self.config.basis {
            Basis::Measured => trip.or_else(estimate),
            Basis::Distance => estimate().or(trip),
        }
    }

    fn estimate(&self, request: &Request, candidate: &Candidate) -> Option<RoundTrip> {
        let km = distance::great_circle_km(request.origin?, candidate.location?)?;
        let ms = 2.0 * self.config.path_factor * km / FIBRE_KM_PER_MS;
        Some(RoundTrip { ms, km: Some(km) })
    }

    /// The time to an instance's answer; none where its own part counts but is not known.
    fn instance_ms(&self, request: &Request, candidate: &Candidate) -> Option<f64> {
        let trip_ms = measured(candidate.rtt_ms);
        if self.config.serving_weight == 0.0 {
            return trip_ms;
        }
        let serving_ms = self.config.serving_weight * serving_ms(request, candidate)?;
        Some(serving_ms + trip_ms.unwrap_or(0.0))
    }

    fn explain_instance(&self, request: &Request, candidate: &Candidate) -> Option<String> {
        self.instance_ms(request, candidate)?;
        let serving = serving_ms(request, candidate).map(|ms| format!("{ms:.1} ms to answer"));
        let trip = measured(candidate.rtt_ms).map(|ms| format!("{ms:.1} ms round trip"));
        Some([serving, trip].into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl std::fmt::Display for RoundTrip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.km {
            Some(km) => write!(f, "{km:.0} km away, about {:.1} ms round trip", self.ms),
            None => write!(f, "{:.1} ms round trip", self.ms),
        }
    }
}

fn points(ms: Option<f64>, half_ms: f64) -> f64 {
    ms.map_or(NEUTRAL, |ms| 100.0 * half_ms / (half_ms + ms))
}

/// How long the instance takes to its answer, or to a stream's first token.
fn serving_ms(request: &Request, candidate: &Candidate) -> Option<f64> {
    let service_ms = measured(candidate.service_time_ms);
    let wait_ms = service_ms.map_or(0.0, |ms| ms * turns_waiting(candidate));
    let first_token_ms = measured(candidate.time_to_first_token_ms);
    if let Some(first_token_ms) = first_token_ms.filter(|_| request.stream) {
        return Some(first_token_ms.max(wait_ms));
    }
    let live_ms = service_ms.map(|ms| ms + wait_ms);
    match (measured(candidate.avg_latency_ms), live_ms) {
        (Some(reported_ms), Some(live_ms)) => Some(reported_ms.max(live_ms)),
        (reported_ms, live_ms) => reported_ms.or(live_ms),
    }
}

/// How often all slots must come free before a new request's turn. 0 where no slots are known.
fn turns_waiting(candidate: &Candidate) -> f64 {
    let Some(slots) = candidate.slots.filter(|slots| *slots > 0) else { return 0.0 };
    let live = f64::from(candidate.in_flight.saturating_sub(slots));
    measured(candidate.queue_depth).unwrap_or(0.0).max(live) / f64::from(slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<Latency>(include_str!("../cases.json"));
    }

    #[test]
    fn points_fall_with_time_and_are_50_at_the_half() {
        assert_eq!(points(Some(0.0), 100.0), 100.0);
        assert_eq!(points(Some(100.0), 100.0), 50.0);
        assert_eq!(points(Some(f64::INFINITY), 100.0), 0.0);
        assert!(points(Some(10.0), 100.0) > points(Some(11.0), 100.0));
    }

    #[test]
    fn what_is_no_measurement_counts_as_none() {
        for hostile in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(measured(Some(hostile)), None, "{hostile}");
        }
    }

    #[test]
    fn every_error_of_a_config_is_told() {
        let config = Config { half_ms: 0.0, path_factor: f64::NAN, ..Config::default() };
        assert_eq!(
            Latency::new(config).err().as_deref(),
            Some("half_ms is 0: must be 0.1 to 1000000; path_factor is NaN: must be 1 to 100")
        );
    }
}
