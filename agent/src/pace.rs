//! When a heartbeat is written: each interval, or only where it says something new. Pure.
//!
//! | | `fixed` | `adaptive` |
//! |---|---|---|
//! | lifecycle or health changed | at once | at once |
//! | a measured value moved beyond its threshold | at the next interval | at the next interval |
//! | otherwise | at the next interval | once `max_interval` is over |
//! | the store throttles | the interval doubles, up to `max_interval` | the same |
//!
//! A report carries within which the next one follows ([`Pace::promise`]), so that a reader can tell an
//! instance that has nothing to say from one that is gone.
//!
//! The thresholds are relative to what was written last, so a slow drift is told, too: after each step of
//! a fifth. `running` has none: it moves all the time, and routers count their own requests in flight.

use std::time::Duration;

use mrgc_fleet::model::Report;

use crate::config::{Heartbeat, HeartbeatMode};

/// A queue that changed by less than this share of what was written, or by less than one request, is
/// the same; so is a latency.
const RELATIVE_CHANGE: f64 = 0.2;

/// Of a utilisation between 0 and 1.
const UTILIZATION_CHANGE: f64 = 0.2;

/// Doublings of the interval: 8 times as long is slow enough for any bound that is configured.
const MAX_DOUBLINGS: u32 = 3;

/// Heartbeats in a row that must succeed before the interval is halved again.
const SUCCESSES_PER_STEP: u32 = 3;

/// How often heartbeats are written at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    config: Heartbeat,
    doublings: u32,
    /// In a row, since the interval last changed.
    successes: u32,
}

impl Pace {
    pub(crate) fn new(config: Heartbeat) -> Self {
        Self { config, doublings: 0, successes: 0 }
    }

    /// Goes on by other settings; what the store can take was not learnt from them.
    pub(crate) fn configure(&mut self, config: Heartbeat) {
        self.config = config;
    }

    /// Between two looks at whether a heartbeat should be written.
    pub(crate) fn interval(&self) -> Duration {
        let Heartbeat { interval, max_interval, .. } = self.config;
        interval.saturating_mul(1 << self.doublings).min(max_interval).max(interval)
    }

    /// Within which the next heartbeat follows, if the store takes it.
    pub(crate) fn promise(&self) -> Duration {
        match self.config.mode {
            HeartbeatMode::Fixed => self.interval(),
            HeartbeatMode::Adaptive => self.config.max_interval.max(self.interval()),
        }
    }

    /// Until the next look, where nothing has been written for `silent`: never after the silence must end.
    pub(crate) fn next_look(&self, silent: Duration) -> Duration {
        self.interval().min(self.config.max_interval.saturating_sub(silent))
    }

    /// Whether `next` should be written, now that a look is due. `written` is what the store holds
    /// for certain and `silent` the time since.
    pub(crate) fn is_due(&self, written: &Report, next: &Report, silent: Duration) -> bool {
        match self.config.mode {
            HeartbeatMode::Fixed => true,
            HeartbeatMode::Adaptive => {
                silent >= self.config.max_interval || says_more(written, next)
            }
        }
    }

    /// The store asked for fewer calls.
    pub(crate) fn throttled(&mut self) {
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        self.successes = 0;
    }

    pub(crate) fn succeeded(&mut self) {
        self.successes += 1;
        if self.successes >= SUCCESSES_PER_STEP {
            self.doublings = self.doublings.saturating_sub(1);
            self.successes = 0;
        }
    }

    /// Until the attempt after a throttled one: half an interval to a whole one, for those that were
    /// throttled together. `random` is uniform over 0 to 1.
    pub(crate) fn wait_after_throttle(&self, random: f64) -> Duration {
        self.interval().mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// Whether a reader would decide differently by `next`.
fn says_more(written: &Report, next: &Report) -> bool {
    written.lifecycle != next.lifecycle
        || written.health != next.health
        || written.enclave != next.enclave
        || written.models != next.models
        || moved(count(written.queue_depth), count(next.queue_depth), relative(1.0))
        || moved(written.avg_latency_ms, next.avg_latency_ms, relative(0.0))
        || moved(written.time_to_first_token_ms, next.time_to_first_token_ms, relative(0.0))
        || moved(written.gpu_utilization, next.gpu_utilization, |_| UTILIZATION_CHANGE)
}

fn count(count: Option<u32>) -> Option<f64> {
    count.map(f64::from)
}

/// A fifth of what was, and at least `least`.
fn relative(least: f64) -> impl Fn(f64) -> f64 {
    move |was| (RELATIVE_CHANGE * was.abs()).max(least)
}

/// Whether a value changed by its threshold or more, or began or ceased to be known. What is the same
/// has not moved, whatever the threshold.
fn moved(was: Option<f64>, is: Option<f64>, threshold: impl Fn(f64) -> f64) -> bool {
    match (was, is) {
        (Some(was), Some(is)) => {
            let change = (is - was).abs();
            // Sums of tenths are not exact: 0.7 - 0.5 is less than 0.2.
            change > 0.0 && change >= threshold(was) - 1e-9
        }
        (None, None) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
