//! The numbers by which regions are judged, and what contradicts itself among them.

use super::{Evidence, Rating, RegionState};

/// Ratios and shares are within 0 and 1; times are in milliseconds.
///
/// ```text
///  healthy    0 %            30 %            50 %            80 %      100 %
///             ├───────────────┼───────────────┼───────────────┼──────────┤
///  moved    100 %    95 %     │  95 % ─► 30 % │     30 %      │    0     │
///  state       FAILOVER_ACTIVE│          DEGRADED             │  NORMAL  │
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Below it a region is degraded.
    pub normal_threshold: f64,
    /// Below it the share that is moved grows.
    pub degraded_threshold: f64,
    /// Below it the region is failed over.
    pub unhealthy_threshold: f64,
    /// From it on traffic comes back.
    pub recovery_threshold: f64,
    /// A state lasts at least this long before it improves, and the evidence for it as long.
    pub hold_ms: u64,
    /// Each step of a recovery lasts at least this long.
    pub step_ms: u64,
    /// The share of its own traffic that a step gives back.
    pub recovery_step: f64,
    pub degraded_share_moved: f64,
    pub failover_share_moved: f64,
    /// Regions are evaluated at least this often; new evidence is evaluated at once.
    pub evaluation_ms: u64,
    /// How long a graceful failover takes: the region's share falls in a line.
    pub graceful_ms: u64,
    /// From the first evidence to the traffic moved: longer is late.
    pub failover_timeout_ms: u64,
    /// A region below it is refused as the target of a manual failover.
    pub minimum_healthy: f64,
    /// Of a region's slots, what other regions' requests may fill it up to.
    pub max_utilization: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            normal_threshold: 0.8,
            degraded_threshold: 0.5,
            unhealthy_threshold: 0.3,
            recovery_threshold: 0.8,
            hold_ms: 30_000,
            step_ms: 30_000,
            recovery_step: 0.25,
            degraded_share_moved: 0.30,
            failover_share_moved: 0.95,
            evaluation_ms: 60_000,
            graceful_ms: 2_500,
            failover_timeout_ms: 1_000,
            minimum_healthy: 0.5,
            max_utilization: 0.9,
        }
    }
}

impl Thresholds {
    /// All that contradicts itself or makes no sense.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let shares = [
            ("normal_threshold", self.normal_threshold),
            ("degraded_threshold", self.degraded_threshold),
            ("unhealthy_threshold", self.unhealthy_threshold),
            ("recovery_threshold", self.recovery_threshold),
            ("degraded_share_moved", self.degraded_share_moved),
            ("failover_share_moved", self.failover_share_moved),
            ("minimum_healthy", self.minimum_healthy),
        ];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                problems.push(format!("{name} {value} is not within 0 and 1"));
            }
        }
        for (name, value) in
            [("recovery_step", self.recovery_step), ("max_utilization", self.max_utilization)]
        {
            if !(value > 0.0 && value <= 1.0) {
                problems.push(format!("{name} {value} is not above 0 and at most 1"));
            }
        }
        for (name, value_ms) in [
            ("hold", self.hold_ms),
            ("step", self.step_ms),
            ("evaluation", self.evaluation_ms),
            ("graceful", self.graceful_ms),
            ("failover_timeout", self.failover_timeout_ms),
        ] {
            if value_ms == 0 {
                problems.push(format!("{name} is 0 ms: it must be longer"));
            }
        }
        // Each pair must not be the other way round; what would happen if it were is told.
        for ((low, low_value), (high, high_value), so) in [
            (shares[2], shares[1], "a region would be failed over before it is degraded"),
            (shares[1], shares[0], "more would be moved of a region that is normal"),
            (shares[0], shares[3], "a region that has recovered would be degraded at once"),
            (shares[4], shares[5], "a failover would move less than a degradation"),
        ] {
            if low_value > high_value {
                problems.push(format!("{low} {low_value} is above {high} {high_value}: {so}"));
            }
        }
        problems
    }

    /// What evidence says by itself, whatever was before; `None` of a region without instances.
    pub(super) fn rate(&self, evidence: &Evidence) -> Option<Rating> {
        let ratio = evidence.ratio()?;
        let (state, moved) = if !evidence.reachable || evidence.healthy == 0 {
            (RegionState::FailoverActive, 1.0)
        } else if ratio < self.unhealthy_threshold {
            (RegionState::FailoverActive, self.failover_share_moved)
        } else if ratio < self.degraded_threshold {
            let (least, most) = (self.degraded_share_moved, self.failover_share_moved);
            let span = self.degraded_threshold - self.unhealthy_threshold;
            let way = (self.degraded_threshold - ratio) / span;
            (RegionState::Degraded, least + (most - least) * way)
        } else if ratio < self.normal_threshold {
            (RegionState::Degraded, self.degraded_share_moved)
        } else {
            return Some(Rating::NORMAL);
        };
        Some(Rating::new(state, 1.0 - moved))
    }

    /// Whether a region is as it should be, as far as this evidence goes.
    pub(crate) fn finds_normal(&self, evidence: &Evidence) -> bool {
        self.rate(evidence).is_none_or(|rating| rating == Rating::NORMAL)
    }

    /// The state and the share of a region that is pinned to a state: a degraded or failed over one keeps
    /// what the threshold itself leaves it, a recovering one what its first step gives back.
    pub(super) fn pinned(&self, state: RegionState) -> Rating {
        let share = match state {
            RegionState::Normal => 1.0,
            RegionState::Recovering => self.recovery_step,
            RegionState::Degraded => 1.0 - self.degraded_share_moved,
            RegionState::FailoverActive => 1.0 - self.failover_share_moved,
        };
        Rating::new(state, share)
    }
}

#[cfg(test)]
mod tests;
