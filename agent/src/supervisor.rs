//! The service manager, as the control loop deals with it: it hears how the agent is, and asks for reloads.
//!
//! | when | it hears |
//! |---|---|
//! | every part of the machine was sampled once | `READY=1` |
//! | health or lifecycle changed, or a reload was refused | `STATUS=` in a line for people |
//! | twice in the watchdog's time | `WATCHDOG=1`, as long as the control loop turns |
//! | a reload begins, and ends | `RELOADING=1`, `READY=1` |
//! | the agent goes | `STOPPING=1`, and how long that may take |

use std::{future, time::Duration};

use tokio::{
    sync::mpsc,
    time::{self, Interval, MissedTickBehavior},
};

use crate::{
    config::{Config, ConfigError},
    notify::Notifier,
    state::Snapshot,
};

/// `systemctl status` shows one line.
const MAX_STATUS_BYTES: usize = 256;

/// The configuration, read again.
pub type Reload = Result<Box<Config>, ConfigError>;

/// What the service manager was told, and its requests.
#[derive(Debug)]
pub struct Supervisor {
    notifier: Notifier,
    feeding: Option<Interval>,
    reloads: mpsc::Receiver<Reload>,
    is_ready: bool,
    status: String,
}

impl Supervisor {
    /// `notifier` is told, and what comes by `reloads` is applied.
    pub fn new(notifier: Notifier, reloads: mpsc::Receiver<Reload>) -> Self {
        Self { notifier, feeding: None, reloads, is_ready: false, status: String::new() }
    }

    /// There is none: nobody is told, and nothing is asked.
    pub fn absent() -> Self {
        let (_, no_reloads) = mpsc::channel(1);
        Self::new(Notifier::absent(), no_reloads)
    }

    /// Feeds the watchdog until a reload is asked for.
    ///
    /// The control loop polls this each time it turns, and nobody else does: where the loop is stuck the
    /// watchdog starves, and where only a part of the machine is stuck it does not.
    pub(crate) async fn next_reload(&mut self) -> Reload {
        let Self { notifier, feeding, reloads, .. } = self;
        if let (None, Some(interval)) = (&feeding, notifier.feeding_interval()) {
            let mut ticks = time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            *feeding = Some(ticks);
        }
        loop {
            let tick = async {
                match feeding {
                    Some(ticks) => ticks.tick().await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                Some(reload) = reloads.recv() => return reload,
                _ = tick => notifier.send("WATCHDOG=1"),
            };
        }
    }

    /// Tells what is new since the last time.
    pub(crate) fn observe(&mut self, snapshot: &Snapshot) {
        let mut lines = Vec::new();
        let is_ready = self.is_ready || snapshot.is_sampled();
        if is_ready && !self.is_ready {
            lines.push("READY=1".to_owned());
        }
        let status = status(snapshot);
        if status != self.status {
            lines.push(format!("STATUS={status}"));
        }
        // What was not taken is said again with the next snapshot.
        if !lines.is_empty() && self.notifier.send(&lines.join("\n")) {
            (self.is_ready, self.status) = (is_ready, status);
        }
    }

    /// A reload is over, whatever came of it: the next snapshot says so.
    pub(crate) fn reloaded(&mut self) {
        self.is_ready = false;
    }

    /// The agent goes, and may take this long.
    pub(crate) fn stopping(&self, limit: Duration) {
        self.notifier.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", limit.as_micros()));
    }
}

/// As in `available, degraded: gpu: NVML has not answered for 4 s`.
fn status(snapshot: &Snapshot) -> String {
    let (lifecycle, health) = (snapshot.lifecycle.as_str(), snapshot.assessment.health.as_str());
    let mut text = format!("{lifecycle}, {health}");
    if let Some(reason) = snapshot.reason() {
        text.push_str(": ");
        text.push_str(&reason);
    }
    if let Some(error) = &snapshot.config.error {
        text.insert_str(0, &format!("reload refused ({error}); "));
    }
    let mut line = text.replace(['\n', '\r'], "; ");
    line.truncate(line.floor_char_boundary(MAX_STATUS_BYTES));
    line
}

#[cfg(test)]
mod tests;
