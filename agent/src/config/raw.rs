//! The settings as they are written: every key optional, unknown keys refused.

use std::collections::BTreeMap;

use mrgc_fleet::model::Framework;
use mrgc_store::StoreConfig;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) listen: Option<String>,
    pub(super) state_directory: Option<String>,
    pub(super) identity: Identity,
    pub(super) instance: Instance,
    pub(super) inference: Inference,
    pub(super) gpu: Gpu,
    pub(super) enclave: Enclave,
    pub(super) heartbeat: Heartbeat,
    pub(super) drain: Drain,
    pub(super) notices: Notices,
    pub(super) cleanup: Cleanup,
    pub(super) store: StoreConfig,
    pub(super) log: super::Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Instance {
    pub(super) id: Option<String>,
    pub(super) region: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) subnet_id: Option<String>,
    pub(super) subnet_cidr: Option<String>,
    pub(super) ami_id: Option<String>,
    pub(super) pool: Option<String>,
    pub(super) address: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) health_address: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) instance_type: Option<String>,
    pub(super) slots: Option<u32>,
    pub(super) cost_per_hour: Option<f64>,
    pub(super) frameworks: Vec<Framework>,
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Inference {
    pub(super) kind: super::InferenceKind,
    pub(super) url: Option<String>,
    pub(super) metrics_url: Option<String>,
    pub(super) detect: bool,
    pub(super) detect_ports: Option<Vec<u16>>,
    pub(super) metrics: Option<super::MetricNames>,
    pub(super) report_stale_seconds: Option<u64>,
    pub(super) required: Option<bool>,
    pub(super) poll_interval_ms: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) latency_window_seconds: Option<u64>,
    pub(super) silent_polls: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Gpu {
    pub(super) library: Option<String>,
    pub(super) required: bool,
    pub(super) interval_ms: Option<u64>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) rare_every: Option<u64>,
    pub(super) count: Option<u32>,
    pub(super) kernel_log: Option<String>,
    pub(super) acknowledgement_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Enclave {
    pub(super) nitro_cli: Option<String>,
    pub(super) logs_directory: Option<String>,
    pub(super) device: Option<String>,
    pub(super) allocator: Option<String>,
    pub(super) port: Option<u32>,
    pub(super) socket: Option<String>,
    pub(super) required: bool,
    pub(super) interval_ms: Option<u64>,
    pub(super) timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Heartbeat {
    pub(super) mode: super::HeartbeatMode,
    pub(super) interval_seconds: Option<u64>,
    pub(super) max_interval_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) deadline_seconds: Option<u64>,
    pub(super) settle_seconds: Option<u64>,
    pub(super) unknown_grace_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) source: super::IdentitySource,
    pub(super) endpoint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Notices {
    pub(super) enabled: Option<bool>,
    pub(super) interval_ms: Option<u64>,
    pub(super) rebalance: super::OnRebalance,
    pub(super) maintenance_lead_seconds: Option<u64>,
    pub(super) lifecycle_hook: Option<String>,
    pub(super) auto_scaling_group: Option<String>,
    pub(super) auto_scaling_endpoint: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cleanup {
    pub(super) after_drain: Option<bool>,
    pub(super) compute_processes: Option<bool>,
    pub(super) gpu_memory: Option<bool>,
    pub(super) gpu_memory_mib: Option<u64>,
    pub(super) enclave: Option<bool>,
    pub(super) paths: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) command_timeout_seconds: Option<u64>,
    pub(super) patience_seconds: Option<u64>,
}
