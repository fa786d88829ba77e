//! The actions that were issued, until the state shows them: it needs a while to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{actions::Action, tally};
use crate::{
    failover::{RegionRecord, RegionStatus},
    health::Verdict,
    model::{DesiredState, InstanceId, Lifecycle, PoolId, RegionId, Stamp, Standing, Timestamp},
};

/// How often a record is written again though nothing has changed, so that the others know that its writer
/// lives.
const RECORD_EVERY_MS: u64 = 5_000;
/// How long the state has to show an action before it is issued again.
const SHOWN_WITHIN_MS: u64 = 15_000;
/// Instances that are drained at one evaluation; the others have their turn at the next.
const MAX_DRAINS: usize = 32;

/// What probes and the cloud say of an instance.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    Unknown,
    Well,
    Failing { reason: &'a str },
}

impl<'a> Condition<'a> {
    pub fn new(impaired: Option<&'a String>, verdict: &'a Verdict) -> Self {
        match (impaired, verdict) {
            (Some(reason), _) | (None, Verdict::Unhealthy { reason, .. }) => {
                Self::Failing { reason }
            }
            (None, Verdict::Healthy) => Self::Well,
            (None, Verdict::Unknown) => Self::Unknown,
        }
    }
}

/// What was done that the state may not show yet.
#[derive(Debug, Default)]
pub(super) struct Issued {
    wished: HashMap<InstanceId, (DesiredState, u64)>,
    recorded: BTreeMap<RegionId, (RegionStatus, u64)>,
    stamp: Option<Stamp>,
}

impl Issued {
    /// What to do about home's instances.
    pub fn remedies(
        &mut self,
        max_share: f64,
        instances: &[(&Arc<Standing>, Condition<'_>)],
        now_ms: u64,
    ) -> Vec<Action> {
        self.wished.retain(|_, (_, at_ms)| now_ms < *at_ms + SHOWN_WITHIN_MS);
        let mut pools: BTreeMap<&PoolId, PoolHealth<'_>> = BTreeMap::new();
        let mut actions = Vec::new();
        for (standing, condition) in
            instances.iter().filter(|(standing, _)| tally::counts(standing))
        {
            let pool = pools.entry(&standing.registration.pool).or_default();
            pool.instances += 1;
            match condition {
                Condition::Failing { reason } => pool.failing.push((standing, reason)),
                Condition::Well
                    if is_drained(standing) && self.is_new(standing, DesiredState::Serving) =>
                {
                    self.wish(standing, DesiredState::Serving, now_ms);
                    actions.push(Action::Release { instance: Arc::clone(standing) });
                }
                Condition::Well | Condition::Unknown => {}
            }
        }
        for pool in pools.values().filter(|pool| pool.may_be_drained(max_share)) {
            for (standing, reason) in &pool.failing {
                let serves = standing.lifecycle() == Lifecycle::Available;
                if serves
                    && self.is_new(standing, DesiredState::Draining)
                    && actions.len() < MAX_DRAINS
                {
                    self.wish(standing, DesiredState::Draining, now_ms);
                    let (instance, reason) = (Arc::clone(standing), (*reason).to_owned());
                    actions.push(Action::Replace { instance, reason });
                }
            }
        }
        actions
    }

    /// What to write of the regions as the lease's holder in `epoch`. Where another holds it by now, its
    /// epoch is higher, and these writes are refused.
    pub fn records(
        &mut self,
        writer: (&RegionId, &str),
        statuses: Vec<RegionStatus>,
        epoch: u64,
        (now_ms, at): (u64, Timestamp),
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for status in statuses {
            let last = self.recorded.get(&status.region);
            let is_due = last.is_none_or(|(last, at_ms)| {
                last.says_other(&status) || now_ms >= at_ms + RECORD_EVERY_MS
            });
            if is_due {
                let stamp = Stamp::next(self.stamp, epoch);
                self.stamp = Some(stamp);
                actions.push(Action::Record(RegionRecord::new(&status, writer, stamp, at)));
                self.recorded.insert(status.region.clone(), (status, now_ms));
            }
        }
        actions
    }

    fn is_new(&self, standing: &Standing, wish: DesiredState) -> bool {
        self.wished.get(&standing.registration.id).is_none_or(|(wished, _)| *wished != wish)
    }

    fn wish(&mut self, standing: &Standing, wish: DesiredState, now_ms: u64) {
        self.wished.insert(standing.registration.id.clone(), (wish, now_ms));
    }
}

/// A pool's instances at home that should serve.
#[derive(Default)]
struct PoolHealth<'a> {
    instances: usize,
    failing: Vec<(&'a Arc<Standing>, &'a str)>,
}

impl PoolHealth<'_> {
    /// Where much of a pool fails, replacing it would not help: it is the network, the probes' own way, or
    /// what they all run. One may always be replaced.
    fn may_be_drained(&self, max_share: f64) -> bool {
        self.failing.len() <= 1 || self.failing.len() as f64 <= self.instances as f64 * max_share
    }
}

/// Whether a router drains it.
pub(super) fn is_drained(standing: &Standing) -> bool {
    let drains = |desired: &crate::model::Desired| {
        desired.automatic && desired.state == DesiredState::Draining
    };
    standing.desired.as_ref().is_some_and(drains)
}
