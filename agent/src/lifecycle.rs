//! Where the instance is in its life, and when a drain is over. Pure: time comes in.
//!
//! ```text
//!  Registering ──registered──► Available ──drain──► Draining ──idle, deadline or grace──► Terminated
//!       └──────────────────────drain───────────────────▲
//! ```
//!
//! A drain is over when the inference server has said, without a break for the settling time, that it serves
//! nothing and holds nothing. The settling time is for the routers that have not heard yet. Where the server's
//! load is unknown, a grace takes its place; where it stays busy, the deadline ends it.
//!
//! Time is the time since the agent's start.

use std::time::Duration;

use mrgc_fleet::model::Lifecycle;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    Idle,
    /// The load was unknown until the grace ended.
    GraceOver,
    /// The deadline passed with this in flight.
    DeadlineOver(InFlight),
}

#[derive(Clone, Copy, Debug)]
struct Drain {
    since: Duration,
    idle_since: Option<Duration>,
}

/// The instance's life.
#[derive(Clone, Debug)]
pub struct Life {
    phase: Lifecycle,
    drain: Option<Drain>,
}

impl Life {
    pub fn new() -> Self {
        Self { phase: Lifecycle::Registering, drain: None }
    }

    pub fn phase(&self) -> Lifecycle {
        self.phase
    }

    /// The store has accepted the registration.
    pub fn registered(&mut self) {
        if self.phase == Lifecycle::Registering {
            self.phase = Lifecycle::Available;
        }
    }

    /// No new requests from here on. A second call changes nothing.
    pub fn drain(&mut self, now: Duration) {
        if matches!(self.phase, Lifecycle::Registering | Lifecycle::Available) {
            self.phase = Lifecycle::Draining;
            self.drain = Some(Drain { since: now, idle_since: None });
        }
    }

    /// Takes what was in flight at `sampled` and says whether the drain is over at `now`.
    ///
    /// What was sampled before the drain says nothing about it: requests still came then.
    pub fn observe(
        &mut self,
        in_flight: InFlight,
        sampled: Duration,
        now: Duration,
        limits: &DrainLimits,
    ) -> Option<Drained> {
        let drain = self.drain.as_mut().filter(|_| self.phase == Lifecycle::Draining)?;
        let in_flight = if sampled < drain.since { InFlight::Unknown } else { in_flight };
        let elapsed = now.saturating_sub(drain.since);
        let end = match in_flight {
            InFlight::Nothing | InFlight::Known { running: 0, waiting: 0 } => {
                let idle_since = *drain.idle_since.get_or_insert(sampled);
                (now.saturating_sub(idle_since) >= limits.settle).then_some(Drained::Idle)
            }
            InFlight::Known { .. } => {
                drain.idle_since = None;
                None
            }
            InFlight::Unknown => {
                drain.idle_since = None;
                (elapsed >= limits.unknown_grace.min(limits.deadline)).then_some(Drained::GraceOver)
            }
        };
        let end =
            end.or((elapsed >= limits.deadline).then_some(Drained::DeadlineOver(in_flight)))?;
        self.phase = Lifecycle::Terminated;
        Some(end)
    }
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
