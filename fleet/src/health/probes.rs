//! When which instance is probed, and what its probes say.
//!
//! Probes are spread over the interval, so that neither a fleet nor its routers work in beats. The first
//! failure counts, and is followed by `failure_threshold` more before an instance is unhealthy: the fourth
//! in a row, at T+90 s. A slow answer from an instance that answers requests is no evidence: busy is not
//! dead. An explicit failure always is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    model::InstanceId,
    planted::{self, Fault},
};

/// Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeConfig {
    /// Between the beginnings of two probes of an instance.
    pub interval_ms: u64,
    /// Within which an answer must be whole.
    pub timeout_ms: u64,
    /// Failures in a row after the first that make an instance unhealthy; 0: the first one does.
    pub failure_threshold: u32,
    /// Passes in a row that make it healthy again.
    pub recovery_passes: u32,
    /// Probes under way at once.
    pub parallel: u32,
    /// Immediate further tries of a probe that timed out, before it counts as failed.
    pub retries: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval_ms: 30_000,
            timeout_ms: 10_000,
            failure_threshold: 3,
            recovery_passes: 2,
            parallel: 20,
            retries: 0,
        }
    }
}

impl ProbeConfig {
    /// All that contradicts itself or makes no sense.
    pub fn problems(&self) -> Vec<String> {
        let Self { interval_ms, timeout_ms, retries, .. } = *self;
        let mut problems = Vec::new();
        for (name, value) in [
            ("interval_ms", interval_ms),
            ("timeout_ms", timeout_ms),
            ("recovery_passes", self.recovery_passes.into()),
            ("parallel", self.parallel.into()),
        ] {
            if value == 0 {
                problems.push(format!("{name} is 0: it must be at least 1"));
            }
        }
        let longest_ms = timeout_ms.saturating_mul(u64::from(retries) + 1);
        if longest_ms > interval_ms {
            problems.push(format!(
                "a probe and its {retries} retries may take {longest_ms} ms, longer than the interval of \
                 {interval_ms} ms: lower the timeout or raise the interval"
            ));
        }
        problems
    }
}

impl ProbeConfig {
    /// When the next probe is due after one that was due at `due_ms`: an interval later, unless that has
    /// passed as well, as in a process that was held up.
    fn after(&self, due_ms: u64, now_ms: u64) -> u64 {
        let next_ms = due_ms.saturating_add(self.interval_ms);
        if next_ms > now_ms { next_ms } else { now_ms.saturating_add(self.interval_ms) }
    }
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Passed,
    TimedOut,
    /// It was answered otherwise than expected, or could not be sent; with what was wrong.
    Failed(String),
}

/// What an instance's probes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Too little to say anything.
    #[default]
    Unknown,
    Healthy,
    Unhealthy {
        since_ms: u64,
        /// What was wrong with the last probe.
        reason: String,
    },
}

impl Verdict {
    pub fn is_unhealthy(&self) -> bool {
        matches!(self, Self::Unhealthy { .. })
    }
}

/// The probes of a fleet's instances.
#[derive(Debug)]
pub struct Probes {
    config: ProbeConfig,
    probed: BTreeMap<InstanceId, Probed>,
    /// When whose turn is, of those that are not being probed.
    schedule: BTreeSet<(u64, InstanceId)>,
    /// Who is being probed, also who is forgotten meanwhile: its probe takes its place until it ends.
    under_way: BTreeSet<InstanceId>,
    /// Of a large fleet, the few to look at.
    unhealthy: BTreeSet<InstanceId>,
}

#[derive(Debug)]
struct Probed {
    /// Its place in the schedule; `None` while it is being probed.
    turn_ms: Option<u64>,
    /// When its next probe is due, beside retries.
    due_ms: u64,
    retries: u32,
    /// In a row.
    failures: u32,
    passes: u32,
    verdict: Verdict,
}

impl Probes {
    pub fn new(config: ProbeConfig) -> Self {
        Self {
            config,
            probed: BTreeMap::new(),
            schedule: BTreeSet::new(),
            under_way: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
        }
    }

