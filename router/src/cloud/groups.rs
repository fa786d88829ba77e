//! Tells Auto Scaling which instances to replace, apart from the writes to the store, which must not wait for
//! it.
//!
//! The lease's holder asks again and again for who is drained and fails. So a group that could not be told is
//! told again, as long as there is a reason to.

use std::collections::BTreeMap;

use mrgc_aws::{AutoScaling, Told, is_instance_id};
use mrgc_fleet::model::InstanceId;
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
pub struct Groups(mpsc::Sender<News>);

#[derive(Debug)]
enum News {
    Replace(InstanceId),
    Released(InstanceId),
}

impl Groups {
    /// `router` is who this is, for people.
    pub fn start(service: AutoScaling, store: Store, router: &str) -> Self {
        let (waiting, news) = mpsc::channel(WAITING);
        tokio::spawn(tell(service, store, format!("router {router}"), news));
        Self(waiting)
    }

    /// Its group is to replace an instance, if it was not told yet. Never waits.
    pub fn replace(&self, id: &InstanceId) {
        if is_instance_id(id.as_str()) {
            self.send(News::Replace(id.clone()));
        }
    }

    /// An instance serves again: of its next failure its group is told anew.
    pub fn released(&self, id: &InstanceId) {
        if is_instance_id(id.as_str()) {
            self.send(News::Released(id.clone()));
        }
    }

    fn send(&self, news: News) {
        if let Err(error) = self.0.try_send(news) {
            tracing::warn!(%error, "Auto Scaling is not told: {WAITING} others wait");
        }
    }
}

/// The outcome goes on record afterwards: the drain that it belongs to is there already.
async fn tell(
    service: AutoScaling,
    store: Store,
    operator: String,
    mut news: mpsc::Receiver<News>,
) {
    let mut told = Attempts::default();
    while let Some(news) = news.recv().await {
        let id = match news {
            News::Replace(id) if told.is_due(&id) => id,
            News::Replace(_) => continue,
            News::Released(id) => {
                told.forget(&id);
                continue;
            }
        };
        let answer = service.set_unhealthy(id.as_str()).await;
        told.ended(&id, answer.is_ok());
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

/// How often each instance's group may still be told.
#[derive(Debug, Default)]
struct Attempts(BTreeMap<InstanceId, u32>);

impl Attempts {
    fn is_due(&self, id: &InstanceId) -> bool {
        self.0.get(id).is_none_or(|left| *left > 0)
    }

    fn ended(&mut self, id: &InstanceId, succeeded: bool) {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        let left = self.0.entry(id.clone()).or_insert(ATTEMPTS);
        *left = if succeeded { 0 } else { left.saturating_sub(1) };
    }

    fn forget(&mut self, id: &InstanceId) {
        self.0.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_told_of_a_failure_once_or_tried_five_times() {
        let (mut told, id) = (Attempts::default(), InstanceId::from("i-01234567"));
        for _ in 0..ATTEMPTS {
            assert!(told.is_due(&id));
            told.ended(&id, false);
        }
        assert!(!told.is_due(&id), "enough");
        told.forget(&id);
        assert!(told.is_due(&id), "it failed anew");
        told.ended(&id, true);
        assert!(!told.is_due(&id));
    }
}
