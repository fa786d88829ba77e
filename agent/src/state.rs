//! Everything the control loop knows: one event in, and the agent's answer and next report out. Pure.

use std::time::Duration;

use mrgc_fleet::model::{
    CleanupCheck, Desired, EnclaveState, Health, Lifecycle, Registration, Report, Timestamp,
};
use tokio::sync::oneshot;

use crate::{
    cleanup::Scope,
    gpu::status::{Gpu, Gpus},
    health::{Assessment, Requirements, assess},
    journal::Changes,
    lifecycle::{Course, DrainLimits, Drained, InFlight, Kept, Milestone, Order, Refusal},
    notices::Notice,
    reload::ConfigStatus,
    signals::{Check, Enclaves, Heartbeats, Host, Inference, Load, Reading, Signals},
};

/// The models' names take at most this much of a report, so that a heartbeat stays one write unit.
/// `/health` has them all.
const REPORTED_MODELS_BYTES: usize = 384;

/// What happened.
#[derive(Debug)]
pub enum Event {
    Gpu(Reading<Gpus>),
    Host(Reading<Host>),
    Inference(Inference),
    Enclave(Reading<Enclaves>),
    Store(StoreEvent),
    /// The settings were read again.
    Reconfigured {
        requirements: Requirements,
        limits: DrainLimits,
    },
    /// What the cloud says, and how it was read.
    Notices {
        notices: Vec<Notice>,
        check: Check,
    },
    /// Somebody on this machine wants something.
    Order {
        order: Order,
        reply: oneshot::Sender<Result<Lifecycle, Refusal>>,
    },
    /// What a cleanup looks at outside of the readings was looked at.
    Cleaned {
        run: u64,
        checks: Vec<CleanupCheck>,
    },
    /// Whether what must outlive the process was written.
    Kept(Check),
    /// The process is to end: no new requests.
    Drain,
    /// Time passed.
    Tick,
}

