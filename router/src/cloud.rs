//! What AWS knows of this region's machines, and what it is told of them.
//!
//! EC2 is asked by the router that holds the region's lease of health: what it finds failing is drained and
//! replaced, as what probes find. EC2 that is silent, throttles or garbles changes nothing, until what it
//! said last has grown old and is forgotten.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mrgc_aws::{AutoScaling, CallError, Ec2, MAX_INSTANCES, Session, Told, is_instance_id};
use mrgc_fleet::{model::InstanceId, monitor::Monitor};
use mrgc_store::{AuditEntry, Store};
use tokio::sync::mpsc;

use crate::{
    config::Config,
    health::{Check, HealthBoard},
    monitor::Event,
    sync::wall_clock,
};

/// All attempts at one question of a look.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
/// Of the router's health.
const PART: &str = "ec2";
/// How many intervals a look counts for.
const WORD_COUNTS_FOR: u64 = 3;

/// All attempts to tell a group of one instance.
const TELL_PATIENCE: Duration = Duration::from_secs(60);
/// Instances whose groups are still to be told. At the bound one is left out, and the log says so.
const WAITING: usize = 256;

/// What a look found: the instances in trouble, each with what is wrong.
pub type Look = Result<BTreeMap<InstanceId, String>, CallError>;

/// The services that are configured.
#[derive(Debug, Default)]
pub struct Cloud {
    pub watch: Option<Watch>,
    pub auto_scaling: Option<AutoScaling>,
}

impl Cloud {
    pub async fn connect(config: &Config, health: &HealthBoard) -> Result<Self> {
        let aws = &config.aws;
        if !aws.is_used() {
            return Ok(Self::default());
        }
        let of_store = config.store.as_ref().and_then(|store| store.aws_region.clone());
        let region = aws.region.clone().or(of_store).unwrap_or_else(|| config.home().to_string());
        let session = Session::new(&region).await.context("[aws]")?;
        let ec2 = || Ec2::new(&session, aws.ec2_endpoint.as_deref(), LOOK_PATIENCE);
        let groups =
            || AutoScaling::new(&session, aws.auto_scaling_endpoint.as_deref(), TELL_PATIENCE);
        Ok(Self {
            watch: aws.instance_status.then(|| Watch::new(ec2(), aws.interval(), health.clone())),
            auto_scaling: aws.set_instance_health.then(groups),
        })
    }
}

/// Looks at EC2's status of home's instances.
#[derive(Debug)]
pub struct Watch {
    ec2: Arc<Ec2>,
    pace: Pace,
    looks: Looks,
    health: HealthBoard,
}

impl Watch {
    fn new(ec2: Ec2, interval: Duration, health: HealthBoard) -> Self {
        let pace = Pace::new(interval.as_millis() as u64);
        Self { ec2: Arc::new(ec2), pace, looks: Looks::default(), health }
    }

    pub fn looks(&self) -> Looks {
        self.looks.clone()
    }

    /// Sends a look if one is due, which comes back as an event, and forgets one that has grown old.
    pub fn turn(
        &mut self,
        is_holder: bool,
        monitor: &mut Monitor,
        events: &mpsc::Sender<Event>,
        now_ms: u64,
    ) {
        if !is_holder && self.is_settled() {
            self.looks.stopped();
            self.health.set(PART, Check::ok());
        }
        if self.pace.expires(now_ms) {
            tracing::info!("EC2's last word on the instances has expired");
            monitor.impaired(BTreeMap::new());
        }
        if self.pace.starts(is_holder, now_ms) {
            let ids = monitor.home_instances().map(|id| id.to_string());
            let ids: Vec<_> = ids.filter(|id| is_instance_id(id)).collect();
            let (ec2, looks, events) = (self.ec2.clone(), self.looks.clone(), events.clone());
            tokio::spawn(async move {
                let look = look(&ec2, &ids).await;
                if !ids.is_empty() {
                    looks.count(look.is_ok());
                }
                // The shell is gone when the process ends.
                let _ = events.send(Event::Looked(look)).await;
            });
        }
    }

    pub fn looked(&mut self, look: Look, monitor: &mut Monitor, now_ms: u64) {
        self.pace.ended(look.is_ok(), now_ms);
        match look {
            Ok(impaired) => {
                self.health.set(PART, Check::ok());
                monitor.impaired(impaired);
            }
            Err(error) => {
                let why = format!("EC2's status of the instances is not known: {error}");
                tracing::warn!("{why}");
                self.health.set(PART, Check::degraded(why));
            }
        }
    }

    /// Whether EC2 was asked since this router has held the lease. Until then it would release an instance
    /// that the holder before it drained by EC2's word.
    pub fn is_settled(&self) -> bool {
        self.pace.is_settled
    }
}

/// How EC2 answers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Looks(Arc<Mutex<LookCounts>>);

