//! What a GPU's signals are worth. Pure.
//!
//! | signal | fitness | action |
//! |---|---|---|
//! | fell off the bus; an XID that asks for a reboot; the driver asks for one | unfit | reboot |
//! | fewer GPUs than there were, or than are configured | unfit | reboot |
//! | NVML wants a reset; an XID that asks for one; the driver asks for one | unfit | reset GPU |
//! | row remapping failed | unfit | contact support |
//! | rows wait to be remapped; uncorrectable memory errors since the driver was loaded | degraded | reset GPU |
//! | the driver wants it drained and reset | degraded | reset GPU |
//! | the driver wants its peers to let go of it; an XID of an application | degraded | restart application |
//! | an XID, or a recovery action, that is not known | degraded | contact support |
//! | hot: thermal slowdown; less than [`MIN_SHUTDOWN_MARGIN_CELSIUS`] until it turns itself off | degraded | none |
//! | the power supply's brake | degraded | none |
//! | an NVLink went down | degraded | reset GPU |
//! | NVML calls fail | degraded | none |
//!
//! Corrected errors, aggregate counters and a power limit that holds clocks down are no reason for anything:
//! they are shown. Row remapping follows NVIDIA's "GPU Memory Error Management": pending takes effect at the
//! next reset, and a failure qualifies the GPU for replacement.

use super::status::{Action, Fitness, Gpu, Recovery, Sample, Throttle, Verdict, Xid};

const MIN_SHUTDOWN_MARGIN_CELSIUS: i64 = 3;

/// Reasons that are told for one GPU.
const MAX_REASONS: usize = 8;

/// What this agent remembers of a GPU, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// The most NVLinks that were active at once.
    pub(super) active_links: u32,
}

/// Judges one GPU by what NVML said of it and by the XIDs that are held against it.
pub(super) fn judge(sample: &Sample, xids: &[&Xid], before: Before) -> Verdict {
    let mut verdict = Verdict::default();
    judge_reach(sample, &mut verdict);
    for xid in xids {
        judge_xid(xid, &mut verdict);
    }
    judge_memory(sample, &mut verdict);
    judge_recovery(sample.recovery_action, &mut verdict);
    judge_heat_and_power(sample, &mut verdict);
    let active = sample.rare.nvlink.map_or(before.active_links, |nvlink| nvlink.active);
    if active < before.active_links {
        let reason = format!("{active} of {} NVLinks are active", before.active_links);
        verdict.add(Fitness::Degraded, Action::ResetGpu, reason);
    }
    verdict.reasons.truncate(MAX_REASONS);
    verdict
}

fn judge_reach(sample: &Sample, verdict: &mut Verdict) {
    if sample.is_lost {
        verdict.add(Fitness::Unfit, Action::Reboot, "it has fallen off the bus");
    }
    if sample.requires_reset {
        verdict.add(Fitness::Unfit, Action::ResetGpu, "NVML refuses it until it is reset");
    }
    for call in &sample.failed_calls {
        verdict.add(Fitness::Degraded, Action::None, call);
    }
}

fn judge_xid(xid: &Xid, verdict: &mut Verdict) {
    let fitness = match xid.action {
        Action::None => return,
        Action::RestartApplication | Action::ContactSupport => Fitness::Degraded,
        Action::ResetGpu | Action::Reboot => Fitness::Unfit,
    };
    verdict.add(fitness, xid.action, format!("XID {} ({})", xid.code, xid.name));
}

fn judge_memory(sample: &Sample, verdict: &mut Verdict) {
    let rows = sample.remapped_rows.unwrap_or_default();
    if rows.failure == Some(true) {
        let reason = "row remapping failed: its memory has no spare rows left";
        verdict.add(Fitness::Unfit, Action::ContactSupport, reason);
    }
    if rows.pending == Some(true) {
        verdict.add(Fitness::Degraded, Action::ResetGpu, "row remapping waits for a reset");
    }
    let uncorrected = sample.rare.ecc.and_then(|ecc| ecc.volatile_uncorrected).unwrap_or(0);
    if uncorrected > 0 {
        let reason = format!("uncorrectable memory errors since the driver loaded: {uncorrected}");
        verdict.add(Fitness::Degraded, Action::ResetGpu, reason);
    }
}

fn judge_recovery(recovery: Option<Recovery>, verdict: &mut Verdict) {
    let (fitness, action, reason) = match recovery {
        None | Some(Recovery::None) => return,
        Some(Recovery::ResetGpu) => {
            (Fitness::Unfit, Action::ResetGpu, "the driver asks for a reset".to_owned())
        }
        Some(Recovery::Reboot) => {
            (Fitness::Unfit, Action::Reboot, "the driver asks for a reboot".to_owned())
        }
        Some(Recovery::DrainPeers) => {
            let reason = "the driver asks its peers to let go of it".to_owned();
            (Fitness::Degraded, Action::RestartApplication, reason)
        }
        Some(Recovery::DrainAndReset) => {
            let reason = "the driver asks to drain and reset it".to_owned();
            (Fitness::Degraded, Action::ResetGpu, reason)
        }
        Some(Recovery::Unknown(value)) => {
            let reason = format!("the driver asks for recovery action {value}");
            (Fitness::Degraded, Action::ContactSupport, reason)
        }
    };
    verdict.add(fitness, action, reason);
}

fn judge_heat_and_power(sample: &Sample, verdict: &mut Verdict) {
    for throttle in sample.throttle_reasons.iter().flatten() {
        let reason = match throttle {
            Throttle::HwThermalSlowdown => "too hot: the hardware has slowed it down",
            Throttle::SwThermalSlowdown => "too hot: the driver has slowed it down",
            Throttle::HwPowerBrake => "the power supply has slowed it down",
            // Also told while clocks merely change, and by choice.
            Throttle::HwSlowdown
            | Throttle::SwPowerCap
            | Throttle::SyncBoost
            | Throttle::ApplicationClocks => continue,
        };
        verdict.add(Fitness::Degraded, Action::None, reason);
    }
    if let Some(margin) = sample.shutdown_margin_celsius()
        && margin < MIN_SHUTDOWN_MARGIN_CELSIUS
    {
        let reason = format!("too hot: {margin} °C below turning itself off");
        verdict.add(Fitness::Degraded, Action::None, reason);
    }
}

/// Judges the machine: each GPU's reasons with its name, the XIDs of GPUs that NVML does not list, and how
/// many there are.
pub(super) fn judge_machine(gpus: &[Gpu], elsewhere: &[&Xid], expected: Option<usize>) -> Verdict {
    let mut verdict = Verdict::default();
    for gpu in gpus {
        verdict.fitness = verdict.fitness.max(gpu.verdict.fitness);
        verdict.action = verdict.action.max(gpu.verdict.action);
        if !gpu.verdict.reasons.is_empty() {
            let reasons = gpu.verdict.reasons.join(", ");
            verdict.reasons.push(format!("{}: {reasons}", gpu.sample.label()));
        }
    }
    for xid in elsewhere {
        let mut alone = Verdict::default();
        judge_xid(xid, &mut alone);
        for reason in alone.reasons {
            let reason = format!("GPU at {}: {reason}", xid.pci);
            verdict.add(alone.fitness, alone.action, reason);
        }
    }
    if let Some(expected) = expected.filter(|expected| gpus.len() < *expected) {
        let reason = format!("NVML lists {} of {expected} GPUs", gpus.len());
        verdict.add(Fitness::Unfit, Action::Reboot, reason);
    }
    verdict
}

#[cfg(test)]
mod tests;
