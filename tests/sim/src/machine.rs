//! An instance: its agent, and the model server beside it.

use std::sync::Arc;

use fastrand::Rng;
use mrgc_fleet::{
    health::{Outcome, ProbeResult},
    model::{EnclaveState, Health, Lifecycle, Registration, Report},
};

use crate::{clock::Clock, journey::LegId, network::Node, plan::Instance};

/// Between two reports.
pub(crate) const BEAT_MS: u64 = 2_000;
/// How much longer a slow server takes.
const SLOWER: u64 = 20;
/// Requests that may wait in a server for each that it serves; beyond that it is busy.
const WAITING: usize = 4;
/// A server without a bound of its own has this one.
const MOST_AT_ONCE: usize = 64;

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// It stands still, and its connections stay open. What comes for it waits.
    Paused {
        until_ms: u64,
    },
    /// Whoever connects is refused.
    Killed,
    /// Nothing comes back.
    Silent,
}

/// How a model server serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Service {
    #[default]
    Well,
    Slow,
    /// 502 to everybody.
    Failing,
    /// 429 to everybody.
    Busy,
    /// Its process is gone, the agent's is not.
    Refusing,
    /// It takes connections and never answers.
    Hung,
}

/// What an agent's `/health` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReportedHealth {
    #[default]
    Honest,
    Healthy,
    Unhealthy,
    /// Healthy and unhealthy by turns, each of this length.
    Flapping {
        turn_ms: u64,
    },
    /// It takes longer than any probe waits.
    Slow,
    Garbage,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub node: Node,
    pub plan: Instance,
    pub registration: Arc<Registration>,
    /// Both processes', where the machine itself is gone.
    pub host: Life,
    pub agent: Life,
    pub service: Service,
    pub reported: ReportedHealth,
    pub clock: Clock,
    pub has_enclave: bool,
    /// Raised by each start of the agent, so that timers of an earlier one are ignored.
    pub boot: u32,
    pub sequence: u64,
    /// Requests that the server holds.
    serving: Vec<LegId>,
}

/// What a server does with a request that reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody is there to take the connection.
    Refused,
    /// The connection stands, and that is all.
    Held,
    Answered {
        outcome: Outcome,
        after_ms: u64,
    },
}

impl Machine {
    pub(crate) fn new(
        node: Node,
        plan: Instance,
        registration: Arc<Registration>,
        clock: Clock,
    ) -> Self {
        Self {
            node,
            plan,
            registration,
            host: Life::Running,
            agent: Life::Running,
            service: Service::Well,
            reported: ReportedHealth::Honest,
            clock,
            has_enclave: plan.enclave,
            boot: 0,
            sequence: 0,
            serving: Vec::new(),
        }
    }

    /// How its agent is, all told.
    pub(crate) fn agent(&self) -> Life {
        if self.host == Life::Running { self.agent } else { self.host }
    }

    /// Takes a request.
    pub(crate) fn take(&mut self, leg: LegId, rng: &mut Rng) -> Taken {
        let slots = self.plan.slots.map_or(MOST_AT_ONCE, |slots| slots as usize);
        let outcome = match self.service {
            Service::Refusing => return Taken::Refused,
            Service::Hung => return Taken::Held,
            Service::Failing => Outcome::of_status(502),
            Service::Busy => Outcome::of_status(429),
            Service::Well | Service::Slow if self.serving.len() >= slots * WAITING => {
                Outcome::of_status(429)
            }
            Service::Well | Service::Slow => Outcome::of_status(200),
        };
        let after_ms = match outcome {
            Outcome::Answered => {
                let rounds = 1 + self.serving.len() / slots;
                self.service_ms(rng) * rounds as u64
            }
            _ => rng.u64(1..20),
        };
        self.serving.push(leg);
        Taken::Answered { outcome, after_ms }
    }

    fn service_ms(&self, rng: &mut Rng) -> u64 {
        let usual = rng.u64(self.plan.service_ms / 2..=self.plan.service_ms * 3 / 2);
        if self.service == Service::Slow { usual * SLOWER } else { usual }
    }

    /// A request is done; `false` where the server lost it meanwhile.
    pub(crate) fn finish(&mut self, leg: LegId) -> bool {
        match self.serving.iter().position(|other| *other == leg) {
            Some(at) => {
                self.serving.swap_remove(at);
                true
            }
            None => false,
        }
    }

    /// The server ends: what it held is lost.
    pub(crate) fn drop_all(&mut self) -> Vec<LegId> {
        std::mem::take(&mut self.serving)
    }

    /// The next report, by the agent's own lights.
    pub(crate) fn report(&mut self, now_ms: u64) -> Report {
        self.sequence += 1;
        let Registration { id, region, generation, .. } = &*self.registration;
        let slots = self.plan.slots.map_or(MOST_AT_ONCE, |slots| slots as usize);
        let health = self.health(now_ms);
        Report {
            at: self.clock.wall(now_ms),
            lifecycle: Lifecycle::Available,
            health,
            reason: (health == Health::Unhealthy).then(|| "the server does not answer".to_owned()),
            queue_depth: Some(self.serving.len().saturating_sub(slots) as u32),
            running: Some(self.serving.len().min(slots) as u32),
            models: vec![self.registration.pool.as_str().to_owned()],
            enclave: if self.has_enclave { EnclaveState::Running } else { EnclaveState::Absent },
            next_within_ms: Some(BEAT_MS as u32),
            ..Report::new(id.clone(), region.clone(), *generation, self.sequence)
        }
    }

    /// An agent looks at whether the server answers, not at what.
    fn health(&self, now_ms: u64) -> Health {
        match (self.reported, self.service) {
            (ReportedHealth::Flapping { turn_ms }, _) if !(now_ms / turn_ms).is_multiple_of(2) => {
                Health::Unhealthy
            }
            (ReportedHealth::Healthy, _) => Health::Healthy,
            (ReportedHealth::Unhealthy, _) | (_, Service::Refusing | Service::Hung) => {
                Health::Unhealthy
            }
            _ => Health::Healthy,
        }
    }

    /// What a probe of the agent finds; `None`: no answer.
    pub(crate) fn probed(&self, now_ms: u64) -> Option<ProbeResult> {
        match (self.agent(), self.reported) {
            (Life::Killed, _) => Some(ProbeResult::Failed("connection refused".to_owned())),
            (Life::Silent | Life::Paused { .. }, _) | (_, ReportedHealth::Slow) => None,
            (_, ReportedHealth::Garbage) => {
                Some(ProbeResult::Failed("the body is no JSON".to_owned()))
            }
            _ if self.health(now_ms) == Health::Unhealthy => {
                Some(ProbeResult::Failed("status 503".to_owned()))
            }
            _ => Some(ProbeResult::Passed),
        }
    }
}
