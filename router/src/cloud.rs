//! What AWS knows of this region's machines, and what it is told of them.
//!
//! EC2 is asked by the router that holds the region's lease of health: what it finds failing is drained and
//! replaced, as what probes find. EC2 that is silent, throttles or garbles changes nothing, until what it
//! said last has grown old and is forgotten.

mod groups;
mod pace;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use mrgc_aws::{AutoScaling, CallError, Ec2, MAX_INSTANCES, Session, is_instance_id};
use mrgc_fleet::{
    model::InstanceId,
    monitor::{Gone, Monitor},
};
use tokio::sync::mpsc;

pub use self::groups::Groups;
use self::pace::Pace;
use crate::{
    config::Config,
    health::{Check, HealthBoard},
    monitor::Event,
};

/// All attempts at one question of a look.
const LOOK_PATIENCE: Duration = Duration::from_secs(20);
/// Of the router's health.
const PART: &str = "ec2";

/// All attempts to tell a group of one instance.
const TELL_PATIENCE: Duration = Duration::from_secs(60);
const TERMINATED: &str = "terminated";

/// What a look found.
pub type Look = Result<Seen, CallError>;

/// What EC2 says of home's instances.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those in trouble, each with what is wrong.
    impaired: BTreeMap<InstanceId, String>,
    gone: BTreeMap<InstanceId, Gone>,
}

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
        if !is_holder && self.pace.is_held() {
            self.looks.stopped();
            self.health.set(PART, Check::ok());
        }
        if self.pace.expires(now_ms) {
            tracing::info!("EC2's last word on the instances has expired");
            Seen::default().tell(monitor);
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
        // Until EC2 has answered this holder, one that it calls impaired would be released, which the holder
        // before drained for that.
        monitor.hold_releases(!self.pace.is_settled());
    }

    pub fn looked(&mut self, look: Look, monitor: &mut Monitor, now_ms: u64) {
        self.pace.ended(look.is_ok(), now_ms);
        match look {
            Ok(seen) => {
                self.health.set(PART, Check::ok());
                seen.tell(monitor);
            }
            Err(error) => {
                let why = format!("EC2's status of the instances is not known: {error}");
                tracing::warn!("{why}");
                self.health.set(PART, Check::degraded(why));
            }
        }
    }
}

impl Seen {
    fn tell(self, monitor: &mut Monitor) {
        monitor.impaired(self.impaired);
        monitor.gone(self.gone);
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
    let mut seen = Seen::default();
    for batch in ids.chunks(MAX_INSTANCES) {
        let batch: Vec<_> = batch.iter().map(String::as_str).collect();
        let statuses = ec2.instance_status(&batch).await?;
        for id in batch {
            let status = statuses.get(id);
            let gone = match status {
                None => Some(Gone::Unknown),
                Some(status) => (status.state == TERMINATED).then_some(Gone::Terminated),
            };
            seen.gone.extend(gone.map(|gone| (InstanceId::from(id), gone)));
            let trouble = status.and_then(|status| status.trouble());
            seen.impaired.extend(trouble.map(|trouble| (InstanceId::from(id), trouble)));
        }
    }
    Ok(seen)
}
