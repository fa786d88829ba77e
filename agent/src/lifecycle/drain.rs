//! When a drain is over. Pure: time comes in, as the time since the agent's start.
//!
//! It is over when the inference server has said, without a break for the settling time, that it serves
//! nothing and holds nothing. The settling time is for the routers that have not heard yet. Where the server's
//! load is unknown, a grace takes its place; where it stays busy, the deadline ends it.

use std::time::Duration;

use serde::Serialize;

/// How long a drain may take, and what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainLimits {
    pub deadline: Duration,
    /// How long the server must have been idle.
    pub settle: Duration,
    /// How long to wait where the load is unknown; at most the deadline.
    pub unknown_grace: Duration,
}

/// What is in flight on this instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    Known {
        running: u32,
        waiting: u32,
    },
    /// Nothing here could serve a request: no inference server is configured, or nothing listens.
    Nothing,
    Unknown,
}

/// Why a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drained {
    Idle,
    /// The load was unknown until the grace ended.
    GraceOver,
    /// The deadline passed with requests in flight.
    DeadlineOver,
}

/// A drain since it began.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    since: Duration,
    idle_since: Option<Duration>,
    over: Option<Drained>,
}

impl Drain {
    pub fn new(now: Duration) -> Self {
        Self { since: now, idle_since: None, over: None }
    }

    /// Why it ended, once it has.
    pub fn over(&self) -> Option<Drained> {
        self.over
    }

    /// Takes what was in flight at `sampled`. What was sampled before the drain says nothing about it:
    /// requests still came then.
    pub fn observe(
        &mut self,
        in_flight: InFlight,
        sampled: Duration,
        now: Duration,
        limits: &DrainLimits,
    ) {
        let in_flight = if sampled < self.since { InFlight::Unknown } else { in_flight };
        let elapsed = now.saturating_sub(self.since);
        let end = match in_flight {
            InFlight::Nothing | InFlight::Known { running: 0, waiting: 0 } => {
                let idle_since = *self.idle_since.get_or_insert(sampled);
                (now.saturating_sub(idle_since) >= limits.settle).then_some(Drained::Idle)
            }
            InFlight::Known { .. } => {
                self.idle_since = None;
                None
            }
            InFlight::Unknown => {
                self.idle_since = None;
                (elapsed >= limits.unknown_grace.min(limits.deadline)).then_some(Drained::GraceOver)
            }
        };
        let late = (elapsed >= limits.deadline).then_some(Drained::DeadlineOver);
        self.over = self.over.or(end).or(late);
    }
}

#[cfg(test)]
mod tests;