    /// The instances to probe from now on. Those that are new come within one interval, each at a time of
    /// its own; those that are gone are forgotten. Cheap where nothing changed and they come by id.
    pub fn keep<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a InstanceId, IntoIter: Clone>,
        now_ms: u64,
    ) {
        let ids = ids.into_iter();
        if ids.clone().eq(self.probed.keys()) {
            return;
        }
        let mut before = std::mem::take(&mut self.probed);
        for id in ids {
            if let Some(probed) = before.remove(id) {
                self.probed.insert(id.clone(), probed);
            } else if !self.probed.contains_key(id) {
                let due_ms = now_ms + spread(id.as_str(), self.config.interval_ms);
                // One that is back before its probe ended is not probed twice at once.
                let turn_ms = (!self.under_way.contains(id)).then_some(due_ms);
                self.schedule.extend(turn_ms.map(|turn_ms| (turn_ms, id.clone())));
                self.probed.insert(id.clone(), Probed { turn_ms, ..Probed::new(due_ms) });
            }
        }
        for (id, gone) in before {
            self.unhealthy.remove(&id);
            if let Some(turn_ms) = gone.turn_ms {
                self.schedule.remove(&(turn_ms, id));
            }
        }
    }

    /// Whom to probe now, as far as fewer than `parallel` are being probed. The end of each is told to
    /// [`Self::handle`].
    pub fn due(&mut self, now_ms: u64) -> Vec<InstanceId> {
        let mut due = Vec::new();
        while !self.is_full()
            && self.schedule.first().is_some_and(|(turn_ms, _)| *turn_ms <= now_ms)
            && let Some((_, id)) = self.schedule.pop_first()
        {
            let Some(probed) = self.probed.get_mut(&id) else { continue };
            probed.turn_ms = None;
            if probed.retries == 0 {
                probed.due_ms = self.config.after(probed.due_ms, now_ms);
            }
            self.under_way.insert(id.clone());
            due.push(id);
        }
        due
    }

    /// When there is next something due; `None` where nobody is probed, or a probe must end first.
    pub fn next_ms(&self) -> Option<u64> {
        self.schedule.first().filter(|_| !self.is_full()).map(|(due_ms, _)| *due_ms)
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= self.config.parallel as usize
    }

    /// A probe ended; returns the verdict if that changed it. `answered_since`: the instance answered
    /// requests since the probe before.
    pub fn handle(
        &mut self,
        id: &InstanceId,
        result: ProbeResult,
        answered_since: bool,
        now_ms: u64,
    ) -> Option<Verdict> {
        if !self.under_way.remove(id) {
            return None;
        }
        let probed = self.probed.get_mut(id)?;
        let is_retried = result == ProbeResult::TimedOut
            && !answered_since
            && probed.retries < self.config.retries;
        let turn_ms = if is_retried { now_ms } else { probed.due_ms };
        probed.turn_ms = Some(turn_ms);
        self.schedule.insert((turn_ms, id.clone()));
        if is_retried {
            probed.retries += 1;
            return None;
        }
        probed.retries = 0;
        let verdict = match result {
            ProbeResult::Passed => probed.passed(&self.config),
            ProbeResult::TimedOut if answered_since => None,
            ProbeResult::TimedOut => {
                let reason = format!("its probe timed out after {} ms", self.config.timeout_ms);
                probed.failed(reason, now_ms, &self.config)
            }
            ProbeResult::Failed(reason) => probed.failed(reason, now_ms, &self.config),
        };
        match &verdict {
            Some(verdict) if verdict.is_unhealthy() => _ = self.unhealthy.insert(id.clone()),
            Some(_) => _ = self.unhealthy.remove(id),
            None => {}
        }
        verdict
    }

    /// Who is unhealthy, by their ids.
    pub fn unhealthy(&self) -> impl Iterator<Item = &InstanceId> {
        self.unhealthy.iter()
    }

    /// What was wrong with an unhealthy instance's last probe.
    pub fn failure(&self, id: &InstanceId) -> Option<&str> {
        match self.unhealthy.get(id).map(|id| self.verdict(id))? {
            Verdict::Unhealthy { reason, .. } => Some(reason),
            Verdict::Unknown | Verdict::Healthy => None,
        }
    }

    /// Failed probes in a row.
    pub fn failures(&self, id: &InstanceId) -> u32 {
        self.probed.get(id).map_or(0, |probed| probed.failures)
    }

    pub fn verdict(&self, id: &InstanceId) -> &Verdict {
        self.probed.get(id).map_or(&Verdict::Unknown, |probed| &probed.verdict)
    }
}

impl Probed {
    fn new(due_ms: u64) -> Self {
        Self {
            turn_ms: Some(due_ms),
            due_ms,
            retries: 0,
            failures: 0,
            passes: 0,
            verdict: Verdict::Unknown,
        }
    }

    fn passed(&mut self, config: &ProbeConfig) -> Option<Verdict> {
        self.failures = 0;
        self.passes = self.passes.saturating_add(1);
        let needed = if self.verdict.is_unhealthy() { config.recovery_passes } else { 1 };
        (self.verdict != Verdict::Healthy && self.passes >= needed).then(|| {
            self.verdict = Verdict::Healthy;
            Verdict::Healthy
        })
    }

    fn failed(&mut self, reason: String, now_ms: u64, config: &ProbeConfig) -> Option<Verdict> {
        self.passes = 0;
        self.failures = self.failures.saturating_add(1);
        if let Verdict::Unhealthy { reason: last, .. } = &mut self.verdict {
            *last = reason;
            return None;
        }
        let off_by = u32::from(planted::is(Fault::ThresholdOffByOne));
        let tolerated = config.failure_threshold.saturating_sub(off_by);
        (self.failures > tolerated).then(|| {
            self.verdict = Verdict::Unhealthy { since_ms: now_ms, reason };
            self.verdict.clone()
        })
    }
}

/// A place in the interval that is the id's own (FNV-1a).
fn spread(id: &str, interval_ms: u64) -> u64 {
    let hash = id.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    });
    hash % interval_ms.max(1)
}

#[cfg(test)]
mod tests;
