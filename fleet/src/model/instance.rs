//! An instance, as it registers (slow facts) and as it reports (fast facts).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Framework, InstanceId, PoolId, RegionId, Timestamp};

/// What an instance says once, when it joins. Stored in `gpu-instances`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    pub id: InstanceId,
    pub region: RegionId,
    pub pool: PoolId,
    /// `host:port` of the inference server, as the router reaches it.
    pub address: String,
    /// `host:port` of the agent's `/health`.
    pub health_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Requests it can serve at once; `None` where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<f64>,
    /// What this instance satisfies beyond what its region does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frameworks: Vec<Framework>,
    /// Free facts, as in `{"ami_id": "ami-12345"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    pub registered_at: Timestamp,
    /// Raised by each registration, so that a writer from before it loses.
    pub generation: u64,
}

/// What an instance says every few seconds. Stored in `routing-state`.
///
/// A value that was not measured is `None`: never 0, and never healthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub id: InstanceId,
    pub region: RegionId,
    pub generation: u64,
    /// Raised by each report of a generation. Freshness is its change, by the reader's clock.
    pub sequence: u64,
    /// By the instance's clock; for people, never for freshness.
    pub at: Timestamp,
    pub lifecycle: Lifecycle,
    pub health: Health,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Requests waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_depth: Option<u32>,
    /// Requests being served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_latency_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    pub enclave: EnclaveState,
    /// Mean over the instance's GPUs, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_utilization: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_free_bytes: Option<u64>,
}

/// One GPU, as NVML sees it. What the driver does not answer is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    pub index: u32,
    pub uuid: Option<String>,
    pub name: Option<String>,
    /// 0 to 1.
    pub utilization: Option<f64>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
}

/// How fit an instance is to serve.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    Degraded,
    #[default]
    Unhealthy,
}

impl Health {
    /// Its part in the routing score: 100, 50 or 0.
    pub fn score(self) -> f64 {
        match self {
            Self::Healthy => 100.0,
            Self::Degraded => 50.0,
            Self::Unhealthy => 0.0,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Where an instance is in its life. Only `Available` gets new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    Registering,
    Available,
    Draining,
    Cleaning,
    Quarantined,
    Terminated,
}

impl Lifecycle {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registering => "registering",
            Self::Available => "available",
            Self::Draining => "draining",
            Self::Cleaning => "cleaning",
            Self::Quarantined => "quarantined",
            Self::Terminated => "terminated",
        }
    }
}

/// What is known of the instance's Nitro enclave, from nothing to proof.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum EnclaveState {
    #[default]
    Absent,
    /// The agent says that one runs.
    Running,
    /// A router verified its attestation document.
    Attested,
}

/// An instance as a reader of the state knows it: its registration, and its last report if it made one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub registration: Registration,
    pub report: Option<Report>,
}
