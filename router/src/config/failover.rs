//! When traffic moves between regions, and how it comes back.

use std::time::Duration;

use mrgc_fleet::failover::{RECORD_TTL_MS, Thresholds};
use mrgc_settings::Layers;
use serde::{Deserialize, Serialize};

use super::{
    HealthCheck,
    health_check::{milliseconds, seconds},
};

/// [`Thresholds`] as they are written: in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    pub normal_threshold: f64,
    pub degraded_threshold: f64,
    pub unhealthy_threshold: f64,
    pub recovery_threshold: f64,
    /// A state lasts at least this long before it improves.
    pub hold_seconds: f64,
    /// Each step of a recovery lasts at least this long.
    pub step_seconds: f64,
    /// The share of its own traffic that a step gives back to a region.
    pub recovery_step: f64,
    pub degraded_share_moved: f64,
    pub failover_share_moved: f64,
    /// Between two evaluations; what live requests show is evaluated at once.
    pub evaluation_seconds: f64,
    /// How long a graceful failover takes.
    pub graceful_seconds: f64,
    /// From the first sign of a failure to its traffic having moved: longer is logged and counted.
    pub failover_timeout_seconds: f64,
    /// A region with a smaller share of healthy instances is refused as a target.
    pub minimum_healthy: f64,
    /// Of a region's slots, how many may be in use before traffic that was moved there is refused.
    pub max_utilization: f64,
    /// For how long others wait for the router that writes the region's state before one takes over.
    pub lease_seconds: f64,
}

impl Default for Failover {
    fn default() -> Self {
        let t = Thresholds::default();
        Self {
            normal_threshold: t.normal_threshold,
            degraded_threshold: t.degraded_threshold,
            unhealthy_threshold: t.unhealthy_threshold,
            recovery_threshold: t.recovery_threshold,
            hold_seconds: seconds(t.hold_ms),
            step_seconds: seconds(t.step_ms),
            recovery_step: t.recovery_step,
            degraded_share_moved: t.degraded_share_moved,
            failover_share_moved: t.failover_share_moved,
            evaluation_seconds: seconds(t.evaluation_ms),
            graceful_seconds: seconds(t.graceful_ms),
            failover_timeout_seconds: seconds(t.failover_timeout_ms),
            minimum_healthy: t.minimum_healthy,
            max_utilization: t.max_utilization,
            lease_seconds: 10.0,
        }
    }
}

impl Failover {
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            normal_threshold: self.normal_threshold,
            degraded_threshold: self.degraded_threshold,
            unhealthy_threshold: self.unhealthy_threshold,
            recovery_threshold: self.recovery_threshold,
            hold_ms: milliseconds(self.hold_seconds),
            step_ms: milliseconds(self.step_seconds),
            recovery_step: self.recovery_step,
            degraded_share_moved: self.degraded_share_moved,
            failover_share_moved: self.failover_share_moved,
            evaluation_ms: milliseconds(self.evaluation_seconds),
            graceful_ms: milliseconds(self.graceful_seconds),
            failover_timeout_ms: milliseconds(self.failover_timeout_seconds),
            minimum_healthy: self.minimum_healthy,
            max_utilization: self.max_utilization,
        }
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs_f64(self.lease_seconds)
    }

    pub(super) fn check(&self, layers: &mut Layers, health_check: &HealthCheck) {
        for (key, value) in [
            ("hold_seconds", self.hold_seconds),
            ("step_seconds", self.step_seconds),
            ("evaluation_seconds", self.evaluation_seconds),
            ("graceful_seconds", self.graceful_seconds),
            ("failover_timeout_seconds", self.failover_timeout_seconds),
            ("lease_seconds", self.lease_seconds),
        ] {
            super::check::check_seconds(layers, &format!("failover.{key}"), value);
        }
        super::check::check_section(layers, "failover", &self.thresholds().problems());
        self.check_timeout(layers, health_check);
        let lasts = seconds(RECORD_TTL_MS);
        if self.lease_seconds >= lasts {
            let why = format!(
                "{} is not below {lasts}, for which what was written of the regions counts: it would have run \
                 out before another router takes over; lower it",
                self.lease_seconds
            );
            layers.reject("failover.lease_seconds", why);
        }
    }

    /// Whether a region that falls silent can be found out in time.
    fn check_timeout(&self, layers: &mut Layers, health_check: &HealthCheck) {
        let HealthCheck { ping_interval_seconds, ping_misses, .. } = health_check;
        let misses_ms = milliseconds(*ping_interval_seconds).saturating_mul((*ping_misses).into());
        if misses_ms > milliseconds(self.failover_timeout_seconds) {
            let misses = seconds(misses_ms);
            let why = format!(
                "{} is less than the {misses} s in which {ping_misses} pings are missed, one each \
                 {ping_interval_seconds} s, so that the failover of a region that falls silent is always late: \
                 raise it, or lower health_check.ping_interval_seconds or ping_misses",
                self.failover_timeout_seconds
            );
            layers.reject("failover.failover_timeout_seconds", why);
        }
    }
}
