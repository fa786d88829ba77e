//! The fleet at one moment, immutable: what requests and policies read.
//!
//! A snapshot is made of **views**, one for each level × region × pool: the regions that have a pool,
//! and the instances of a region's pool. A view's id stays the same from one snapshot to the next, so
//! that policies can be shown just what changed.

mod build;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, Serializer};

use crate::failover::Steering;
use crate::model::{
    EnclaveState, Framework, Health, Location, PoolId, Region, RegionId, Standing, Timestamp,
};

pub use build::{Builder, Member, Seen};

/// The immutable view of the fleet.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// Raised by each snapshot of a router.
    pub version: u64,
    pub at: Timestamp,
    /// The region of the router that made it.
    pub home: RegionId,
    /// Every registered region, by id.
    pub regions: Vec<Region>,
    /// Every known instance, for people.
    #[serde(skip)]
    pub instances: Vec<Arc<Standing>>,
    #[serde(serialize_with = "as_list")]
    views: BTreeMap<ViewKey, Arc<View>>,
    #[serde(skip)]
    by_pool: BTreeMap<PoolId, PoolViews>,
    /// What share of its traffic stays in each region; set by whoever judges them.
    #[serde(skip)]
    pub steering: Arc<Steering>,
    /// Which pools serve a model, by its name.
    pools_by_model: BTreeMap<String, Vec<PoolId>>,
}

impl Snapshot {
    pub fn view(&self, key: &ViewKey) -> Option<&Arc<View>> {
        self.views.get(key)
    }

    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.views.values().map(Arc::as_ref)
    }

    /// The views; one that did not change is the same allocation from one snapshot to the next.
    pub fn shared_views(&self) -> impl Iterator<Item = &Arc<View>> {
        self.views.values()
    }

    /// The regions that have a pool.
    pub fn regions_with(&self, pool: &PoolId) -> Option<&Arc<View>> {
        self.by_pool.get(pool)?.regions.as_ref()
    }

    /// The instances of a pool in the home region.
    pub fn instances_at_home(&self, pool: &PoolId) -> Option<&Arc<View>> {
        self.by_pool.get(pool)?.at_home.as_ref()
    }

    /// The pools in which some instance serves the model.
    pub fn pools_serving(&self, model: &str) -> &[PoolId] {
        self.pools_by_model.get(model).map_or(&[], Vec::as_slice)
    }

    /// Every pool that has an instance somewhere.
    pub fn pools(&self) -> impl Iterator<Item = &PoolId> {
        self.by_pool.keys()
    }
}

/// The views of a pool between which a router decides.
#[derive(Debug, Default)]
struct PoolViews {
    regions: Option<Arc<View>>,
    at_home: Option<Arc<View>>,
}

impl PoolViews {
    fn of(views: &BTreeMap<ViewKey, Arc<View>>, home: &RegionId) -> BTreeMap<PoolId, Self> {
        let mut by_pool: BTreeMap<PoolId, Self> = BTreeMap::new();
        for (key, view) in views {
            let pool = by_pool.entry(key.pool.clone()).or_default();
            match (key.level, &key.region) {
                (Level::Region, _) => pool.regions = Some(view.clone()),
                (Level::Instance, Some(region)) if region == home => {
                    pool.at_home = Some(view.clone());
                }
                (Level::Instance, _) => {}
            }
        }
        by_pool
    }
}

/// Each view carries its key, and a key is no JSON string.
fn as_list<S: Serializer>(views: &BTreeMap<ViewKey, Arc<View>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(views.values())
}

/// Regions, or the instances of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Region,
    Instance,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ViewKey {
    pub level: Level,
    /// `None` at region level.
    pub region: Option<RegionId>,
    pub pool: PoolId,
}

/// The candidates among which one decision chooses.
#[derive(Debug, PartialEq, Serialize)]
pub struct View {
    pub id: u32,
    #[serde(flatten)]
    pub key: ViewKey,
    /// By id, so that equal fleets make equal views.
    pub candidates: Vec<Candidate>,
}

/// A place a request may go: a region, or an instance. What was not measured is `None`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    pub id: Arc<str>,
    pub level: Level,
    pub region: RegionId,
    pub pool: PoolId,
    /// Where requests are sent: an instance's `host:port`, a region's URL.
    pub address: Arc<str>,
    /// Whether it takes new requests, as far as the state tells: available, fresh and not unhealthy.
    pub ready: bool,
    /// Not ready, and only by evidence that may be wrong: its reports do not come or its probes fail, while
    /// it says itself that it serves. Never one that drains, is quarantined or calls itself unhealthy.
    pub last_resort: bool,
    pub zone: Option<Arc<str>>,
    pub provider: Option<Arc<str>>,
    pub location: Option<Location>,
    pub health: Health,
    /// 0 to 100.
    pub health_score: f64,
    /// Requests waiting; a region's is the mean over its instances.
    pub queue_depth: Option<f64>,
    /// Requests being served; a region's is the sum.
    pub running: Option<u32>,
    pub avg_latency_ms: Option<f64>,
    pub time_to_first_token_ms: Option<f64>,
    /// Requests being served over slots, 0 to 1.
    pub utilization: Option<f64>,
    pub slots: Option<u32>,
    /// Round trip from this router.
    pub rtt_ms: Option<f64>,
    pub gpu_utilization: Option<f64>,
    pub gpu_memory_free_bytes: Option<u64>,
    pub cost_multiplier: Option<f64>,
    pub cost_per_hour: Option<f64>,
    pub carbon_intensity: Option<f64>,
    /// A region's is the best of its instances'.
    pub enclave: EnclaveState,
    pub frameworks: Arc<[Framework]>,
    pub models: Arc<[String]>,
    pub instances: u32,
    pub healthy_instances: u32,
}

#[cfg(test)]
mod tests;
