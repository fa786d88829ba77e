//! What is known of each enclave's attestation, and who is to be asked next. Pure: time and chance come in.
//!
//! ```text
//!             ┌────────────── verified ──────────────┐
//!  not verified ──► asked ──► verified ──max age──► lapsed
//!             ▲        └─────► refused (at once, whatever was before)
//!             └─ new generation, enclave stopped, instance gone
//! ```
//!
//! An instance that does not answer keeps what it had, until that lapses: a slow network is no forgery.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mrgc_fleet::model::{EnclaveState, InstanceId, PoolId, RegionId, Standing, Timestamp};

use serde::Serialize;

use super::Attested;

/// Before the first try after one that failed; doubled by each that follows, up to the interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How much of a pause is left to chance, so that instances that came together are not asked together.
const JITTER: f64 = 0.25;

/// How often enclaves are asked, and for how long an answer counts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub interval: Duration,
    pub max_age: Duration,
}

/// An instance to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: InstanceId,
    pub generation: u64,
    pub pool: PoolId,
    /// `host:port` of its agent.
    pub address: String,
}

/// How asking an instance went.
#[derive(Clone, Debug)]
pub enum Outcome {
    Attested(Attested),
    /// The document proves nothing.
    Refused(String),
    /// There is no document.
    Unanswered(String),
}

/// What is known of an instance's enclave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub attested: bool,
    /// Why not; or, of one that is, why it may not be so for long.
    pub reason: Option<String>,
    pub module_id: Option<String>,
    /// When its last good document was made, by the module's clock.
    pub documented_at: Option<Timestamp>,
}

#[derive(Debug)]
pub struct Board {
    home: RegionId,
    pools: Vec<PoolId>,
    pace: Pace,
    records: HashMap<InstanceId, Record>,
}

#[derive(Debug)]
struct Record {
    generation: u64,
    proof: Option<Proof>,
    /// What was wrong the last time.
    reason: Option<String>,
    due: Instant,
    is_asked: bool,
    /// In a row.
    failures: u32,
}

#[derive(Debug)]
struct Proof {
    attested: Attested,
    until: Instant,
}

impl Board {
    /// `pools` are those of which it is known what their enclaves should run.
    pub fn new(home: RegionId, pools: Vec<PoolId>, pace: Pace) -> Self {
        Self { home, pools, pace, records: HashMap::new() }
    }

    /// Looks at the fleet: forgets what no longer counts, and gives at most `room` instances to ask.
    pub fn due(&mut self, fleet: &[Arc<Standing>], room: usize, now: Instant) -> Vec<Target> {
        let judged: HashMap<_, _> = fleet
            .iter()
            .filter(|standing| self.unjudged(standing).is_none())
            .map(|standing| (&standing.registration.id, &standing.registration))
            .collect();
        self.records
            .retain(|id, record| judged.get(id).is_some_and(|r| r.generation == record.generation));
        let mut targets = Vec::new();
        for (id, registration) in judged {
            if targets.len() == room {
                break;
            }
            let generation = registration.generation;
            let record =
                self.records.entry(id.clone()).or_insert_with(|| Record::new(generation, now));
            if record.is_asked || record.due > now {
                continue;
            }
            record.is_asked = true;
            targets.push(Target {
                id: id.clone(),
                generation,
                pool: registration.pool.clone(),
                address: registration.health_address.clone(),
            });
        }
        targets
    }

    /// Takes how asking went. `asked` is when the nonce was drawn: no document is older. True where an
    /// instance is not attested any more. `chance` is within 0 and 1.
    pub fn answered(
        &mut self,
        target: &Target,
        outcome: Outcome,
        asked: Instant,
        now: Instant,
        chance: f64,
    ) -> bool {
        let record = self.records.get_mut(&target.id);
        let Some(record) = record.filter(|r| r.generation == target.generation) else {
            return false;
        };
        record.is_asked = false;
        let was_attested = record.is_attested(now);
        match outcome {
            Outcome::Attested(attested) => {
                (record.failures, record.reason) = (0, None);
                let until = asked + self.pace.max_age.min(attested.certificate_left);
                record.proof = Some(Proof { attested, until });
            }
            Outcome::Refused(reason) => {
                record.failures = record.failures.saturating_add(1);
                (record.proof, record.reason) = (None, Some(reason));
            }
            Outcome::Unanswered(reason) => {
                record.failures = record.failures.saturating_add(1);
                record.reason = Some(reason);
            }
        }
        let pause = match record.failures {
            0 => self.pace.interval,
            n => FIRST_RETRY.saturating_mul(1 << (n - 1).min(16)).min(self.pace.interval),
        };
        record.due = now + pause.mul_f64(1.0 - JITTER * chance);
        was_attested && !record.is_attested(now)
    }

    /// Whether its enclave is attested, and why not.
    pub fn verdict(&self, standing: &Standing, now: Instant) -> Verdict {
        let because = |reason: String| Verdict { reason: Some(reason), ..Verdict::default() };
        if let Some(reason) = self.unjudged(standing) {
            return because(reason);
        }
        let registration = &standing.registration;
        let record = self.records.get(&registration.id);
        let Some(record) = record.filter(|r| r.generation == registration.generation) else {
            return because("not verified yet".to_owned());
        };
        let Some(Proof { attested, .. }) = &record.proof else {
            return because(record.reason.clone().unwrap_or_else(|| "not verified yet".to_owned()));
        };
        let is_attested = record.is_attested(now);
        let lapsed = || format!("not verified for {} s", self.pace.max_age.as_secs_f64());
        let reason = match (&record.reason, is_attested) {
            (reason, true) => reason.clone(),
            (Some(reason), false) => Some(format!("{}: {reason}", lapsed())),
            (None, false) => Some(lapsed()),
        };
        Verdict {
            attested: is_attested,
            reason,
            module_id: Some(attested.module_id.clone()),
            documented_at: Some(attested.at),
        }
    }

    /// Whether it is attested, for snapshots.
    pub fn is_attested(&self, standing: &Standing, now: Instant) -> bool {
        let registration = &standing.registration;
        let record = self.records.get(&registration.id);
        self.unjudged(standing).is_none()
            && record.is_some_and(|r| r.generation == registration.generation && r.is_attested(now))
    }

    /// Why nobody asks this instance.
    fn unjudged(&self, standing: &Standing) -> Option<String> {
        let registration = &standing.registration;
        if registration.region != self.home {
            return Some(format!("the routers of {} judge it", registration.region));
        }
        if !self.pools.contains(&registration.pool) {
            let pool = &registration.pool;
            return Some(format!("attestation.images has none of pool {pool}"));
        }
        let generation = registration.generation;
        let report = standing.report.as_ref().filter(|report| report.generation == generation);
        match report.map(|report| report.enclave) {
            None => Some("it has not reported yet".to_owned()),
            Some(EnclaveState::Absent) => Some("no enclave runs".to_owned()),
            Some(_) if registration.health_address.is_empty() => {
                Some("it has no agent to ask".to_owned())
            }
            Some(_) => None,
        }
    }
}

impl Record {
    fn new(generation: u64, now: Instant) -> Self {
        Self { generation, proof: None, reason: None, due: now, is_asked: false, failures: 0 }
    }

    fn is_attested(&self, now: Instant) -> bool {
        self.proof.as_ref().is_some_and(|proof| now < proof.until)
    }
}

#[cfg(test)]
mod tests;
