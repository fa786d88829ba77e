//! How the fleet is watched: probes of this region's agents, heartbeats, pings of other regions' routers.

use std::{
    collections::BTreeMap, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration,
};

use http::{HeaderName, HeaderValue};
use mrgc_fleet::health::{PeerConfig, ProbeConfig};
use mrgc_settings::Layers;
use serde::{Deserialize, Serialize};

/// Instances that may be probed at once, whatever is configured.
const MOST_PARALLEL: u32 = 1_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheck {
    /// Between two probes of an instance.
    pub interval_seconds: f64,
    /// Of a probe with its redirects; default: 10 s, or less where the interval leaves less.
    pub timeout_seconds: Option<f64>,
    /// Failures in a row, after the first, that make an instance unhealthy; 0: the first one does.
    pub failure_threshold: u32,
    /// Passes in a row after which an unhealthy instance serves again.
    pub recovery_passes: u32,
    /// Further tries at once, where a probe has timed out.
    pub retries: u32,
    /// Probes under way at once.
    pub parallel: u32,
    pub scheme: Scheme,
    /// What is asked for, on the address that the agent registered.
    pub path: String,
    /// As in `200`, `2xx` or `200-204`.
    pub expected_codes: Vec<Codes>,
    /// What an answer must contain, within its first 64 KiB.
    pub expected_body: Option<String>,
    /// Whether redirects are followed, as long as they stay on the instance.
    pub follow_redirects: bool,
    pub headers: BTreeMap<String, String>,
    /// Over HTTPS: takes any certificate. For tests.
    pub allow_insecure: bool,
    /// Over HTTPS: who signs the agents' certificates, PEM; default: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// An instance whose reports stop for this long gets no new requests.
    pub stale_after_seconds: f64,
    /// Between two pings of another region's router, which measure the round trip.
    pub ping_interval_seconds: f64,
    /// Pings in a row without an answer that eject a region.
    pub ping_misses: u32,
    /// Of a pool: no more than this share is drained and replaced because its probes fail. Where more fail
    /// it is hardly the instances, and failover is the answer.
    pub max_drained_share: f64,
}

impl Default for HealthCheck {
    fn default() -> Self {
        let (probes, peers) = (ProbeConfig::default(), PeerConfig::default());
        Self {
            interval_seconds: seconds(probes.interval_ms),
            timeout_seconds: None,
            failure_threshold: probes.failure_threshold,
            recovery_passes: probes.recovery_passes,
            retries: probes.retries,
            parallel: probes.parallel,
            scheme: Scheme::Http,
            path: "/health".to_owned(),
            expected_codes: vec![Codes(200..=299)],
            expected_body: None,
            follow_redirects: false,
            headers: BTreeMap::new(),
            allow_insecure: false,
            ca_file: None,
            stale_after_seconds: 35.0,
            ping_interval_seconds: seconds(peers.interval_ms),
            ping_misses: peers.misses,
            max_drained_share: 0.3,
        }
    }
}

impl HealthCheck {
    pub fn probes(&self) -> ProbeConfig {
        ProbeConfig {
            interval_ms: milliseconds(self.interval_seconds),
            timeout_ms: milliseconds(self.timeout_seconds()),
            failure_threshold: self.failure_threshold,
            recovery_passes: self.recovery_passes,
            parallel: self.parallel,
            retries: self.retries,
        }
    }

    pub fn peers(&self) -> PeerConfig {
        PeerConfig {
            interval_ms: milliseconds(self.ping_interval_seconds),
            misses: self.ping_misses,
        }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(milliseconds(self.timeout_seconds()))
    }

    fn timeout_seconds(&self) -> f64 {
        let longest_ms = milliseconds(self.interval_seconds) / (u64::from(self.retries) + 1);
        let usual_ms = ProbeConfig::default().timeout_ms.min(longest_ms);
        self.timeout_seconds.unwrap_or(seconds(usual_ms))
    }

    pub(super) fn check(&self, layers: &mut Layers) {
        for (key, value) in [
            ("interval_seconds", self.interval_seconds),
            ("timeout_seconds", self.timeout_seconds.unwrap_or(1.0)),
            ("stale_after_seconds", self.stale_after_seconds),
            ("ping_interval_seconds", self.ping_interval_seconds),
        ] {
            super::check::check_seconds(layers, &format!("health_check.{key}"), value);
        }
        let problems = [self.probes().problems(), self.peers().problems()].concat();
        super::check::check_section(layers, "health_check", &problems);
        if self.parallel > MOST_PARALLEL {
            layers.reject("health_check.parallel", format!("is above {MOST_PARALLEL}"));
        }
        if !self.path.starts_with('/') {
            layers.reject("health_check.path", format!("`{}` does not begin with /", self.path));
        }
        if self.expected_codes.is_empty() {
            layers.reject("health_check.expected_codes", "is empty: no answer would pass");
        }
        for (name, value) in &self.headers {
            if HeaderName::from_str(name).is_err() || HeaderValue::from_str(value).is_err() {
                layers.reject("health_check.headers", format!("`{name}: {value}` is no header"));
            }
        }
        if self.scheme == Scheme::Http && (self.allow_insecure || self.ca_file.is_some()) {
            layers.reject("health_check.scheme", "allow_insecure and ca_file are for `https`");
        }
        if !(0.0..=1.0).contains(&self.max_drained_share) {
            layers.reject("health_check.max_drained_share", "is not within 0 and 1");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A range of status codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Codes(RangeInclusive<u16>);

impl Codes {
    pub fn contain(&self, status: u16) -> bool {
        self.0.contains(&status)
    }
}

impl TryFrom<String> for Codes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let code = |text: &str| text.parse().ok().filter(|code| (100..=599).contains(code));
        let range = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(hundreds), _) => code(&format!("{hundreds}00")).map(|first| first..=first + 99),
            (None, Some((first, last))) => code(first)
                .zip(code(last))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| first..=last),
            (None, None) => code(&text).map(|code| code..=code),
        };
        range
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no status code, as in 200, 2xx or 200-204"))
    }
}

impl From<Codes> for String {
    fn from(Codes(range): Codes) -> Self {
        match (*range.start(), *range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        }
    }
}

pub(super) fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

pub(super) fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_a_hundred_or_a_range() {
        for (text, range) in [("200", 200..=200), ("2xx", 200..=299), ("200-204", 200..=204)] {
            assert_eq!(Codes::try_from(text.to_owned()), Ok(Codes(range)), "{text}");
        }
        for wrong in ["", "x", "20", "6xx", "299-200", "200-", "-", "2xxx"] {
            assert!(Codes::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
