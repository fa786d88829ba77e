//! What the parts of the machine say, as data. What was not measured is `None`, with the reason beside it.

use std::time::Duration;

use serde::Serialize;

pub use crate::enclave::status::Enclaves;
use crate::gpu::status::Gpus;

/// How a part answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It answered, but not all of it, or not well.
    Degraded,
    /// It is there, or should be, and did not answer.
    Error,
    /// It is not there, or nobody has asked yet.
    Missing,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Error, Self::Missing];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Error => "error",
            Self::Missing => "missing",
        }
    }
}

/// How a part answered, and why not better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub status: Status,
    pub reason: Option<String>,
}

impl Check {
    pub fn ok() -> Self {
        Self { status: Status::Ok, reason: None }
    }

    pub fn degraded(reason: impl Into<String>) -> Self {
        Self { status: Status::Degraded, reason: Some(reason.into()) }
    }

    pub fn error(reason: impl Into<String>) -> Self {
        Self { status: Status::Error, reason: Some(reason.into()) }
    }

    pub fn missing(reason: impl Into<String>) -> Self {
        Self { status: Status::Missing, reason: Some(reason.into()) }
    }

    /// Nobody has asked the part yet.
    pub fn unasked() -> Self {
        Self::missing("not sampled yet")
    }

    /// The store was not asked to register this agent yet.
    pub fn unregistered() -> Self {
        Self::missing("not registered yet")
    }
}

/// What a part answered last: a value where it gave one, and how it answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading<T> {
    pub value: Option<T>,
    pub check: Check,
}

impl<T> Reading<T> {
    pub fn ok(value: T) -> Self {
        Self { value: Some(value), check: Check::ok() }
    }

    /// A value, with something to say about it.
    pub fn noted(value: T, check: Check) -> Self {
        Self { value: Some(value), check }
    }

    pub fn error(reason: impl Into<String>) -> Self {
        Self { value: None, check: Check::error(reason) }
    }

    pub fn missing(reason: impl Into<String>) -> Self {
        Self { value: None, check: Check::missing(reason) }
    }

    pub fn unasked() -> Self {
        Self { value: None, check: Check::unasked() }
    }
}

/// The machine itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Host {
    pub cpus: usize,
    /// Over all CPUs since the sample before, 0 to 1; `None` in the first.
    pub cpu_utilization: Option<f64>,
    pub memory_total_bytes: u64,
    pub memory_available_bytes: u64,
    /// Over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    pub uptime_seconds: Option<u64>,
}

/// How busy the inference server is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests waiting.
    pub waiting: Option<u32>,
    /// Requests being served.
    pub running: Option<u32>,
    /// Of whole requests, over the last window in which some finished.
    pub avg_latency_ms: Option<f64>,
    pub time_to_first_token_ms: Option<f64>,
    /// How full the fullest KV cache is, 0 to 1.
    pub kv_cache_usage: Option<f64>,
}

/// One poll of the inference server.
#[derive(Clone, Debug, PartialEq)]
pub struct Inference {
    /// Which one it is, where that is known, as in `vLLM`.
    pub server: Option<&'static str>,
    pub load: Reading<Load>,
    /// The models that it serves.
    pub models: Reading<Vec<String>>,
    /// How long the model that is ready took to load, where that was seen.
    pub model_load_ms: Option<u64>,
    /// Whether anything listens there at all. Nothing can be in flight where nothing does.
    pub reachable: bool,
    /// When it was asked, since the agent's start.
    pub asked: Duration,
}

impl Inference {
    /// What was said at `asked`, by a server of which no more is known.
    pub fn new(load: Reading<Load>, models: Reading<Vec<String>>, asked: Duration) -> Self {
        Self { server: None, load, models, model_load_ms: None, reachable: true, asked }
    }

    /// Neither of its two pages answered.
    pub fn is_silent(&self) -> bool {
        self.load.value.is_none() && self.models.value.is_none()
    }
}

/// The inference server's polls so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Polls {
    pub last: Inference,
    /// Silent polls in a row, the last one included.
    pub silent: u32,
    pub answered_once: bool,
}

impl Polls {
    /// Before the first poll.
    pub fn none() -> Self {
        let last = Inference::new(Reading::unasked(), Reading::unasked(), Duration::ZERO);
        Self { last, silent: 0, answered_once: false }
    }

    pub fn add(&mut self, poll: Inference) {
        let silent = poll.is_silent();
        self.silent = if silent { self.silent.saturating_add(1) } else { 0 };
        self.answered_once |= !silent;
        self.last = poll;
    }
}

/// How the agent stands with the fleet's store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreLink {
    /// Of this agent's registration; `None` until it succeeded.
    pub generation: Option<u64>,
    /// Of the last heartbeat that was tried.
    pub sequence: Option<u64>,
    /// Another agent has registered the same id: this one writes no more.
    pub fenced: bool,
    pub check: Check,
    pub heartbeats: Heartbeats,
}

/// The heartbeats of this agent's registration, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Heartbeats {
    /// Between two at present: longer than configured while the store throttles; 0 before the first.
    pub interval_ms: u64,
    pub written: u64,
    /// Nothing had changed enough.
    pub skipped: u64,
    pub failed: u64,
    /// Of the failed ones, those that the store throttled in every attempt.
    pub throttled: u64,
    /// Throttled answers to any call, also where a retry succeeded.
    pub throttled_answers: u64,
    /// Attempts at any call after its first.
    pub retried_calls: u64,
}

/// All that health is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Signals {
    pub gpu: Reading<Gpus>,
    pub host: Reading<Host>,
    /// `None`: no inference server is configured.
    pub inference: Option<Polls>,
    pub enclave: Reading<Enclaves>,
    pub store: StoreLink,
}

impl Signals {
    /// Before anything was sampled.
    pub fn none(has_inference: bool) -> Self {
        Self {
            gpu: Reading::unasked(),
            host: Reading::unasked(),
            inference: has_inference.then(Polls::none),
            enclave: Reading::unasked(),
            store: StoreLink {
                generation: None,
                sequence: None,
                fenced: false,
                check: Check::unregistered(),
                heartbeats: Heartbeats::default(),
            },
        }
    }
}
