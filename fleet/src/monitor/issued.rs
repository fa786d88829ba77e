//! The actions that were issued, until the state shows them: it needs a while to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::actions::Action;
use crate::{
    failover::{RegionRecord, RegionStatus},
    model::{DesiredState, InstanceId, Lifecycle, PoolId, RegionId, Stamp, Standing, Timestamp},
};

/// How often a record is written again though nothing has changed, so that the others know that its writer
/// lives.
const RECORD_EVERY_MS: u64 = 5_000;
/// How long the state has to show an action before it is issued again.
const SHOWN_WITHIN_MS: u64 = 15_000;
/// Instances that are drained at one evaluation; the others have their turn at the next.
const MAX_DRAINS: usize = 32;

/// What was done that the state may not show yet.
#[derive(Debug, Default)]
pub(super) struct Issued {
    wished: HashMap<InstanceId, (DesiredState, u64)>,
    recorded: BTreeMap<RegionId, (RegionStatus, u64)>,
    stamp: Option<Stamp>,
}

impl Issued {
    /// What to do about home's instances: those that fail, each with what is wrong, and those that a router
    /// drained and that are well again. With how many a pool has, and the share of it that may be drained.
    pub fn remedies<'a>(
        &mut self,
        failing: &[(&Arc<Standing>, &str)],
        recovered: impl IntoIterator<Item = &'a Arc<Standing>>,
        (pools, max_share): (&BTreeMap<PoolId, u32>, f64),
        now_ms: u64,
    ) -> Vec<Action> {
        self.wished.retain(|_, (_, at_ms)| now_ms < *at_ms + SHOWN_WITHIN_MS);
        let mut actions = Vec::new();
        for standing in recovered {
            if self.is_new(standing, DesiredState::Serving) {
                self.wish(standing, DesiredState::Serving, now_ms);
                actions.push(Action::Release { instance: Arc::clone(standing) });
            }
        }
        let mut failing_by_pool: BTreeMap<&PoolId, usize> = BTreeMap::new();
        for (standing, _) in failing {
            *failing_by_pool.entry(&standing.registration.pool).or_default() += 1;
        }
        for (standing, reason) in failing {
            let pool = &standing.registration.pool;
            let instances = pools.get(pool).copied().unwrap_or_default();
            let failing = failing_by_pool.get(pool).copied().unwrap_or_default();
            let serves = standing.lifecycle() == Lifecycle::Available;
            if serves
                && actions.len() < MAX_DRAINS
                && may_be_drained(failing, instances, max_share)
                && self.is_new(standing, DesiredState::Draining)
            {
                self.wish(standing, DesiredState::Draining, now_ms);
                let (instance, reason) = (Arc::clone(standing), (*reason).to_owned());
                actions.push(Action::Replace { instance, reason });
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

/// Where much of a pool fails, replacing it would not help: it is the network, the probes' own way, or
/// what they all run. One may always be replaced.
fn may_be_drained(failing: usize, instances: u32, max_share: f64) -> bool {
    failing <= 1 || failing as f64 <= f64::from(instances) * max_share
}

/// Whether a router drains it.
pub(super) fn is_drained(standing: &Standing) -> bool {
    let drains = |desired: &crate::model::Desired| {
        desired.automatic && desired.state == DesiredState::Draining
    };
    standing.desired.as_ref().is_some_and(drains)
}
