//! The agent's configuration: TOML and the environment (`MRGC_AGENT__…`), read and checked as one.
//!
//! `agent.example.toml` has every key with its default.

mod check;
mod raw;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mrgc_fleet::model::{Framework, InstanceId, PoolId, RegionId, Registration, Timestamp, Writer};
use mrgc_settings::Problems;
use mrgc_store::StoreConfig;
use serde::Deserialize;
use thiserror::Error;

use crate::{health::Requirements, lifecycle::DrainLimits};

/// What the names of the environment variables begin with, before `__`.
pub const ENVIRONMENT_PREFIX: &str = "MRGC_AGENT";

/// A configuration is small; whatever is larger is another file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration in which nothing is wrong.
#[derive(Clone, Debug)]
pub struct Config {
    pub instance: Instance,
    pub listen: SocketAddr,
    pub inference: Option<Inference>,
    pub gpu: Gpu,
    pub enclave: Enclave,
    pub heartbeat: Heartbeat,
    pub drain: DrainLimits,
    pub store: StoreConfig,
    pub log: Log,
}

/// Who this instance is.
#[derive(Clone, Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub region: RegionId,
    pub zone: Option<String>,
    pub subnet_id: Option<String>,
    pub subnet_cidr: Option<String>,
    pub ami_id: Option<String>,
    pub pool: PoolId,
    /// `host:port` of the inference server, as the router reaches it.
    pub address: String,
    /// `host:port` of `/health`; `None`: the host of `address` and the port that the agent listens on.
    pub health_address: Option<String>,
    pub provider: Option<String>,
    pub instance_type: Option<String>,
    pub slots: Option<u32>,
    pub cost_per_hour: Option<f64>,
    pub frameworks: Vec<Framework>,
    pub metadata: BTreeMap<String, String>,
}

/// The inference server beside the agent.
#[derive(Clone, Debug)]
pub struct Inference {
    /// As in `http://127.0.0.1:8000`, with no slash at the end.
    pub url: String,
    pub required: bool,
    pub poll_interval: Duration,
    pub timeout: Duration,
    pub latency_window: Duration,
    /// Silent polls in a row after which it is down.
    pub silent_polls: u32,
}

#[derive(Clone, Debug)]
pub struct Gpu {
    /// `None`: where the system finds `libnvidia-ml.so.1`.
    pub library: Option<String>,
    pub required: bool,
    pub interval: Duration,
    /// How long NVML may take before it counts as hung.
    pub deadline: Duration,
}

#[derive(Clone, Debug)]
pub struct Enclave {
    /// A name in PATH, or a path.
    pub nitro_cli: String,
    pub required: bool,
    pub interval: Duration,
    pub timeout: Duration,
}

/// How often heartbeats are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub mode: HeartbeatMode,
    /// Between two heartbeats, or two looks at whether one is worth writing.
    pub interval: Duration,
    /// The longest silence, where nothing changes or the store throttles.
    pub max_interval: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeartbeatMode {
    /// One every interval.
    Fixed,
    /// One where it says something new, and at least one every `max_interval`.
    #[default]
    Adaptive,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// As in `info` or `mrgc_agent=debug,info`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        // The AWS SDK's warnings repeat, at length, what the agent says itself.
        Self { format: LogFormat::Text, level: "info,aws_config=error".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is {bytes} bytes long, more than any configuration", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error(transparent)]
    Invalid(#[from] Problems),
}

impl Config {
    /// Reads the file, where there is one, and the environment over it.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let file = match file {
            Some(path) => Some((path.display().to_string(), read_file(path)?)),
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        Ok(check::check(file, environment)?)
    }

    pub fn requirements(&self) -> Requirements {
        Requirements {
            gpu: self.gpu.required,
            enclave: self.enclave.required,
            inference: self.inference.as_ref().is_some_and(|inference| inference.required),
            silent_polls: self.inference.as_ref().map_or(1, |inference| inference.silent_polls),
        }
    }
}

/// What tells this agent from another that was given the same id.
fn this_process() -> Writer {
    Writer { id: format!("{:016x}", fastrand::u64(..)), host: sysinfo::System::host_name().ok() }
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    fs::read_to_string(path).map_err(failed)
}

impl Instance {
    /// What it registers as, when the agent listens on `port`.
    pub fn registration(&self, port: u16, at: Timestamp) -> Registration {
        let health_address = self.health_address.clone().unwrap_or_else(|| {
            let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(h, _)| h);
            format!("{host}:{port}")
        });
        Registration {
            health_address,
            zone: self.zone.clone(),
            subnet_id: self.subnet_id.clone(),
            subnet_cidr: self.subnet_cidr.clone(),
            ami_id: self.ami_id.clone(),
            provider: self.provider.clone(),
            instance_type: self.instance_type.clone(),
            slots: self.slots,
            cost_per_hour: self.cost_per_hour,
            frameworks: self.frameworks.clone(),
            metadata: self.metadata.clone(),
            registered_at: at,
            writer: Some(this_process()),
            ..Registration::new(
                self.id.clone(),
                self.region.clone(),
                self.pool.clone(),
                self.address.clone(),
            )
        }
    }
}

#[cfg(test)]
mod tests;
