//! What is known of the GPUs, as data. What NVML did not answer, or cannot, is `None`.

use std::fmt;

use mrgc_fleet::model::Timestamp;
use serde::Serialize;

use crate::signals::Check;

/// What a GPU, or all of them, are worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    #[default]
    Fit,
    /// It serves, but slower than it should, or not for long.
    Degraded,
    /// What it answers, or whether it does, is not to be relied on.
    Unfit,
}

/// What an operator should do, each more than the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    #[default]
    None,
    RestartApplication,
    /// Stop everything that uses the GPU, this agent included, and `nvidia-smi --gpu-reset -i INDEX`.
    ResetGpu,
    Reboot,
    /// Replace the GPU, or ask its vendor.
    ContactSupport,
}

impl Action {
    /// What to do, in words.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::RestartApplication => Some("restart the application"),
            Self::ResetGpu => Some(
                "reset the GPU: stop what uses it, this agent too, and run nvidia-smi --gpu-reset",
            ),
            Self::Reboot => Some("reboot the machine"),
            Self::ContactSupport => Some("replace the GPU, or ask its vendor"),
        }
    }
}

/// A judgement: the worst of its reasons, and the most that any of them asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub fitness: Fitness,
    pub action: Action,
    /// Empty where it is fit, and only there.
    pub reasons: Vec<String>,
}

impl Verdict {
    pub(super) fn add(&mut self, fitness: Fitness, action: Action, reason: impl Into<String>) {
        self.fitness = self.fitness.max(fitness);
        self.action = self.action.max(action);
        self.reasons.push(reason.into());
    }
}

/// The machine's GPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gpus {
    /// Over all of them.
    #[serde(flatten)]
    pub verdict: Verdict,
    pub driver_version: Option<String>,
    /// Empty while NVML does not answer.
    #[serde(skip)]
    pub gpus: Vec<Gpu>,
    /// Every XID since boot that was seen, whether or not it still counts.
    pub xids: Vec<Xid>,
    /// Whether XIDs are seen at all.
    pub xid_sources: XidSources,
    /// Rounds in which everything was asked of every GPU, or nothing answered, since the agent's start.
    pub full_rounds: u64,
    /// Calls to NVML since then.
    pub nvml_calls: u64,
}

/// One GPU and what it is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    #[serde(flatten)]
    pub sample: Sample,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What NVML said of one GPU. The first part is asked at each interval, the second more rarely.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    pub index: u32,
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub pci: Option<PciAddress>,
    /// 0 to 1; a GPU in MIG mode does not say.
    pub utilization: Option<f64>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
    pub sm_clock_mhz: Option<u32>,
    pub memory_clock_mhz: Option<u32>,
    /// Why its clocks are lower than they could be.
    pub throttle_reasons: Option<Vec<Throttle>>,
    pub remapped_rows: Option<RemappedRows>,
    /// What the driver itself asks for; drivers before 570 do not say.
    pub recovery_action: Option<Recovery>,
    /// It has fallen off the bus.
    pub is_lost: bool,
    /// NVML refuses it until it is reset.
    pub requires_reset: bool,
    /// The calls that failed, but for what the GPU or the driver does not have.
    pub failed_calls: Vec<String>,

    #[serde(flatten)]
    pub rare: Rare,
}

impl Sample {
    /// Degrees until the hardware halves the clocks; negative above.
    pub fn slowdown_margin_celsius(&self) -> Option<i64> {
        Some(i64::from(self.rare.slowdown_celsius?) - i64::from(self.temperature_celsius?))
    }

    /// Degrees until the GPU turns itself off.
    pub fn shutdown_margin_celsius(&self) -> Option<i64> {
        Some(i64::from(self.rare.shutdown_celsius?) - i64::from(self.temperature_celsius?))
    }

    /// As in reasons: `GPU 1`.
    pub(super) fn label(&self) -> String {
        format!("GPU {}", self.index)
    }
}

