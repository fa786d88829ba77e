//! Everything the control loop knows: one event in, and the agent's answer and next report out. Pure.

use std::time::Duration;

use mrgc_fleet::model::{EnclaveState, Gpu, Health, Lifecycle, Registration, Report, Timestamp};

use crate::{
    health::{Assessment, Requirements, assess},
    lifecycle::{DrainLimits, Drained, InFlight, Life},
    signals::{Check, Enclaves, Heartbeats, Host, Inference, Load, Reading, Signals},
};

/// The models' names take at most this much of a report, so that a heartbeat stays one write unit.
/// `/health` has them all.
const REPORTED_MODELS_BYTES: usize = 384;

/// What happened.
#[derive(Debug)]
pub enum Event {
    Gpu(Reading<Vec<Gpu>>),
    Host(Reading<Host>),
    Inference(Inference),
    Enclave(Reading<Enclaves>),
    Store(StoreEvent),
    /// The machine is to go: no new requests.
    Drain,
    /// Time passed.
    Tick,
}

/// What the store's task has to tell.
#[derive(Debug)]
pub enum StoreEvent {
    Registered {
        generation: u64,
    },
    /// A heartbeat was written.
    Written {
        sequence: u64,
    },
    /// How many heartbeats there were so far, whatever came of them.
    Counted(Heartbeats),
    /// A registration or a heartbeat was not written; it is tried again.
    Failed {
        sequence: Option<u64>,
        reason: String,
    },
    /// Another agent has registered the same id, or somebody removed the instance.
    Fenced {
        reason: String,
    },
}

/// The agent's state of mind.
#[derive(Debug)]
pub struct State {
    registration: Registration,
    signals: Signals,
    requirements: Requirements,
    limits: DrainLimits,
    life: Life,
    drained: Option<Drained>,
}

/// One consistent view of the state, for `/health` and for heartbeats.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub registration: Registration,
    pub signals: Signals,
    pub assessment: Assessment,
    pub lifecycle: Lifecycle,
    /// By this machine's clock.
    pub at: Timestamp,
}

impl State {
    pub fn new(
        registration: Registration,
        has_inference: bool,
        requirements: Requirements,
        limits: DrainLimits,
    ) -> Self {
        Self {
            registration,
            signals: Signals::none(has_inference),
            requirements,
            limits,
            life: Life::new(),
            drained: None,
        }
    }

    /// Takes one event. `now` is the time since the agent's start.
    pub fn apply(&mut self, event: Event, now: Duration) {
        match event {
            Event::Gpu(reading) => self.signals.gpu = reading,
            Event::Host(reading) => self.signals.host = reading,
            Event::Enclave(reading) => self.signals.enclave = reading,
            Event::Inference(poll) => {
                if let Some(polls) = &mut self.signals.inference {
                    polls.add(poll);
                }
            }
            Event::Store(event) => self.apply_store(event),
            Event::Drain => self.life.drain(now),
            Event::Tick => {}
        }
        let sampled = self.signals.inference.as_ref().map_or(now, |polls| polls.last.asked);
        let end = self.life.observe(self.in_flight(), sampled, now, &self.limits);
        self.drained = self.drained.or(end);
    }

    fn apply_store(&mut self, event: StoreEvent) {
        let link = &mut self.signals.store;
        match event {
            StoreEvent::Registered { generation } => {
                link.generation = Some(generation);
                link.check = Check::ok();
                self.registration.generation = generation;
                self.life.registered();
            }
            StoreEvent::Written { sequence } => {
                link.sequence = Some(sequence);
                link.check = Check::ok();
            }
            StoreEvent::Counted(heartbeats) => link.heartbeats = heartbeats,
            StoreEvent::Failed { sequence, reason } => {
                link.sequence = sequence.or(link.sequence);
                link.check = Check::degraded(reason);
            }
            StoreEvent::Fenced { reason } => {
                link.fenced = true;
                link.check = Check::error(format!("fenced: {reason}"));
            }
        }
    }

    /// Why the drain ended, once it has.
    pub fn drained(&self) -> Option<Drained> {
        self.drained
    }

    pub fn snapshot(&self, at: Timestamp) -> Snapshot {
        Snapshot {
            registration: self.registration.clone(),
            signals: self.signals.clone(),
            assessment: assess(&self.signals, &self.requirements),
            lifecycle: self.life.phase(),
            at,
        }
    }

    fn in_flight(&self) -> InFlight {
        let Some(polls) = &self.signals.inference else { return InFlight::Nothing };
        if !polls.last.reachable {
            return InFlight::Nothing;
        }
        match polls.last.load.value {
            Some(Load { running: Some(running), waiting: Some(waiting), .. }) => {
                InFlight::Known { running, waiting }
            }
            _ => InFlight::Unknown,
        }
    }
}

impl Snapshot {
    /// Whether load balancers should send requests here: what decides between 200 and 503.
    pub fn is_serving(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Registering | Lifecycle::Available)
            && self.assessment.health != Health::Unhealthy
    }

    pub fn load(&self) -> Load {
        let polls = self.signals.inference.as_ref();
        polls.and_then(|polls| polls.last.load.value.clone()).unwrap_or_default()
    }

    /// The names of the models served; `None` where that is unknown.
    pub fn models(&self) -> Option<&[String]> {
        self.signals.inference.as_ref()?.last.models.value.as_deref()
    }

    /// The heartbeat that says this. The store cuts a reason that would make it too long.
    pub fn report(&self, generation: u64, sequence: u64) -> Report {
        let load = self.load();
        let gpus = self.signals.gpu.value.as_deref().unwrap_or_default();
        let running = self.signals.enclave.value.as_ref().is_some_and(|e| e.running > 0);
        Report {
            at: self.at,
            lifecycle: self.lifecycle,
            health: self.assessment.health,
            reason: self.assessment.reason.clone(),
            queue_depth: load.waiting,
            running: load.running,
            avg_latency_ms: load.avg_latency_ms,
            time_to_first_token_ms: load.time_to_first_token_ms,
            models: within(self.models().unwrap_or_default(), REPORTED_MODELS_BYTES),
            enclave: if running { EnclaveState::Running } else { EnclaveState::Absent },
            gpu_utilization: mean_utilization(gpus),
            gpu_memory_free_bytes: memory_free(gpus),
            ..Report::new(
                self.registration.id.clone(),
                self.registration.region.clone(),
                generation,
                sequence,
            )
        }
    }
}

/// `None` where any GPU did not say: a mean over some would pass for one over all.
fn mean_utilization(gpus: &[Gpu]) -> Option<f64> {
    let sum: f64 = gpus.iter().map(|gpu| gpu.utilization).sum::<Option<f64>>()?;
    (!gpus.is_empty()).then(|| sum / gpus.len() as f64)
}

fn memory_free(gpus: &[Gpu]) -> Option<u64> {
    let free = |gpu: &Gpu| Some(gpu.memory_total_bytes?.saturating_sub(gpu.memory_used_bytes?));
    let sum = gpus.iter().map(free).sum::<Option<u64>>()?;
    (!gpus.is_empty()).then_some(sum)
}

/// The first names that fit into `bytes`.
fn within(names: &[String], bytes: usize) -> Vec<String> {
    let mut left = bytes;
    names
        .iter()
        .map_while(|name| {
            left = left.checked_sub(name.len())?;
            Some(name.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests;