/// What the store's task has to tell.
#[derive(Debug)]
pub enum StoreEvent {
    Registered {
        generation: u64,
        desired: Option<Desired>,
    },
    /// What is wanted of the instance was read.
    Desired(Option<Desired>),
    /// The findings of a cleanup were written.
    Recorded {
        run: u64,
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
    course: Course,
}

/// One consistent view of the state, for `/health` and for heartbeats.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub registration: Registration,
    pub signals: Signals,
    pub assessment: Assessment,
    pub lifecycle: Lifecycle,
    pub course: Course,
    pub config: ConfigStatus,
    pub changes: Changes,
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
            course: Course::new(Scope::default(), Kept::default(), Duration::ZERO),
        }
    }

    /// With what a cleanup looks at, and what an earlier process left.
    #[must_use]
    pub fn with_past(mut self, scope: Scope, kept: Kept) -> Self {
        self.course = Course::new(scope, kept, Duration::ZERO);
        self
    }

    /// Takes one event. `now` is the time since the agent's start.
    pub fn apply(&mut self, event: Event, now: Duration) {
        match event {
            Event::Gpu(reading) => {
                self.signals.gpu = reading;
                self.course.gpu_sampled(&self.signals, now);
            }
            Event::Host(reading) => self.signals.host = reading,
            Event::Enclave(reading) => {
                self.signals.enclave = reading;
                self.course.enclave_sampled();
            }
            Event::Inference(poll) => {
                if let Some(polls) = &mut self.signals.inference {
                    polls.add(poll);
                }
            }
            Event::Store(event) => self.apply_store(event, now),
            Event::Notices { notices, check } => self.course.noticed(notices, check, now),
            Event::Order { order, reply } => {
                // Who asked may be gone.
                let obeyed = self.course.obey(order, &self.signals, now);
                let _ = reply.send(obeyed.map(|()| self.course.life.phase()));
            }
            Event::Cleaned { run, checks } => self.course.looked(run, checks, now),
            Event::Kept(check) => self.course.keeping = check,
            Event::Reconfigured { requirements, limits } => {
                (self.requirements, self.limits) = (requirements, limits);
            }
            Event::Drain => self.course.life.terminate(now),
            Event::Tick => {}
        }
        let sampled = self.signals.inference.as_ref().map_or(now, |polls| polls.last.asked);
        let in_flight = self.in_flight();
        self.course.step(&self.signals, in_flight, sampled, now, &self.limits);
    }

    fn apply_store(&mut self, event: StoreEvent, now: Duration) {
        let link = &mut self.signals.store;
        match event {
            StoreEvent::Registered { generation, desired } => {
                link.generation = Some(generation);
                link.check = Check::ok();
                self.registration.generation = generation;
                self.course.registered(desired, now);
            }
            StoreEvent::Desired(desired) => self.course.life.wish(desired, now),
            StoreEvent::Recorded { run } => self.course.recorded(run, now),
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

    /// Why the drain ended that the process was asked to end by, once it has.
    pub fn drained(&self) -> Option<Drained> {
        self.course.life.is_over().then(|| self.course.life.drained().unwrap_or(Drained::Idle))
    }

    /// Whether time alone may move it on: it drains, or is being cleaned.
    pub fn waits(&self) -> bool {
        self.course.waits()
    }

    /// What only a step in life changes.
    pub fn milestone(&self) -> Milestone {
        self.course.milestone()
    }

    pub fn snapshot(&self, at: Timestamp) -> Snapshot {
        Snapshot {
            registration: self.registration.clone(),
            signals: self.signals.clone(),
            assessment: assess(&self.signals, &self.requirements),
            lifecycle: self.course.life.phase(),
            course: self.course.clone(),
            config: ConfigStatus::default(),
            changes: Changes::default(),
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
    /// Whether each part of the machine was asked at least once, whatever it said.
    pub fn is_sampled(&self) -> bool {
        let Signals { gpu, host, inference, enclave, .. } = &self.signals;
        let asked = [Some(&gpu.check), Some(&host.check), Some(&enclave.check)];
        let polled = inference.as_ref().map(|polls| &polls.last.load.check);
        asked.into_iter().chain([polled]).flatten().all(|check| *check != Check::unasked())
    }

    /// Whether load balancers should send requests here: what decides between 200 and 503.
    pub fn is_serving(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Registering | Lifecycle::Available)
            && self.assessment.health != Health::Unhealthy
    }

    /// Why it does not serve, or not well.
    pub fn reason(&self) -> Option<String> {
        let reasons = [self.course.life.reason(), self.assessment.reason.clone()];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    pub fn load(&self) -> Load {
        let polls = self.signals.inference.as_ref();
        polls.and_then(|polls| polls.last.load.value.clone()).unwrap_or_default()
    }

    /// The names of the models served; `None` where that is unknown.
    pub fn models(&self) -> Option<&[String]> {
        self.signals.inference.as_ref()?.last.models.value.as_deref()
    }

    /// How long the model that is ready took to load, where that was seen.
    pub fn model_load_ms(&self) -> Option<u64> {
        self.signals.inference.as_ref()?.last.model_load_ms
    }

    /// The heartbeat that says this. The store cuts a reason that would make it too long.
    pub fn report(&self, generation: u64, sequence: u64) -> Report {
        let load = self.load();
        let gpus = self.signals.gpu.value.as_ref().map_or(&[][..], |gpus| &gpus.gpus);
        let running = self.signals.enclave.value.as_ref().is_some_and(|e| e.running > 0);
        Report {
            at: self.at,
            lifecycle: self.lifecycle,
            health: self.assessment.health,
            reason: self.reason(),
            model_load_ms: self.model_load_ms(),
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
    let sum: f64 = gpus.iter().map(|gpu| gpu.sample.utilization).sum::<Option<f64>>()?;
    (!gpus.is_empty()).then(|| sum / gpus.len() as f64)
}

fn memory_free(gpus: &[Gpu]) -> Option<u64> {
    let free = |gpu: &Gpu| {
        let total = gpu.sample.memory_total_bytes?;
        Some(total.saturating_sub(gpu.sample.memory_used_bytes?))
    };
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