/// Looks since the router started at any instances, by what came of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookCounts {
    pub answered: u64,
    pub failed: u64,
    /// When EC2 answered last; `None` while another router asks it.
    pub answered_at: Option<Instant>,
}

impl Looks {
    pub fn counts(&self) -> LookCounts {
        *self.lock()
    }

    fn count(&self, is_answered: bool) {
        let mut counts = self.lock();
        if is_answered {
            counts.answered += 1;
            counts.answered_at = Some(Instant::now());
        } else {
            counts.failed += 1;
        }
    }

    /// Another router asks from now on.
    fn stopped(&self) {
        self.lock().answered_at = None;
    }

    /// Plain data: a panic elsewhere cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, LookCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(ec2: &Ec2, ids: &[String]) -> Look {
    let mut impaired = BTreeMap::new();
    for batch in ids.chunks(MAX_INSTANCES) {
        let batch: Vec<_> = batch.iter().map(String::as_str).collect();
        for (id, status) in ec2.instance_status(&batch).await? {
            if let Some(trouble) = status.trouble() {
                impaired.insert(InstanceId::from(id), trouble);
            }
        }
    }
    Ok(impaired)
}

/// When to look, and how long what was seen counts.
#[derive(Debug)]
struct Pace {
    interval_ms: u64,
    due_ms: u64,
    is_under_way: bool,
    /// When the last look succeeded; `None` once that has expired.
    heard_ms: Option<u64>,
    is_settled: bool,
}

impl Pace {
    fn new(interval_ms: u64) -> Self {
        Self { interval_ms, due_ms: 0, is_under_way: false, heard_ms: None, is_settled: false }
    }

    fn starts(&mut self, is_holder: bool, now_ms: u64) -> bool {
        if !is_holder {
            (self.is_settled, self.due_ms) = (false, now_ms);
            return false;
        }
        let starts = !self.is_under_way && now_ms >= self.due_ms;
        if starts {
            (self.is_under_way, self.due_ms) = (true, now_ms + self.interval_ms);
        }
        starts
    }

    fn ended(&mut self, succeeded: bool, now_ms: u64) {
        (self.is_under_way, self.is_settled) = (false, true);
        if succeeded {
            self.heard_ms = Some(now_ms);
        }
    }

    fn expires(&mut self, now_ms: u64) -> bool {
        let counts_for = WORD_COUNTS_FOR * self.interval_ms;
        let expires = self.heard_ms.is_some_and(|heard_ms| now_ms >= heard_ms + counts_for);
        if expires {
            self.heard_ms = None;
        }
        expires
    }
}

/// Tells Auto Scaling which instances to replace, apart from the writes to the store, which must not wait
/// for it.
#[derive(Debug)]
pub struct Groups(mpsc::Sender<InstanceId>);

impl Groups {
    /// `router` is who this is, for people.
    pub fn start(service: AutoScaling, store: Store, router: &str) -> Self {
        let (waiting, ids) = mpsc::channel(WAITING);
        tokio::spawn(tell(service, store, format!("router {router}"), ids));
        Self(waiting)
    }

    /// Never waits.
    pub fn replace(&self, id: &InstanceId) {
        if is_instance_id(id.as_str()) && self.0.try_send(id.clone()).is_err() {
            tracing::warn!(instance = %id, "Auto Scaling is not told: {WAITING} others wait");
        }
    }
}

/// The outcome goes on record afterwards: the drain that it belongs to is there already.
async fn tell(
    service: AutoScaling,
    store: Store,
    operator: String,
    mut ids: mpsc::Receiver<InstanceId>,
) {
    while let Some(id) = ids.recv().await {
        let outcome = match service.set_unhealthy(id.as_str()).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_looks_at_once_and_then_every_interval() {
        let mut pace = Pace::new(1_000);
        assert!(!pace.starts(false, 5_000) && !pace.is_settled);
        assert!(pace.starts(true, 5_010));
        assert!(!pace.starts(true, 9_000), "one is under way");
        pace.ended(false, 9_010);
        assert!(pace.is_settled, "EC2 that fails holds nothing up for longer");
        assert!(pace.starts(true, 9_010));
        pace.ended(true, 9_020);
        assert!(!pace.starts(true, 10_009));
        assert!(pace.starts(true, 10_010));
        assert!(!pace.starts(false, 10_020) && !pace.is_settled, "the lease is gone");
        pace.ended(true, 10_030);
        assert!(pace.starts(true, 10_040), "the next holder's first look does not wait");
    }

    #[test]
    fn a_word_expires_once_after_three_intervals() {
        let mut pace = Pace::new(1_000);
        assert!(!pace.expires(u64::MAX), "nothing was said");
        pace.ended(true, 500);
        pace.ended(false, 1_500);
        assert!(!pace.expires(3_499));
        assert!(pace.expires(3_500) && !pace.expires(9_000));
        pace.ended(true, 10_000);
        assert!(!pace.expires(12_999) && pace.expires(13_000));
    }
}
