//! The car wash: whether nothing of a tenant is left on this instance. Pure: readings in, a verdict out.
//!
//! ```text
//!  Cleaning ──► command, then paths ──► GPUs and enclave, until they let go or patience ends ──► findings
//!               (`machine`)             (out of readings made since)
//! ```
//!
//! What is not there needs no look: a machine without a driver has no GPU to check, unless GPUs are required.
//! What cannot be looked at has not passed, and where nothing was looked at, nothing has.

mod machine;

use std::time::Duration;

use mrgc_fleet::model::{CleanupCheck, CleanupCheckKind, CleanupValidation};
use serde::Serialize;

pub(crate) use self::machine::run;
use crate::{
    config,
    gpu::status::{Gpu, Gpus, Process, Sample},
    signals::{Check, Enclaves, Reading, Status},
};

/// What a GPU still holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuUse {
    pub index: u32,
    pub memory_used_bytes: Option<u64>,
    /// The ids of the processes that compute on it.
    pub processes: Option<Vec<u32>>,
}

/// What each GPU still holds, its slices included.
pub fn uses(gpus: &Reading<Gpus>) -> Reading<Vec<GpuUse>> {
    let value = gpus.value.as_ref().map(|gpus| gpus.gpus.iter().map(use_of).collect());
    Reading { value, check: gpus.check.clone() }
}

fn use_of(gpu: &Gpu) -> GpuUse {
    let Sample { index, memory_used_bytes, rare, .. } = &gpu.sample;
    let slices = rare.mig_slices.iter().flatten().map(|slice| &slice.compute_processes);
    let of_each = std::iter::once(&rare.compute_processes).chain(slices);
    let ids = |processes: &Option<Vec<Process>>| {
        let processes = processes.as_ref()?;
        Some(processes.iter().map(|process| process.pid).collect::<Vec<u32>>())
    };
    let processes = of_each.map(ids).collect::<Option<Vec<_>>>().map(|ids| ids.concat());
    GpuUse { index: *index, memory_used_bytes: *memory_used_bytes, processes }
}

/// What was found, once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Findings {
    /// Raised by each cleanup of this process.
    pub run: u64,
    pub checks: Vec<CleanupCheck>,
}

impl Findings {
    pub fn passed(&self) -> bool {
        CleanupValidation::verdict(&self.checks)
    }

    /// What did not pass, for people.
    pub fn failure(&self) -> Option<String> {
        if self.checks.is_empty() {
            return Some("nothing could be looked at".to_owned());
        }
        let failed = self.checks.iter().filter(|check| !check.passed).map(|check| {
            let detail = check.detail.as_deref().unwrap_or("failed");
            format!("{}: {detail}", check.kind.as_str())
        });
        let failed: Vec<String> = failed.collect();
        (!failed.is_empty()).then(|| failed.join("; "))
    }
}

/// What is looked at on this machine.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub config: config::Cleanup,
    pub gpu_required: bool,
    pub enclave_required: bool,
}

impl Scope {
    pub fn of(config: &config::Config) -> Self {
        Self {
            config: config.cleanup.clone(),
            gpu_required: config.gpu.required,
            enclave_required: config.enclave.required,
        }
    }

    /// Whether there is anything to look at.
    pub fn has_any(&self, gpu: &Check, enclave: &Check) -> bool {
        let config::Cleanup { command, paths, .. } = &self.config;
        !command.is_empty() || !paths.is_empty() || self.has_gpus(gpu) || self.has_enclaves(enclave)
    }

    fn has_gpus(&self, gpu: &Check) -> bool {
        let asked = self.config.compute_processes || self.config.gpu_memory_bytes.is_some();
        asked && (self.gpu_required || gpu.status != Status::Missing)
    }

    fn has_enclaves(&self, enclave: &Check) -> bool {
        self.config.enclave && (self.enclave_required || enclave.status != Status::Missing)
    }
}

/// A look that is under way.
#[derive(Clone, Debug)]
pub struct Wash {
    run: u64,
    /// Rounds in which every GPU said what computes on it, as of the last reading.
    gpu_round: u64,
    /// Such rounds since the command and the paths were looked at.
    gpu_rounds: u32,
    enclave_readings: u32,
    /// What the command and the paths came to, and when.
    outside: Option<(Duration, Vec<CleanupCheck>)>,
}

impl Wash {
    /// `gpu_round`: how often everything was asked of the GPUs before.
    pub fn new(run: u64, gpu_round: u64) -> Self {
        Self { run, gpu_round, gpu_rounds: 0, enclave_readings: 0, outside: None }
    }

    pub fn run(&self) -> u64 {
        self.run
    }

    /// The GPUs were sampled; `full_rounds` says how often all of it was, so far.
    pub fn gpu_sampled(&mut self, full_rounds: u64) {
        self.gpu_rounds += u32::from(full_rounds > self.gpu_round && self.outside.is_some());
        self.gpu_round = full_rounds;
    }

