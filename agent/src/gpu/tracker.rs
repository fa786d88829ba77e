//! All that the agent knows of the GPUs: samples, XIDs and acknowledgements in, one reading out. Pure.

use std::{collections::BTreeMap, time::Duration};

use mrgc_fleet::model::Timestamp;

use super::{
    fitness::{self, Before},
    ledger::{Ledger, Sighting, Source},
    status::{Action, Fitness, Gpu, Gpus, PciAddress, Recovery, Sample, Verdict, Xid, XidSources},
    xid,
};
use crate::signals::{Check, Reading, Status};

/// What the threads that wait for XIDs have to tell.
#[derive(Debug)]
pub(super) enum Observation {
    Xid(Sighting),
    /// At this time since boot.
    DriverLoaded(Duration),
    /// How a source of XIDs stands.
    Source(Source, Check),
}

/// One round through the GPUs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Round {
    pub(super) driver_version: Option<String>,
    pub(super) samples: Vec<Sample>,
    /// Everything was asked of every GPU.
    pub(super) is_full: bool,
}

#[derive(Debug)]
pub(super) struct Tracker {
    /// GPUs that there must be.
    expected: Option<usize>,
    round: Reading<Round>,
    ledger: Ledger,
    sources: XidSources,
    before: BTreeMap<PciAddress, Before>,
    /// Those that the driver wants reset.
    recovering: Vec<PciAddress>,
    /// The most GPUs that NVML ever listed.
    listed: usize,
    full_rounds: u64,
    nvml_calls: u64,
}

impl Tracker {
    pub(super) fn new(expected: Option<usize>) -> Self {
        Self {
            expected,
            round: Reading::unasked(),
            ledger: Ledger::default(),
            sources: XidSources::default(),
            before: BTreeMap::new(),
            recovering: Vec::new(),
            listed: 0,
            full_rounds: 0,
            nvml_calls: 0,
        }
    }

    /// Takes a round through the GPUs, made `now`, and the calls that there have been so far.
    pub(super) fn sampled(&mut self, round: Reading<Round>, nvml_calls: u64, now: Duration) {
        self.nvml_calls = nvml_calls;
        self.full_rounds += u64::from(round.value.as_ref().is_none_or(|round| round.is_full));
        for sample in round.value.iter().flat_map(|round| &round.samples) {
            let Some(pci) = sample.pci else { continue };
            let before = self.before.entry(pci).or_default();
            let active_links = sample.rare.nvlink.map_or(0, |nvlink| nvlink.active);
            before.active_links = before.active_links.max(active_links);
            match sample.recovery_action {
                Some(Recovery::ResetGpu | Recovery::DrainAndReset)
                    if !self.recovering.contains(&pci) =>
                {
                    self.recovering.push(pci);
                }
                Some(Recovery::None) if self.recovering.contains(&pci) => {
                    self.recovering.retain(|recovering| *recovering != pci);
                    self.ledger.recovered(pci, now);
                }
                _ => {}
            }
        }
        self.listed = self.listed.max(round.value.as_ref().map_or(0, |round| round.samples.len()));
        self.round = round;
    }

    pub(super) fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Source(Source::NvmlEvents, check) => self.sources.nvml_events = check,
            Observation::Source(Source::KernelLog, check) => self.sources.kernel_log = check,
            Observation::DriverLoaded(at) => {
                self.ledger.driver_loaded(at);
                self.recovering.clear();
            }
            Observation::Xid(sighting) => {
                // An event has no text. Where the log is read, its line follows, and says what this one means.
                let waits_for_text = sighting.source == Source::NvmlEvents
                    && xid::needs_text(sighting.code)
                    && self.sources.kernel_log.status == Status::Ok;
                if !waits_for_text {
                    self.ledger.see(sighting);
                }
            }
        }
    }

    /// An operator has seen everything until then.
    pub(super) fn acknowledge(&mut self, until: Timestamp) {
        self.ledger.acknowledge(until);
    }

    /// What is known, and how the GPUs are by it. Without an answer from NVML, it is what the XIDs say.
    pub(super) fn reading(&self, now: Duration) -> Reading<Gpus> {
        let xids = self.ledger.list(now);
        let held: Vec<&Xid> = xids.iter().filter(|xid| xid.is_held).collect();
        let round = self.round.value.as_ref();
        let samples = round.map_or(&[][..], |round| &round.samples);
        let gpus: Vec<Gpu> = samples.iter().map(|sample| self.judge(sample, &held)).collect();
        let is_listed = |xid: &Xid| gpus.iter().any(|gpu| gpu.sample.pci == Some(xid.pci));
        let elsewhere: Vec<&Xid> = held.iter().copied().filter(|xid| !is_listed(xid)).collect();
        let expected = self.expected.max((self.listed > 0).then_some(self.listed));
        let mut verdict =
            fitness::judge_machine(&gpus, &elsewhere, expected.filter(|_| round.is_some()));
        if round.is_some() {
            self.judge_sources(&mut verdict);
        }
        let check = self.check(&verdict);
        let gpus = Gpus {
            verdict,
            driver_version: round.and_then(|round| round.driver_version.clone()),
            gpus,
            xids,
            xid_sources: self.sources.clone(),
            full_rounds: self.full_rounds,
            nvml_calls: self.nvml_calls,
        };
        Reading::noted(gpus, check)
    }

    fn judge(&self, sample: &Sample, held: &[&Xid]) -> Gpu {
        let mine: Vec<&Xid> =
            held.iter().copied().filter(|xid| sample.pci == Some(xid.pci)).collect();
        let before = sample.pci.and_then(|pci| self.before.get(&pci).copied()).unwrap_or_default();
        Gpu { sample: sample.clone(), verdict: fitness::judge(sample, &mine, before) }
    }

    /// One source is enough; with none, a broken GPU may go unnoticed.
    fn judge_sources(&self, verdict: &mut Verdict) {
        let deaf = |check: &Check| {
            let is_deaf = matches!(check.status, Status::Error | Status::Missing);
            check.reason.clone().filter(|_| is_deaf && *check != Check::unasked())
        };
        let XidSources { nvml_events, kernel_log } = &self.sources;
        if let (Some(events), Some(log)) = (deaf(nvml_events), deaf(kernel_log)) {
            let reason = format!("XIDs are not seen: {events}; {log}");
            verdict.add(Fitness::Degraded, Action::None, reason);
        }
    }

    fn check(&self, verdict: &Verdict) -> Check {
        let mut reasons: Vec<String> = self.round.check.reason.iter().cloned().collect();
        reasons.extend(verdict.reasons.iter().cloned());
        if let Some(advice) = verdict.action.advice() {
            reasons.push(advice.to_owned());
        }
        let status = match verdict.fitness {
            Fitness::Unfit => Status::Error,
            Fitness::Degraded if self.round.check.status == Status::Ok => Status::Degraded,
            _ => self.round.check.status,
        };
        Check { status, reason: (!reasons.is_empty()).then(|| reasons.join("; ")) }
    }
}

#[cfg(test)]
mod tests;
