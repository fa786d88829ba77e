//! The actions that were issued, until the state shows them: it needs a while to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::actions::{Action, Gone};
use crate::{
    failover::{RegionRecord, RegionStatus},
    model::{DesiredState, InstanceId, Lifecycle, PoolId, RegionId, Stamp, Standing, Timestamp},
};

/// How often a record is written again though nothing has changed, so that the others know that its writer
/// lives.
const RECORD_EVERY_MS: u64 = 5_000;
/// How long the state has to show an action before it is issued again.
pub const SHOWN_WITHIN_MS: u64 = 15_000;
/// How often it is asked again to replace an instance that is drained and still fails.
const ASKED_EVERY_MS: u64 = 60_000;
/// Of each kind, at one evaluation; the others have their turn at the next.
const MAX_DRAINS: usize = 32;
const MAX_RELEASES: usize = 32;
const MAX_ASKED_AGAIN: usize = 8;
const MAX_FORGOTTEN: usize = 8;

/// What was done that the state may not show yet.
#[derive(Debug, Default)]
pub(super) struct Issued {
    remedies: HashMap<InstanceId, (Remedy, u64)>,
    recorded: BTreeMap<RegionId, (RegionStatus, u64)>,
    stamp: Option<Stamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    Replace,
    Release,
    Forget,
}

/// Home's instances that something is to be done about.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Each with what is wrong.
    pub failing: Vec<(&'a Arc<Standing>, &'a str)>,
    /// Those that a router drained and that are well again.
    pub recovered: Vec<&'a Arc<Standing>>,
    pub gone: Vec<(&'a Arc<Standing>, Gone)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// For actions of all kinds.
    pub room: usize,
    /// With how many a pool has.
    pub pools: &'a BTreeMap<PoolId, u32>,
    /// Of a pool.
    pub max_drained_share: f64,
}

impl Issued {
    /// What to do about those that were found.
    pub fn remedies(&mut self, found: Found<'_>, limits: Limits<'_>, now_ms: u64) -> Vec<Action> {
        self.remedies.retain(|_, (_, at_ms)| now_ms < *at_ms + ASKED_EVERY_MS);
        let mut actions = Vec::new();
        let is_new = |issued: &mut Self, instance: &Standing, remedy| {
            issued.is_due(instance, remedy, SHOWN_WITHIN_MS, now_ms)
        };
        let released = found.recovered.into_iter().filter(|i| is_new(self, i, Remedy::Release));
        let release = |instance: &Arc<Standing>| Action::Release { instance: instance.clone() };
        actions.extend(released.take(MAX_RELEASES.min(limits.room)).map(release));

        let room = limits.room - actions.len();
        let forgotten = found.gone.into_iter().filter(|(i, _)| is_new(self, i, Remedy::Forget));
        let forget = |(instance, gone): (&Arc<Standing>, Gone)| Action::Forget {
            instance: instance.clone(),
            gone,
        };
        actions.extend(forgotten.take(MAX_FORGOTTEN.min(room)).map(forget));

        let replace = |(instance, reason): &(&Arc<Standing>, &str)| Action::Replace {
            instance: Arc::clone(instance),
            reason: (*reason).to_owned(),
        };
        let room = limits.room - actions.len();
        let drained = limits.to_drain(&found.failing);
        let drained = drained.filter(|(i, _)| is_new(self, i, Remedy::Replace));
        actions.extend(drained.take(MAX_DRAINS.min(room)).map(replace));

        let room = limits.room - actions.len();
        let asked = found.failing.iter().filter(|(instance, _)| is_drained(instance));
        let asked = asked.filter(|(i, _)| self.is_due(i, Remedy::Replace, ASKED_EVERY_MS, now_ms));
        actions.extend(asked.take(MAX_ASKED_AGAIN.min(room)).map(replace));
        actions
    }

    /// Whether it was not issued within `again_ms`. Then it is, now.
    fn is_due(&mut self, instance: &Standing, remedy: Remedy, again_ms: u64, now_ms: u64) -> bool {
        let id = &instance.registration.id;
        let is_issued = |(issued, at_ms): &(Remedy, u64)| {
            *issued == remedy && now_ms < at_ms.saturating_add(again_ms)
        };
        let is_due = !self.remedies.get(id).is_some_and(is_issued);
        if is_due {
            self.remedies.insert(id.clone(), (remedy, now_ms));
        }
        is_due
    }

    /// What to write of the regions as the lease's holder in `epoch`: what is taken counts as written. Where
    /// another holds the lease by now, its epoch is higher, and these writes are refused.
    pub fn records<'a>(
        &'a mut self,
        writer: (&'a RegionId, &'a str),
        statuses: Vec<RegionStatus>,
        epoch: u64,
        (now_ms, at): (u64, Timestamp),
    ) -> impl Iterator<Item = Action> + 'a {
        statuses.into_iter().filter_map(move |status| {
            let last = self.recorded.get(&status.region);
            let is_due = last.is_none_or(|(last, at_ms)| {
                last.says_other(&status) || now_ms >= at_ms + RECORD_EVERY_MS
            });
            if !is_due {
                return None;
            }
            let stamp = Stamp::next(self.stamp, epoch);
            self.stamp = Some(stamp);
            let record = RegionRecord::new(&status, writer, stamp, at);
            self.recorded.insert(status.region.clone(), (status, now_ms));
            Some(Action::Record(record))
        })
    }
}

impl Limits<'_> {
    /// Of those that fail, the ones that serve and may be drained.
    fn to_drain<'a>(
        self,
        failing: &'a [(&'a Arc<Standing>, &'a str)],
    ) -> impl Iterator<Item = &'a (&'a Arc<Standing>, &'a str)> {
        let mut by_pool: BTreeMap<&PoolId, usize> = BTreeMap::new();
        for (instance, _) in failing {
            *by_pool.entry(&instance.registration.pool).or_default() += 1;
        }
        by_pool.retain(|pool, failing| {
            let instances = self.pools.get(*pool).copied().unwrap_or_default();
            may_be_drained(*failing, instances, self.max_drained_share)
        });
        let serves = |instance: &Standing| instance.lifecycle() == Lifecycle::Available;
        failing.iter().filter(move |(instance, _)| {
            serves(instance) && by_pool.contains_key(&instance.registration.pool)
        })
    }
}

/// Where much of a pool fails, replacing it would not help: it is the network, the probes' own way, or
/// what they all run. One may always be replaced.
fn may_be_drained(failing: usize, instances: u32, max_share: f64) -> bool {
    failing <= 1 || failing as f64 <= f64::from(instances) * max_share
}

/// Whether a router drains it.
pub fn is_drained(standing: &Standing) -> bool {
    let drains = |desired: &crate::model::Desired| {
        desired.automatic && desired.state == DesiredState::Draining
    };
    standing.desired.as_ref().is_some_and(drains)
}
