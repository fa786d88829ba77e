//! Reloading: which settings hold at once, and which wait for a restart. Pure but for `Cadence`.
//!
//! A configuration with an error changes nothing: the settings from before hold, and the error is shown until
//! a reload succeeds.

use std::time::Duration;

use mrgc_fleet::model::Timestamp;
use mrgc_settings::Written;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{self, Interval, MissedTickBehavior},
};

use crate::{
    config::{self, Config},
    health::Requirements,
    lifecycle::DrainLimits,
    supervisor::Reload,
};

/// The keys of the settings in [`Live`], and the log's level, which the program itself applies. Whatever is
/// not here needs a restart.
const LIVE_KEYS: [&str; 16] = [
    "drain.deadline_seconds",
    "drain.settle_seconds",
    "drain.unknown_grace_seconds",
    "enclave.interval_ms",
    "enclave.required",
    "enclave.timeout_ms",
    "gpu.deadline_ms",
    "gpu.interval_ms",
    "gpu.required",
    "heartbeat.interval_seconds",
    "heartbeat.max_interval_seconds",
    "heartbeat.mode",
    "inference.poll_interval_ms",
    "inference.required",
    "inference.silent_polls",
    "log.level",
];

/// For a server that was taken out of the settings, and is polled until the restart.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The settings that may change while the agent runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    pub(crate) requirements: Requirements,
    pub(crate) drain: DrainLimits,
    pub(crate) heartbeat: config::Heartbeat,
    pub(crate) gpu_interval: Duration,
    pub(crate) gpu_deadline: Duration,
    pub(crate) enclave_interval: Duration,
    pub(crate) enclave_timeout: Duration,
    pub(crate) inference_poll_interval: Duration,
}

impl Live {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            requirements: config.requirements(),
            drain: config.drain,
            heartbeat: config.heartbeat,
            gpu_interval: config.gpu.interval,
            gpu_deadline: config.gpu.deadline,
            enclave_interval: config.enclave.interval,
            enclave_timeout: config.enclave.timeout,
            inference_poll_interval: config
                .inference
                .as_ref()
                .map_or(DEFAULT_POLL_INTERVAL, |inference| inference.poll_interval),
        }
    }
}

/// How the configuration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigStatus {
    /// When the settings that hold were taken over; `null`: at the start.
    pub reloaded_at: Option<Timestamp>,
    /// Why the last reload was refused: the settings from before it hold.
    pub error: Option<String>,
    /// Keys that are set otherwise than at the start, and wait for a restart.
    pub restart_needed: Vec<String>,
    pub reloads: u64,
    pub failed_reloads: u64,
}

/// The settings that hold, and what was made of each reload.
#[derive(Debug)]
pub(crate) struct Settings {
    started: Written,
    written: Written,
    live: Live,
    status: ConfigStatus,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            started: config.written.clone(),
            written: config.written.clone(),
            live: Live::of(config),
            status: ConfigStatus::default(),
        }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn status(&self) -> &ConfigStatus {
        &self.status
    }

    /// Takes over what can be, and gives the keys whose new values hold now.
    pub(crate) fn take(&mut self, reload: Reload, at: Timestamp) -> Vec<String> {
        let status = &mut self.status;
        let config = match reload {
            Ok(config) => config,
            Err(error) => {
                status.failed_reloads += 1;
                status.error = Some(error.to_string());
                return Vec::new();
            }
        };
        let is_live = |key: &String| LIVE_KEYS.contains(&key.as_str());
        let mut restart_needed = self.started.changes(&config.written);
        restart_needed.retain(|key| !is_live(key));
        *status = ConfigStatus {
            reloaded_at: Some(at),
            error: None,
            restart_needed,
            reloads: status.reloads + 1,
            failed_reloads: status.failed_reloads,
        };
        let mut applied = self.written.changes(&config.written);
        applied.retain(is_live);
        self.live = Live::of(&config);
        self.written = config.written;
        applied
    }
}

/// Ticks at an interval that may change meanwhile.
#[derive(Debug)]
pub(crate) struct Cadence {
    settings: watch::Receiver<Live>,
    interval: fn(&Live) -> Duration,
    ticks: Interval,
}

impl Cadence {
    /// Begins with a tick at once.
    pub(crate) fn new(settings: watch::Receiver<Live>, interval: fn(&Live) -> Duration) -> Self {
        let ticks = ticks(interval(&settings.borrow()), Duration::ZERO);
        Self { settings, interval, ticks }
    }

    pub(crate) async fn tick(&mut self) {
        loop {
            let Self { settings, interval, ticks } = self;
            tokio::select! {
                _ = ticks.tick() => return,
                Ok(()) = settings.changed() => {
                    let interval = interval(&settings.borrow());
                    if interval != ticks.period() {
                        *ticks = self::ticks(interval, interval);
                    }
                }
            }
        }
    }
}

fn ticks(interval: Duration, first: Duration) -> Interval {
    let mut ticks = time::interval_at(time::Instant::now() + first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests;
