//! Signals → how fit this instance is to serve, and how each part answered. Pure.
//!
//! | part | says | then the instance is |
//! |---|---|---|
//! | any that is required | error, missing | unhealthy |
//! | GPU | unfit | unhealthy |
//! | GPU, host, enclave that are not | error, degraded | degraded |
//! | GPU, host, enclave that are not | missing | as the other parts are |
//! | inference server | silent, not yet for long | degraded |
//! | inference server | serves no model | unhealthy where required |
//! | inference server | half of it answers, or none is configured | degraded: whether it serves is unknown |
//! | store | silent | as the other parts are: a store says nothing about serving |
//! | store | this agent was fenced out | degraded |

use mrgc_fleet::model::Health;
use serde::Serialize;

use crate::{
    gpu::status::{Fitness, Gpus},
    signals::{Check, Enclaves, Polls, Reading, Signals, Status, StoreLink},
};

/// What must be there for the instance to be fit, and how patient the judgement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    pub gpu: bool,
    pub enclave: bool,
    pub inference: bool,
    /// Silent polls in a row after which an inference server that once answered is down.
    pub silent_polls: u32,
}

/// How each part answered, in the order that it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checks {
    pub inference: Check,
    pub model: Check,
    pub gpu: Check,
    pub enclave: Check,
    pub host: Check,
    pub store: Check,
}

impl Checks {
    /// Each with its name.
    pub fn each(&self) -> [(&'static str, &Check); 6] {
        let Self { inference, model, gpu, enclave, host, store } = self;
        [
            ("inference", inference),
            ("model", model),
            ("gpu", gpu),
            ("enclave", enclave),
            ("host", host),
            ("store", store),
        ]
    }
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    pub health: Health,
    /// Why it is not healthy: each part's reason.
    pub reason: Option<String>,
    pub checks: Checks,
}

/// A part's check, and how fit the instance is as far as this part goes.
type Verdict = (Check, Health);

/// Judges the signals.
pub fn assess(signals: &Signals, required: &Requirements) -> Assessment {
    let (inference, model) = judge_inference(signals.inference.as_ref(), required);
    let gpu = judge_gpu(&signals.gpu, required.gpu);
    let enclave = judge_enclave(&signals.enclave, required.enclave);
    let host = judge_part(&signals.host, false);
    let store = judge_store(&signals.store);

    let parts = [
        ("inference", &inference),
        ("model", &model),
        ("gpu", &gpu),
        ("enclave", &enclave),
        ("host", &host),
        ("store", &store),
    ];
    let health = parts.iter().map(|(_, (_, health))| *health).max().unwrap_or_default();
    let reasons: Vec<String> = parts
        .iter()
        .filter(|(_, (_, health))| *health != Health::Healthy)
        .filter_map(|(part, (check, _))| Some(format!("{part}: {}", check.reason.as_ref()?)))
        .collect();

    Assessment {
        health,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        checks: Checks {
            inference: inference.0,
            model: model.0,
            gpu: gpu.0,
            enclave: enclave.0,
            host: host.0,
            store: store.0,
        },
    }
}

fn judge_part<T>(reading: &Reading<T>, required: bool) -> Verdict {
    let health = match reading.check.status {
        Status::Ok => Health::Healthy,
        Status::Error | Status::Missing if required => Health::Unhealthy,
        Status::Missing => Health::Healthy,
        Status::Error | Status::Degraded => Health::Degraded,
    };
    (reading.check.clone(), health)
}

/// A GPU that is unfit makes the instance unhealthy, required or not: the model may be on it.
fn judge_gpu(reading: &Reading<Gpus>, required: bool) -> Verdict {
    let (check, health) = judge_part(reading, required);
    match &reading.value {
        Some(gpus) if gpus.verdict.fitness == Fitness::Unfit => (check, Health::Unhealthy),
        _ => (check, health),
    }
}

fn judge_enclave(reading: &Reading<Enclaves>, required: bool) -> Verdict {
    match &reading.value {
        Some(enclaves) if required && !enclaves.is_healthy() => {
            let trouble = enclaves.trouble().unwrap_or_default();
            let reason = format!("an enclave is required: {trouble}");
            (Check::error(reason), Health::Unhealthy)
        }
        // One that nobody needs may be absent; one that runs and does not answer is in trouble.
        Some(enclaves) if enclaves.running > 0 && !enclaves.is_healthy() => {
            (Check::degraded(enclaves.trouble().unwrap_or_default()), Health::Degraded)
        }
        _ => judge_part(reading, required),
    }
}

/// The verdicts on the server's load and on its models.
fn judge_inference(polls: Option<&Polls>, required: &Requirements) -> (Verdict, Verdict) {
    let down = if required.inference { Health::Unhealthy } else { Health::Degraded };
    let Some(Polls { last, silent, answered_once }) = polls else {
        let check = Check::missing(
            "no inference server is configured: set inference.url, inference.detect or inference.kind",
        );
        return ((check.clone(), Health::Degraded), (check, Health::Degraded));
    };
    if last.is_silent() {
        let is_down = !last.reachable || !answered_once || *silent >= required.silent_polls;
        let health = if is_down { down } else { Health::Degraded };
        return ((last.load.check.clone(), health), (last.models.check.clone(), health));
    }
    let load = match last.load.check.status {
        Status::Ok => Health::Healthy,
        _ => Health::Degraded,
    };
    let model = match &last.models.value {
        Some(models) if models.is_empty() => match last.models.check.status {
            Status::Ok => (Check::error("the server lists no model"), down),
            _ => (last.models.check.clone(), down),
        },
        Some(_) => (last.models.check.clone(), Health::Healthy),
        None => (last.models.check.clone(), Health::Degraded),
    };
    ((last.load.check.clone(), load), model)
}

fn judge_store(store: &StoreLink) -> Verdict {
    let health = if store.fenced { Health::Degraded } else { Health::Healthy };
    (store.check.clone(), health)
}

#[cfg(test)]
mod tests;
