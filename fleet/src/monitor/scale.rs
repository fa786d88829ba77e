//! What a region that takes other regions' traffic asks of its auto-scaler.
//!
//! Each region's lease holder asks for its own region, so no pool's capacity has two writers. A failover that
//! grows asks for more. Its way back by steps asks for nothing; when all traffic is back, so is the capacity
//! of before.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    failover::{Handler, Wish},
    model::{Capacity, PoolId, Region, RegionId, ScalingDecision, Stamp, Timestamp},
    snapshot::Member,
};

/// How often it is looked at while traffic is elsewhere.
const LOOK_EVERY_MS: u64 = 1_000;
/// How often it is asked for again: what was asked for may be lost on its way to the store, or undone by a
/// former holder that was late.
const ASKED_EVERY_MS: u64 = 20_000;
/// Regions that a reason names.
const MOST_NAMED: usize = 4;

/// How many instances more a pool of home should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    pub pool: PoolId,
    /// Instances that should serve there, and those of them that take requests.
    pub instances: u32,
    pub ready: u32,
    /// For other regions' traffic; 0 where all of that is back.
    pub extra: u32,
    pub reason: String,
    pub stamp: Stamp,
    pub at: Timestamp,
}

impl Scaling {
    /// What to store over what is stored; `None` where nothing changes. What was asked for before, by whichever
    /// holder of the lease, is not taken back while traffic is still here.
    pub fn over(&self, stored: Option<&Capacity>, home: &RegionId) -> Option<Capacity> {
        let decision = stored.and_then(|stored| stored.last_decision.as_ref());
        let raised = decision.filter(|decision| decision.failover);
        let wanted = stored.map_or(0, |stored| stored.desired).max(self.instances);
        let usual = raised.map_or(wanted, |raised| raised.from);
        let before = raised.map_or(usual, |raised| raised.to);
        let desired = if self.extra == 0 { usual } else { before.max(usual + self.extra) };
        if desired == before {
            return None;
        }
        let is_raised = self.extra > 0;
        Some(Capacity {
            region: home.clone(),
            pool: self.pool.clone(),
            written_by: home.clone(),
            stamp: self.stamp,
            desired,
            in_service: Some(self.ready),
            pending: None,
            last_decision: Some(ScalingDecision {
                at: self.at,
                from: if is_raised { usual } else { before },
                to: desired,
                reason: self.reason.clone(),
                failover: is_raised,
            }),
            at: self.at,
        })
    }
}

/// What a region's traffic does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Move {
    /// Of its own traffic, what goes elsewhere: of a failover by hand all, as soon as it is ordered.
    share: f64,
    /// Who is to take it first.
    to: Option<RegionId>,
}

pub(super) fn moves(handler: &Handler, regions: &[Region]) -> BTreeMap<RegionId, Move> {
    let of = |region: &RegionId| match handler.ordered(region).map(|order| &order.wish) {
        Some(Wish::FailOver { to, .. }) => Move { share: 1.0, to: to.clone() },
        _ => Move { share: 1.0 - handler.share(region), to: None },
    };
    regions.iter().map(|region| (region.id.clone(), of(&region.id))).collect()
}

/// A pool's instances in a region.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    instances: u32,
    ready: u32,
}

type Sizes = BTreeMap<PoolId, BTreeMap<RegionId, Size>>;

fn sizes(members: impl Iterator<Item = Member>) -> Sizes {
    let mut sizes = Sizes::new();
    for member in members {
        let registration = &member.standing.registration;
        let pool = sizes.entry(registration.pool.clone()).or_default();
        let size = pool.entry(registration.region.clone()).or_default();
        size.instances += 1;
        size.ready += u32::from(member.is_ready());
    }
    sizes
}

/// What was asked for under the lease that this router holds.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    asked: BTreeMap<PoolId, Asked>,
    epoch: Option<u64>,
    /// There is something to ask for that had no room.
    has_more: bool,
    stamp: Option<Stamp>,
    looks_ms: u64,
    /// With all traffic where it belongs.
    rests_until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    extra: u32,
    at_ms: u64,
}

impl Asked {
    fn is_due_again(&self, now_ms: u64) -> bool {
        now_ms >= self.at_ms.saturating_add(ASKED_EVERY_MS)
    }
}

