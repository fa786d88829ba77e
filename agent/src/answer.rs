//! What the agent says over HTTP, as JSON. What is missing is `null`, and `checks` has the reason.

use mrgc_fleet::model::{Health, Lifecycle, Timestamp};
use serde::Serialize;

use crate::{
    enclave::status as enclave,
    gpu::status::{Gpu, Gpus},
    health::Checks,
    journal::Change,
    lifecycle::LifeView,
    reload::ConfigStatus,
    signals::{Check, Heartbeats, Host},
    state::Snapshot,
};

/// `GET /health`: the five fields that every prober reads, who answers, and why.
#[derive(Debug, Serialize)]
pub struct Brief<'a> {
    pub status: Health,
    /// Requests waiting.
    pub queue_depth: Option<u32>,
    pub avg_latency_ms: Option<f64>,
    pub model_loaded: Option<bool>,
    pub enclave_running: Option<bool>,
    /// Why `status` is not healthy.
    pub reason: Option<&'a str>,
    pub lifecycle: Lifecycle,
    pub instance: Instance<'a>,
    pub checks: &'a Checks,
}

/// `GET /health?detail`: the same, and all that is known besides.
#[derive(Debug, Serialize)]
pub struct Detail<'a> {
    #[serde(flatten)]
    pub brief: Brief<'a>,
    /// Of the last heartbeat.
    pub sequence: Option<u64>,
    /// When this was put together, by this machine's clock.
    pub at: Timestamp,
    /// Requests being served.
    pub running: Option<u32>,
    pub time_to_first_token_ms: Option<f64>,
    /// Of the inference server, 0 to 1.
    pub kv_cache_usage: Option<f64>,
    pub model_load_ms: Option<u64>,
    /// Which one it is.
    pub inference_server: Option<&'a str>,
    pub models: Option<&'a [String]>,
    /// Each GPU; `null` while NVML does not answer.
    pub gpu: Option<&'a [Gpu]>,
    /// All of them together, and the XIDs.
    pub gpus: Option<&'a Gpus>,
    pub enclave: Option<enclave::Answer<'a>>,
    pub host: Option<&'a Host>,
    pub heartbeats: &'a Heartbeats,
    pub config: &'a ConfigStatus,
    pub life: LifeView<'a>,
    /// What changed lately, oldest first.
    pub changes: Vec<&'a Change>,
}

/// `GET /readyz`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
}

/// Who answers.
#[derive(Debug, Serialize)]
pub struct Instance<'a> {
    pub id: &'a str,
    pub region: &'a str,
    pub zone: Option<&'a str>,
    pub pool: &'a str,
    pub address: &'a str,
    pub health_address: &'a str,
    pub instance_type: Option<&'a str>,
    /// `null` until the registration succeeded.
    pub generation: Option<u64>,
    pub agent_version: &'static str,
}

impl<'a> Brief<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let Snapshot { registration, signals, assessment, lifecycle, .. } = snapshot;
        let load = snapshot.load();
        Self {
            status: assessment.health,
            queue_depth: load.waiting,
            avg_latency_ms: load.avg_latency_ms,
            model_loaded: snapshot.models().map(|models| !models.is_empty()),
            enclave_running: signals.enclave.value.as_ref().map(|e| e.running > 0),
            reason: assessment.reason.as_deref(),
            lifecycle: *lifecycle,
            instance: Instance {
                id: registration.id.as_str(),
                region: registration.region.as_str(),
                zone: registration.zone.as_deref(),
                pool: registration.pool.as_str(),
                address: &registration.address,
                health_address: &registration.health_address,
                instance_type: registration.instance_type.as_deref(),
                generation: signals.store.generation,
                agent_version: env!("CARGO_PKG_VERSION"),
            },
            checks: &assessment.checks,
        }
    }
}

impl<'a> Detail<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let signals = &snapshot.signals;
        let gpus = signals.gpu.value.as_ref();
        let load = snapshot.load();
        Self {
            brief: Brief::of(snapshot),
            sequence: signals.store.sequence,
            at: snapshot.at,
            running: load.running,
            time_to_first_token_ms: load.time_to_first_token_ms,
            kv_cache_usage: load.kv_cache_usage,
            model_load_ms: snapshot.model_load_ms(),
            inference_server: signals.inference.as_ref().and_then(|polls| polls.last.server),
            models: snapshot.models(),
            gpu: gpus.map(|gpus| &gpus.gpus[..]).filter(|gpus| !gpus.is_empty()),
            gpus,
            enclave: signals.enclave.value.as_ref().map(enclave::Answer::of),
            host: signals.host.value.as_ref(),
            heartbeats: &signals.store.heartbeats,
            config: &snapshot.config,
            life: snapshot.course.view(),
            changes: snapshot.changes.iter().collect(),
        }
    }
}

impl Readiness {
    /// Ready: it is known how the machine is, the fleet was told or cannot be, and requests may come.
    pub fn of(snapshot: &Snapshot) -> Self {
        let store = &snapshot.signals.store;
        let never_tried = store.generation.is_none() && store.check == Check::unregistered();
        let reasons: Vec<String> = [
            (!snapshot.is_sampled()).then(|| "not every part was sampled yet".to_owned()),
            never_tried.then(|| "not registered yet".to_owned()),
            store.fenced.then(|| "another agent has registered the same id".to_owned()),
            (!snapshot.is_serving()).then(|| {
                let (lifecycle, health) = (snapshot.lifecycle, snapshot.assessment.health);
                format!("{}, {}: /health answers 503", lifecycle.as_str(), health.as_str())
            }),
        ]
        .into_iter()
        .flatten()
        .collect();
        Self { ready: reasons.is_empty(), reasons }
    }
}

#[cfg(test)]
mod tests;
