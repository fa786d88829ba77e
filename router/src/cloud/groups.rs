//! Tells Auto Scaling which instances to replace, apart from the writes to the store, which must not wait for
//! it.
//!
//! The lease's holder asks again and again for who is drained and fails. So a group that could not be told is
//! told again, as long as there is a reason to.

use std::collections::BTreeMap;

use mrgc_aws::{AutoScaling, Told, is_instance_id};
use mrgc_fleet::model::{InstanceId, Timestamp};
use mrgc_store::{AuditEntry, Store};
use tokio::sync::mpsc;

use crate::sync::wall_clock;

/// What is still to be told. At the bound one is left out, and the log says so.
const WAITING: usize = 256;
/// Times that a group is told of one failure of an instance.
const ATTEMPTS: u32 = 5;
/// Instances of which it is remembered what their groups were told; at the bound all are forgotten, and some
/// groups told once more.
const REMEMBERED: usize = 4_096;

/// The way to whoever tells. Cheap.
#[derive(Debug)]
pub struct Groups(mpsc::Sender<Failure>);

/// Of an instance that is to be replaced.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    id: InstanceId,
    /// When it was drained for this failure, which tells it from the one before, whoever ended that.
    drained_at: Timestamp,
}

impl Groups {
    /// `router` is who this is, for people.
    pub fn start(service: AutoScaling, store: Store, router: &str) -> Self {
        let (groups, failures) = Self::channel();
        tokio::spawn(tell(service, store, format!("router {router}"), failures));
        groups
    }

    pub(crate) fn channel() -> (Self, mpsc::Receiver<Failure>) {
        let (waiting, failures) = mpsc::channel(WAITING);
        (Self(waiting), failures)
    }

    /// Its group is to replace an instance, if it was not told yet of what the instance was drained for then.
    /// Never waits.
    pub fn replace(&self, id: &InstanceId, drained_at: Timestamp) {
        if !is_instance_id(id.as_str()) {
            return;
        }
        if let Err(error) = self.0.try_send(Failure { id: id.clone(), drained_at }) {
            tracing::warn!(%error, "Auto Scaling is not told: {WAITING} others wait");
        }
    }
}

/// The outcome goes on record afterwards: the drain that it belongs to is there already.
async fn tell(
    service: AutoScaling,
    store: Store,
    operator: String,
    mut failures: mpsc::Receiver<Failure>,
) {
    let mut told = Attempts::default();
    while let Some(failure) = failures.recv().await {
        if !told.is_due(&failure) {
            continue;
        }
        let id = &failure.id;
        let answer = service.set_unhealthy(id.as_str()).await;
        told.ended(&failure, answer.is_ok());
        let outcome = match answer {
            Ok(Told::Heard) => "its Auto Scaling group replaces it".to_owned(),
            Ok(Told::Nobody) => "it is in no Auto Scaling group".to_owned(),
            Err(error) => format!("its Auto Scaling group was not told: {error}"),
        };
        tracing::info!(instance = %id, outcome, "set to Unhealthy");
        let (subject, reason) = (format!("instance {id}"), Some(outcome.as_str()));
        let (operator, subject) = (operator.as_str(), subject.as_str());
        let (at, action) = (wall_clock(), "set-instance-health");
        let entry = AuditEntry { at, operator, action, subject, reason };
        if let Err(error) = store.record_audit(entry).await {
            tracing::warn!(instance = %id, %error, "not on record");
        }
    }
}

/// How often each instance's group may still be told of its latest failure.
#[derive(Debug, Default)]
struct Attempts(BTreeMap<InstanceId, (Timestamp, u32)>);

impl Attempts {
    fn is_due(&self, failure: &Failure) -> bool {
        self.left(failure) > 0
    }

    fn ended(&mut self, failure: &Failure, succeeded: bool) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let left = if succeeded { 0 } else { self.left(failure).saturating_sub(1) };
        self.0.insert(failure.id.clone(), (failure.drained_at, left));
    }

    fn left(&self, failure: &Failure) -> u32 {
        let same = self.0.get(&failure.id).filter(|(at, _)| *at == failure.drained_at);
        same.map_or(ATTEMPTS, |(_, left)| *left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(drained_at: u64) -> Failure {
        Failure { id: "i-01234567".into(), drained_at: Timestamp(drained_at) }
    }

    #[test]
    fn a_group_is_told_of_each_failure_once_or_tried_five_times() {
        let mut told = Attempts::default();
        for _ in 0..ATTEMPTS {
            assert!(told.is_due(&failure(1)));
            told.ended(&failure(1), false);
        }
        assert!(!told.is_due(&failure(1)), "enough");
        assert!(told.is_due(&failure(2)), "it failed anew");
        told.ended(&failure(2), true);
        assert!(!told.is_due(&failure(2)));
    }
}
