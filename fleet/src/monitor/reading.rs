//! What is read of the store, and what becomes of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    failover::{RegionOrder, RegionRecord},
    model::{Health, InstanceId, Lifecycle, Region, RegionId, Standing},
};

use super::{issued::is_drained, tally};

/// What was read of the store.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub regions: Vec<Region>,
    /// One that did not change is the same allocation as before.
    pub standings: Vec<Arc<Standing>>,
    pub orders: Vec<RegionOrder>,
    /// What the lease holder of this region says of each.
    pub records: Vec<RegionRecord>,
}

/// For how long no report of an instance that a router drained comes before it counts no more: it is not
/// coming back.
pub const MISSING_AFTER_MS: u64 = 30 * 60 * 1_000;

/// An instance as it was read.
#[derive(Debug)]
pub(super) struct Heard {
    pub standing: Arc<Standing>,
    pub is_fresh: bool,
    /// No report of it has come for [`MISSING_AFTER_MS`].
    pub is_silent: bool,
}

impl Heard {
    pub fn id(&self) -> &InstanceId {
        &self.standing.registration.id
    }

    /// Whether it should take requests, so that it has failed where it does not. One that was drained for
    /// failing and says nothing for long does not any more: else the dead would keep a region degraded, and
    /// others from being drained, for ever.
    pub fn counts(&self) -> bool {
        tally::counts(&self.standing) && !(self.is_silent && is_drained(&self.standing))
    }

    /// Whether its probes fail, its machine is impaired, its reports do not come any more, or it calls itself
    /// unhealthy. Never of one that drains by plan: it finishes what it has. One that a router drains is
    /// drained for such evidence.
    pub fn is_condemned(&self, is_failing: bool) -> bool {
        let Self { standing, is_fresh, .. } = self;
        let is_to_serve = standing.lifecycle() == Lifecycle::Available || is_drained(standing);
        let says_so = standing.report.as_ref().is_some_and(|r| r.health == Health::Unhealthy);
        is_to_serve && (is_failing || !is_fresh || says_so)
    }
}

/// One order for each region: of several regions' opinions, those that do not count must not act for a moment.
pub(super) fn merged(orders: Vec<RegionOrder>) -> impl Iterator<Item = RegionOrder> {
    let mut by_region: BTreeMap<RegionId, RegionOrder> = BTreeMap::new();
    for order in orders {
        let order = match by_region.remove(&order.region) {
            Some(before) => before.merge(order),
            None => order,
        };
        by_region.insert(order.region.clone(), order);
    }
    by_region.into_values()
}