/// What changes rarely, or costs the driver more to find out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rare {
    pub power_limit_watts: Option<f64>,
    pub slowdown_celsius: Option<u32>,
    pub shutdown_celsius: Option<u32>,
    pub persistence_mode: Option<bool>,
    /// `None` where it has no ECC, or it is off.
    pub ecc: Option<Ecc>,
    /// `None` where it has no NVLink.
    pub nvlink: Option<NvLink>,
    pub compute_processes: Option<Vec<Process>>,
    /// `None` where MIG is off.
    pub mig_slices: Option<Vec<MigSlice>>,
}

/// Why a clock is held down. What only says that the GPU idles, or keeps its power limit, is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    SwThermalSlowdown,
    HwThermalSlowdown,
    HwPowerBrake,
    HwSlowdown,
    SwPowerCap,
    SyncBoost,
    ApplicationClocks,
}

impl Throttle {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SwThermalSlowdown => "sw_thermal_slowdown",
            Self::HwThermalSlowdown => "hw_thermal_slowdown",
            Self::HwPowerBrake => "hw_power_brake",
            Self::HwSlowdown => "hw_slowdown",
            Self::SwPowerCap => "sw_power_cap",
            Self::SyncBoost => "sync_boost",
            Self::ApplicationClocks => "application_clocks",
        }
    }
}

/// NVML's field values 142 to 145.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemappedRows {
    pub corrected: Option<u32>,
    pub uncorrected: Option<u32>,
    /// Rows are remapped at the next reset.
    pub pending: Option<bool>,
    /// There was no row left to remap to.
    pub failure: Option<bool>,
}

/// NVML's field value 230.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    None,
    ResetGpu,
    Reboot,
    /// Its peers must stop to use its memory.
    DrainPeers,
    /// It may end what it does, and is reset then.
    DrainAndReset,
    /// A value that is newer than this agent.
    Unknown(u64),
}

impl From<u64> for Recovery {
    fn from(value: u64) -> Self {
        match value {
            0 => Self::None,
            1 => Self::ResetGpu,
            2 => Self::Reboot,
            3 => Self::DrainPeers,
            4 => Self::DrainAndReset,
            other => Self::Unknown(other),
        }
    }
}

/// Memory errors: since the driver was loaded, and in the GPU's lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ecc {
    pub volatile_corrected: Option<u64>,
    pub volatile_uncorrected: Option<u64>,
    pub aggregate_corrected: Option<u64>,
    pub aggregate_uncorrected: Option<u64>,
}

/// All links together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NvLink {
    pub active: u32,
    pub inactive: u32,
    pub replay_errors: Option<u64>,
    pub recovery_errors: Option<u64>,
    pub crc_errors: Option<u64>,
}

/// A process that computes on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    pub pid: u32,
    pub memory_used_bytes: Option<u64>,
}

/// A slice of a GPU in MIG mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MigSlice {
    pub index: u32,
    pub uuid: Option<String>,
    /// With the profile, as in `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
    pub name: Option<String>,
    pub memory_total_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub compute_processes: Option<Vec<Process>>,
}

/// Where a GPU is plugged in, without its PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

impl PciAddress {
    /// From NVML's `00000000:5A:00.0` or the kernel log's `0000:5a:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, ':');
        let domain = u32::from_str_radix(parts.next()?, 16).ok()?;
        let bus = u8::from_str_radix(parts.next()?, 16).ok()?;
        let device = parts.next()?.split('.').next()?;
        Some(Self { domain, bus, device: u8::from_str_radix(device, 16).ok()? })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

impl Serialize for PciAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One kind of XID on one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Xid {
    pub pci: PciAddress,
    pub code: u32,
    pub name: &'static str,
    /// The most that any of them asked for since it was last cleared.
    pub action: Action,
    /// Whether it still counts against the GPU.
    pub is_held: bool,
    pub count: u64,
    /// By this machine's clock, as `last_seen`.
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
}

/// Where XIDs come from, and whether they do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct XidSources {
    pub nvml_events: Check,
    pub kernel_log: Check,
}

impl Default for XidSources {
    fn default() -> Self {
        Self { nvml_events: Check::unasked(), kernel_log: Check::unasked() }
    }
}
