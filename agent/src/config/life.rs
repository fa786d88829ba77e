//! What concerns the instance's life: who it is, what the cloud announces, how it is cleaned.

use std::{path::PathBuf, time::Duration};

use mrgc_settings::Layers;
use serde::Deserialize;

use super::{
    check::{check_url, millis, seconds, within},
    raw,
};

const IMDS: &str = "http://169.254.169.254";

/// More paths than anybody cleans between two tenants.
const MAX_PATHS: usize = 64;

/// Where the rest of the identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub source: IdentitySource,
    /// As in `http://169.254.169.254`, with no slash at the end.
    pub endpoint: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// EC2, where the configuration does not say all that is needed.
    #[default]
    Auto,
    /// EC2, and it must answer.
    Imds,
    /// The configuration alone.
    Config,
}

/// What the cloud says of this instance's future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notices {
    /// `None`: where EC2 gave the identity, or `instance.provider` is "aws".
    pub enabled: Option<bool>,
    pub interval: Duration,
    pub rebalance: OnRebalance,
    /// How long before scheduled maintenance the drain begins.
    pub maintenance_lead: Duration,
    /// The lifecycle hook whose action is completed after a drain; `None`: none is.
    pub lifecycle_hook: Option<String>,
    /// `None`: by the instance's tags, where IMDS shows them.
    pub auto_scaling_group: Option<String>,
    /// `None`: the service's own.
    pub auto_scaling_endpoint: Option<String>,
}

/// What a rebalance recommendation begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRebalance {
    Drain,
    /// It is shown, and that is all: without a replacement, a drain only loses capacity.
    #[default]
    Ignore,
}

/// What is looked at before an instance serves again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// Also after a drain that was called off once nothing was in flight; else on request alone.
    pub after_drain: bool,
    pub compute_processes: bool,
    /// What a GPU may hold at most; `None`: it is not looked at.
    pub gpu_memory_bytes: Option<u64>,
    pub enclave: bool,
    /// Each must be absent, or an empty directory.
    pub paths: Vec<PathBuf>,
    /// A program and its arguments, run first; empty: none.
    pub command: Vec<String>,
    pub command_timeout: Duration,
    /// How long the GPUs and the enclave may take to let go.
    pub patience: Duration,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            after_drain: false,
            compute_processes: true,
            gpu_memory_bytes: Some(1 << 30),
            enclave: true,
            paths: Vec::new(),
            command: Vec::new(),
            command_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(120),
        }
    }
}

pub(super) fn identity(layers: &mut Layers, raw: raw::Identity) -> Identity {
    let endpoint = raw.endpoint.unwrap_or_else(|| IMDS.to_owned());
    check_url(layers, "identity.endpoint", &endpoint, &["http"]);
    Identity { source: raw.source, endpoint: endpoint.trim_end_matches('/').to_owned() }
}

pub(super) fn notices(layers: &mut Layers, raw: raw::Notices) -> Notices {
    let interval = millis(layers, "notices.interval_ms", raw.interval_ms, 5_000, 100..=60_000);
    let lead = raw.maintenance_lead_seconds;
    let maintenance_lead =
        seconds(layers, "notices.maintenance_lead_seconds", lead, 600, 0..=7 * 24 * 3_600);
    if let Some(endpoint) = &raw.auto_scaling_endpoint {
        check_url(layers, "notices.auto_scaling_endpoint", endpoint, &["http", "https"]);
    }
    for (key, name) in [
        ("notices.lifecycle_hook", &raw.lifecycle_hook),
        ("notices.auto_scaling_group", &raw.auto_scaling_group),
    ] {
        if name.as_deref() == Some("") {
            layers.reject(key, "is empty: give its name, or leave it out");
        }
    }
    Notices {
        enabled: raw.enabled,
        interval,
        rebalance: raw.rebalance,
        maintenance_lead,
        lifecycle_hook: raw.lifecycle_hook,
        auto_scaling_group: raw.auto_scaling_group,
        auto_scaling_endpoint: raw.auto_scaling_endpoint,
    }
}

pub(super) fn cleanup(layers: &mut Layers, raw: raw::Cleanup) -> Cleanup {
    if raw.paths.len() > MAX_PATHS {
        let count = raw.paths.len();
        layers.reject("cleanup.paths", format!("has {count} entries: {MAX_PATHS} at most"));
    }
    for path in raw.paths.iter().filter(|path| !path.starts_with('/')) {
        layers.reject(
            "cleanup.paths",
            format!("has \"{path}\": give a path from the root, as in /scratch"),
        );
    }
    if raw.command.first().is_some_and(String::is_empty) {
        layers.reject(
            "cleanup.command",
            "begins with an empty name: give a program and its arguments",
        );
    }
    let mib = within(layers, "cleanup.gpu_memory_mib", raw.gpu_memory_mib, 1_024, 0..=1 << 20);
    let timeout = raw.command_timeout_seconds;
    let command_timeout =
        seconds(layers, "cleanup.command_timeout_seconds", timeout, 60, 1..=3_600);
    let patience =
        seconds(layers, "cleanup.patience_seconds", raw.patience_seconds, 120, 0..=3_600);
    Cleanup {
        after_drain: raw.after_drain.unwrap_or(!raw.paths.is_empty() || !raw.command.is_empty()),
        compute_processes: raw.compute_processes.unwrap_or(true),
        gpu_memory_bytes: raw.gpu_memory.unwrap_or(true).then_some(mib << 20),
        enclave: raw.enclave.unwrap_or(true),
        paths: raw.paths.into_iter().map(PathBuf::from).collect(),
        command: raw.command,
        command_timeout,
        patience,
    }
}