    pub fn enclave_sampled(&mut self) {
        self.enclave_readings += u32::from(self.outside.is_some());
    }

    /// The command and the paths of this run were looked at.
    pub fn outside(&mut self, run: u64, checks: Vec<CleanupCheck>, now: Duration) {
        if run == self.run && self.outside.is_none() {
            self.outside = Some((now, checks));
        }
    }

    /// What was found; `None` while it may still become better.
    pub fn findings(
        &self,
        scope: &Scope,
        gpus: &Reading<Vec<GpuUse>>,
        enclaves: &Reading<Enclaves>,
        now: Duration,
    ) -> Option<Findings> {
        let (since, outside) = self.outside.as_ref()?;
        let mut checks = outside.clone();
        checks.extend(self.gpu_checks(scope, gpus));
        checks.extend(self.enclave_check(scope, enclaves));
        let is_over = now.saturating_sub(*since) >= scope.config.patience;
        let findings = Findings { run: self.run, checks };
        let outside_failed = outside.iter().any(|check| !check.passed);
        let is_fresh = self.has_fresh(scope, &gpus.check, &enclaves.check);
        let is_settled = is_fresh && (findings.failure().is_none() || outside_failed);
        (is_settled || is_over).then_some(findings)
    }

    /// Whether every part that is to be looked at was sampled since. The first reading that arrives may have
    /// been asked for before the look began, and does not count.
    fn has_fresh(&self, scope: &Scope, gpu: &Check, enclave: &Check) -> bool {
        let is_unknown = |check: &Check| *check == Check::unasked();
        let needs_gpus = scope.has_gpus(gpu) || is_unknown(gpu);
        let needs_enclaves = scope.has_enclaves(enclave) || is_unknown(enclave);
        (!needs_gpus || self.gpu_rounds > 1) && (!needs_enclaves || self.enclave_readings > 1)
    }

    fn gpu_checks(&self, scope: &Scope, gpus: &Reading<Vec<GpuUse>>) -> Vec<CleanupCheck> {
        use CleanupCheckKind::{ComputeProcesses, GpuMemory};
        if !scope.has_gpus(&gpus.check) {
            return Vec::new();
        }
        let known = fresh(gpus, self.gpu_rounds > 1);
        let mut checks = Vec::new();
        if scope.config.compute_processes {
            checks.push(verdict(ComputeProcesses, known.clone().and_then(no_processes)));
        }
        if let Some(limit) = scope.config.gpu_memory_bytes {
            checks.push(verdict(GpuMemory, known.and_then(|gpus| memory_within(gpus, limit))));
        }
        checks
    }

    fn enclave_check(&self, scope: &Scope, enclaves: &Reading<Enclaves>) -> Option<CleanupCheck> {
        if !scope.has_enclaves(&enclaves.check) {
            return None;
        }
        let known = fresh(enclaves, self.enclave_readings > 1);
        let gone = known.and_then(|enclaves| match enclaves.listed {
            0 => Ok(()),
            left => Err(format!("{left} enclaves are left")),
        });
        Some(verdict(CleanupCheckKind::Enclave, gone))
    }
}

/// What was read since the look began, or why nothing was.
fn fresh<T>(reading: &Reading<T>, is_fresh: bool) -> Result<&T, String> {
    let no_answer = || "it does not answer".to_owned();
    let value = reading.value.as_ref();
    let value = value.ok_or_else(|| reading.check.reason.clone().unwrap_or_else(no_answer))?;
    let stale = || "not sampled since the cleanup began".to_owned();
    is_fresh.then_some(value).ok_or_else(stale)
}

fn no_processes(gpus: &Vec<GpuUse>) -> Result<(), String> {
    for GpuUse { index, processes, .. } in gpus {
        match processes.as_deref() {
            None => return Err(format!("GPU {index} does not say what computes on it")),
            Some([pid, ..]) => return Err(format!("process {pid} computes on GPU {index}")),
            Some([]) => {}
        }
    }
    Ok(())
}

fn memory_within(gpus: &Vec<GpuUse>, limit_bytes: u64) -> Result<(), String> {
    for GpuUse { index, memory_used_bytes, .. } in gpus {
        match memory_used_bytes {
            None => return Err(format!("GPU {index} does not say what memory it holds")),
            Some(used) if *used > limit_bytes => {
                let (used, limit) = (used >> 20, limit_bytes >> 20);
                return Err(format!("GPU {index} holds {used} MiB, more than {limit} MiB"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn verdict(kind: CleanupCheckKind, outcome: Result<(), String>) -> CleanupCheck {
    match outcome {
        Ok(()) => CleanupCheck::passed(kind),
        Err(detail) => CleanupCheck::failed(kind, &detail),
    }
}

#[cfg(test)]
mod tests;
