//! What the `cleanup-validation` table holds: whether nothing of a tenant was left on an instance.

use serde::{Deserialize, Serialize};

use super::{InstanceId, PoolId, RegionId, Timestamp};

/// Bytes of a check's detail; what is longer is cut.
const MAX_DETAIL_BYTES: usize = 256;

/// One validation of an instance after it was cleaned. Stored in `cleanup-validation`, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupValidation {
    pub instance: InstanceId,
    pub region: RegionId,
    pub pool: PoolId,
    /// The instance's generation.
    pub generation: u64,
    /// Raised by each validation of a generation. With it the order of validations, whatever the clock.
    pub sequence: u64,
    /// By the instance's clock; for people.
    pub at: Timestamp,
    pub checks: Vec<CleanupCheck>,
    /// The verdict.
    pub passed: bool,
    /// When it may be removed, in seconds since 1970.
    pub expires_at: u64,
}

impl CleanupValidation {
    /// Whether these checks let an instance serve another tenant: each has to pass, and there has to be one.
    pub fn verdict(checks: &[CleanupCheck]) -> bool {
        !checks.is_empty() && checks.iter().all(|check| check.passed)
    }

    /// What did not pass.
    pub fn failures(&self) -> impl Iterator<Item = &CleanupCheck> {
        self.checks.iter().filter(|check| !check.passed)
    }
}

/// One thing that was looked at. What could not be looked at has not passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupCheck {
    pub kind: CleanupCheckKind,
    pub passed: bool,
    /// What was found, as in `pid 4711 (python3) holds GPU 2`; at most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl CleanupCheck {
    pub fn passed(kind: CleanupCheckKind) -> Self {
        Self { kind, passed: true, detail: None }
    }

    pub fn failed(kind: CleanupCheckKind, detail: &str) -> Self {
        let end = detail.floor_char_boundary(MAX_DETAIL_BYTES);
        Self { kind, passed: false, detail: Some(detail[..end].to_owned()) }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleanupCheckKind {
    /// No process computes on a GPU.
    ComputeProcesses,
    /// The GPUs' memory is back to what it was before.
    GpuMemory,
    /// The enclave is terminated.
    Enclave,
    /// The configured paths are empty.
    Paths,
    /// The configured command ended with exit code 0.
    Command,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl CleanupCheckKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ComputeProcesses => "compute_processes",
            Self::GpuMemory => "gpu_memory",
            Self::Enclave => "enclave",
            Self::Paths => "paths",
            Self::Command => "command",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_that_all_passed_are_a_pass() {
        use CleanupCheckKind::{Enclave, GpuMemory, Paths};
        let (memory, enclave) = (CleanupCheck::passed(GpuMemory), CleanupCheck::passed(Enclave));
        let paths = CleanupCheck::failed(Paths, "/scratch has 3 files");
        assert!(CleanupValidation::verdict(&[memory.clone(), enclave.clone()]));
        assert!(!CleanupValidation::verdict(&[memory, paths, enclave]));
        assert!(!CleanupValidation::verdict(&[]), "nothing was looked at");
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let check = CleanupCheck::failed(CleanupCheckKind::Paths, &"é€".repeat(100));
        let detail = check.detail.unwrap_or_default();
        assert!((MAX_DETAIL_BYTES - 3..=MAX_DETAIL_BYTES).contains(&detail.len()));
    }
}