impl Scaler {
    /// What to ask for now, `room` things at most, by the instances that count. A new holder asks once for
    /// everything, also for nothing more: what a holder before it asked for may have to be taken back.
    pub fn handle(
        &mut self,
        home: &RegionId,
        moves: &BTreeMap<RegionId, Move>,
        members: impl Iterator<Item = Member>,
        (epoch, room): (u64, usize),
        (now_ms, at): (u64, Timestamp),
    ) -> Vec<Scaling> {
        if self.epoch != Some(epoch) {
            (self.epoch, self.looks_ms, self.has_more) = (Some(epoch), now_ms, true);
            self.asked.clear();
        }
        let from: Vec<&RegionId> = moves
            .iter()
            .filter(|(id, it)| *id != home && it.share > 0.0)
            .map(|(id, _)| id)
            .collect();
        let is_idle = from.is_empty() && self.asked.values().all(|asked| asked.extra == 0);
        let rests = is_idle && !self.has_more && now_ms < self.rests_until_ms;
        if rests || now_ms < self.looks_ms {
            return Vec::new();
        }
        (self.looks_ms, self.rests_until_ms) = (now_ms + LOOK_EVERY_MS, now_ms + ASKED_EVERY_MS);
        let sizes = sizes(members);
        let reason = reason(&from);
        let pools: BTreeSet<PoolId> = sizes.keys().chain(self.asked.keys()).cloned().collect();
        let mut scalings = Vec::new();
        self.has_more = false;
        for pool in pools {
            let regions = sizes.get(&pool);
            let Size { instances, ready } =
                regions.and_then(|regions| regions.get(home)).copied().unwrap_or_default();
            let last = self.asked.get(&pool).copied();
            let extra = match from.is_empty() {
                true => 0,
                false => {
                    let asked = last.map_or(0, |last| last.extra);
                    regions.map_or(0, |it| extra(home, moves, it)).max(asked)
                }
            };
            if last.is_none_or(|last| last.extra != extra || last.is_due_again(now_ms)) {
                if scalings.len() >= room {
                    self.has_more = true;
                    break;
                }
                let stamp = Stamp::next(self.stamp, epoch);
                self.stamp = Some(stamp);
                self.asked.insert(pool.clone(), Asked { extra, at_ms: now_ms });
                let reason = reason.clone();
                scalings.push(Scaling { pool, instances, ready, extra, reason, stamp, at });
            }
        }
        scalings
    }
}

/// As many instances as did home's part of the traffic where it comes from.
fn extra(
    home: &RegionId,
    moves: &BTreeMap<RegionId, Move>,
    pool: &BTreeMap<RegionId, Size>,
) -> u32 {
    let asked = pool.iter().filter(|(region, _)| *region != home).filter_map(|(region, size)| {
        let it = moves.get(region).filter(|it| it.share > 0.0)?;
        Some(f64::from(size.instances) * it.share * part(home, region, it, moves, pool))
    });
    // Products of thirds come out a little above what they are.
    (asked.sum::<f64>() - 1e-6).ceil() as u32
}

/// Home's part of what a region gives away: of those that keep all of their own traffic, by their instances
/// that take requests; the region that an operator named takes it all.
fn part(
    home: &RegionId,
    from: &RegionId,
    it: &Move,
    moves: &BTreeMap<RegionId, Move>,
    pool: &BTreeMap<RegionId, Size>,
) -> f64 {
    let ready = |region: &RegionId| {
        let is_whole = region != from && moves.get(region).is_some_and(|it| it.share <= 0.0);
        let size = pool.get(region).filter(|_| is_whole);
        size.map_or(0.0, |size| f64::from(size.ready))
    };
    if let Some(to) = it.to.as_ref().filter(|to| ready(to) > 0.0) {
        return if to == home { 1.0 } else { 0.0 };
    }
    let all: f64 = pool.keys().map(ready).sum();
    if all > 0.0 { ready(home) / all } else { 0.0 }
}

fn reason(from: &[&RegionId]) -> String {
    if from.is_empty() {
        return "other regions' traffic is back".to_owned();
    }
    let named: Vec<_> = from.iter().take(MOST_NAMED).map(|region| region.as_str()).collect();
    let more = match from.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("takes traffic of {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests;
