//! What regions can carry: a failover never knocks over the next region.

use std::collections::BTreeMap;

use crate::model::PoolId;

/// A request of this priority or more may fill a region to its last slot.
const FULL_PRIORITY: i32 = 10;
/// The least important that a request can be, and how much it may fill of what an ordinary one may.
const LEAST_PRIORITY: i32 = -100;
const LEAST_SHARE: f64 = 0.5;

/// A region as somewhere for one pool's requests to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lane {
    /// Of its own traffic, what it keeps: 0 to 1.
    pub share: f32,
    /// Requests that its ready instances can serve at once; `None` where nobody said.
    pub slots: Option<u32>,
    /// Requests being served there, as far as was reported.
    pub running: u32,
    pub healthy: u32,
    /// Whether it is the region of the router that reads this.
    pub home: bool,
    /// Takes nothing beyond its share, whatever else is left: it cannot be reached, or an operator fails it
    /// over.
    pub closed: bool,
    /// The lane that an operator's failover of this region names.
    pub to: Option<u32>,
}

impl Default for Lane {
    /// A region of which nothing is known.
    fn default() -> Self {
        Self {
            share: 1.0,
            slots: None,
            running: 0,
            healthy: 0,
            home: false,
            closed: false,
            to: None,
        }
    }
}

impl Lane {
    fn is_normal(&self) -> bool {
        self.share >= 1.0 && !self.closed
    }

    /// How many more requests of other regions fit below the limit; `None` where its slots are unknown.
    pub fn spare(&self, in_flight: u32, limit: Limit) -> Option<u32> {
        let used = self.running.max(in_flight);
        self.slots.map(|slots| limit.of(slots).saturating_sub(used))
    }

    /// Whether another request of another region fits. Where slots are unknown it does: the region's own
    /// router knows better, and refuses.
    pub fn has_room(&self, in_flight: u32, limit: Limit) -> bool {
        self.spare(in_flight, limit).is_none_or(|spare| spare > 0)
    }
}

/// How much of what is moved a region takes, beside the others it is drawn among: by its spare slots; by its
/// healthy instances where any one's slots are not known.
pub(super) fn weight(spare: Option<u32>, healthy: u32, all_known: bool) -> f64 {
    match spare {
        Some(spare) if all_known => f64::from(spare),
        _ => f64::from(healthy.max(1)),
    }
}

/// Up to which share of its slots other regions' requests may fill a region, so that what is shed is shed by
/// priority, the least important first: in a line from half of `max_utilization` at priority -100 to all of it
/// at priority 0, and from there to every slot at priority 10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit(f64);

impl Limit {
    /// To the last slot.
    pub const FULL: Self = Self(1.0);

    pub fn new(max_utilization: f64, priority: i32) -> Self {
        let way = |to: i32| (f64::from(priority) / f64::from(to)).min(1.0);
        Self(match priority {
            0.. => max_utilization + (1.0 - max_utilization) * way(FULL_PRIORITY),
            _ => max_utilization * (1.0 - (1.0 - LEAST_SHARE) * way(LEAST_PRIORITY)),
        })
    }

    /// In slots, rounded up, so that a region of one slot is of use.
    pub fn of(self, slots: u32) -> u32 {
        // Products such as 10 × 0.7 come out a little above what they are.
        ((f64::from(slots) * self.0 - 1e-9).ceil().max(0.0) as u32).min(slots)
    }
}

/// Where each pool's requests may go while not all regions are normal, by the snapshot from which it was
/// made: lanes that run parallel to the candidates of the pool's view of regions.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    lanes: BTreeMap<PoolId, Vec<Lane>>,
    max_utilization: f64,
    is_normal: bool,
}

impl Default for Steering {
    /// All regions are normal, as far as is known.
    fn default() -> Self {
        Self::new(BTreeMap::new(), 1.0)
    }
}

impl Steering {
    pub(super) fn new(lanes: BTreeMap<PoolId, Vec<Lane>>, max_utilization: f64) -> Self {
        let is_normal = lanes.values().flatten().all(Lane::is_normal);
        Self { lanes, max_utilization, is_normal }
    }

    /// Whether all regions keep all of their traffic, so that there is nothing to steer.
    pub fn is_normal(&self) -> bool {
        self.is_normal
    }

    /// The lanes of a pool; none where the pool was not known.
    pub fn lanes(&self, pool: &PoolId) -> &[Lane] {
        self.lanes.get(pool).map_or(&[], Vec::as_slice)
    }

    /// Up to where requests of this priority may fill a region that is not home to them.
    pub fn limit(&self, priority: i32) -> Limit {
        Limit::new(self.max_utilization, priority)
    }

    /// Whether home takes a request that was moved here from elsewhere: the last word, from the one who
    /// knows best. `in_flight` counts the pool's requests under way here.
    pub fn admits(&self, pool: &PoolId, in_flight: u32, priority: i32) -> bool {
        let home = self.lanes(pool).iter().find(|lane| lane.home);
        home.is_none_or(|home| !home.closed && home.has_room(in_flight, self.limit(priority)))
    }
}

#[cfg(test)]
mod tests;
