//! The body of `GET /health`: the five fields that every prober reads, and after them everything else.

use mrgc_fleet::model::{Gpu, Health, Lifecycle, Timestamp};
use serde::Serialize;

use crate::{
    health::Checks,
    signals::{Enclaves, Heartbeats, Host},
    state::Snapshot,
};

/// What is missing is `null`, and `checks` has the reason.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
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
    /// Of the last heartbeat.
    pub sequence: Option<u64>,
    /// When this was put together, by this machine's clock.
    pub at: Timestamp,
    /// Requests being served.
    pub running: Option<u32>,
    pub time_to_first_token_ms: Option<f64>,
    pub models: Option<&'a [String]>,
    pub gpu: Option<&'a [Gpu]>,
    pub enclave: Option<&'a Enclaves>,
    pub host: Option<&'a Host>,
    pub heartbeats: &'a Heartbeats,
    pub checks: &'a Checks,
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

impl<'a> Answer<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let Snapshot { registration, signals, assessment, lifecycle, at } = snapshot;
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
            sequence: signals.store.sequence,
            at: *at,
            running: load.running,
            time_to_first_token_ms: load.time_to_first_token_ms,
            models: snapshot.models(),
            gpu: signals.gpu.value.as_deref(),
            enclave: signals.enclave.value.as_ref(),
            host: signals.host.value.as_ref(),
            heartbeats: &signals.store.heartbeats,
            checks: &assessment.checks,
        }
    }
}
