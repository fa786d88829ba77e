//! When live requests take a candidate out, and how it comes back.

use mrgc_fleet::health::EjectionConfig;
use mrgc_settings::Layers;
use serde::{Deserialize, Serialize};

use super::health_check::{milliseconds, seconds};

/// [`EjectionConfig`] as it is written: in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row, of requests that were sent, that eject. One that cannot be connected to is ejected
    /// at once.
    pub consecutive_failures: u32,
    /// The first ejection's time; each further one's is twice the one before.
    pub base_seconds: f64,
    pub max_seconds: f64,
    /// Of a pool's instances, how many may be out at once for failures of requests that were sent.
    pub max_share: f64,
    /// Requests at once that try out a candidate after its ejection, and answers that bring it back.
    pub trial_requests: u32,
    /// For how long a candidate that came back gets less than its share; 0 for not at all.
    pub slow_start_seconds: f64,
    /// The share that it begins with.
    pub slow_start_floor: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        let ejection = EjectionConfig::default();
        Self {
            consecutive_failures: ejection.consecutive_failures,
            base_seconds: seconds(ejection.base_ms),
            max_seconds: seconds(ejection.max_ms),
            max_share: ejection.max_share,
            trial_requests: ejection.trial_requests,
            slow_start_seconds: seconds(ejection.slow_start_ms),
            slow_start_floor: ejection.slow_start_floor,
        }
    }
}

impl Ejection {
    pub fn config(&self) -> EjectionConfig {
        EjectionConfig {
            consecutive_failures: self.consecutive_failures,
            base_ms: milliseconds(self.base_seconds),
            max_ms: milliseconds(self.max_seconds),
            max_share: self.max_share,
            trial_requests: self.trial_requests,
            slow_start_ms: milliseconds(self.slow_start_seconds),
            slow_start_floor: self.slow_start_floor,
        }
    }

    pub(super) fn check(&self, layers: &mut Layers) {
        for (key, value) in [("base_seconds", self.base_seconds), ("max_seconds", self.max_seconds)]
        {
            super::check::check_seconds(layers, &format!("ejection.{key}"), value);
        }
        if !(0.0..=86_400.0).contains(&self.slow_start_seconds) {
            layers.reject("ejection.slow_start_seconds", "is not within 0 and 86400");
        }
        super::check::check_section(layers, "ejection", &self.config().problems());
    }
}
