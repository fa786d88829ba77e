//! `GET /cluster`: the whole fleet's load, from what every router stored.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
};
use mrgc_fleet::model::{
    ClusterHealth, Load, Percentiles, PoolId, PoolMetrics, RegionId, RegionLoad,
};
use mrgc_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Context, api::Answer};
use crate::problem::Refusal;

const DEFAULT_MINUTES: u32 = 5;
const MAX_MINUTES: u32 = 60;
/// For all reads together; each has the store's own deadline, too.
const READ_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Window {
    minutes: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { minutes: DEFAULT_MINUTES }
    }
}

/// The fleet over the minutes of a window. What was not measured is `None`.
#[derive(Debug, Serialize)]
pub(super) struct Cluster {
    minutes: u32,
    total: LoadBody,
    regions: BTreeMap<RegionId, RegionBody>,
}

#[derive(Debug, Serialize)]
struct RegionBody {
    total: LoadBody,
    pools: BTreeMap<PoolId, PoolBody>,
}

#[derive(Debug, PartialEq, Serialize)]
struct PoolBody {
    #[serde(flatten)]
    load: LoadBody,
    /// From a request's arrival at a router to the end of its response, of successful ones.
    latency: Option<Percentiles>,
}

#[derive(Debug, PartialEq, Serialize)]
struct LoadBody {
    /// Registered instances.
    instances: u64,
    requests_per_second: Option<f64>,
    /// Requests waiting at an instance, as a mean over instances and time.
    average_queue_depth: Option<f64>,
}

impl From<&Load> for LoadBody {
    fn from(load: &Load) -> Self {
        Self {
            instances: load.instances,
            requests_per_second: load.requests_per_second,
            average_queue_depth: load.average_queue_depth(),
        }
    }
}

/// What was measured of each region's pools.
type Measured = BTreeMap<RegionId, BTreeMap<PoolId, PoolMetrics>>;

impl Cluster {
    fn new(minutes: u32, health: &ClusterHealth, measured: &Measured) -> Self {
        let region = |(id, load): (&RegionId, &RegionLoad)| {
            let metrics = measured.get(id);
            let pool = |(pool, load): (&PoolId, &Load)| {
                let metrics = metrics.and_then(|metrics| metrics.get(pool));
                let latency = metrics.and_then(PoolMetrics::latency_percentiles);
                (pool.clone(), PoolBody { load: load.into(), latency })
            };
            let pools = load.pools.iter().map(pool).collect();
            (id.clone(), RegionBody { total: (&load.total).into(), pools })
        };
        Self {
            minutes,
            total: (&health.total).into(),
            regions: health.regions.iter().map(region).collect(),
        }
    }
}

pub(super) async fn summary(
    State(context): State<Arc<Context>>,
    Query(Window { minutes }): Query<Window>,
) -> Answer<Cluster> {
    if !(1..=MAX_MINUTES).contains(&minutes) {
        let why = format!("minutes = {minutes} is not within 1 and {MAX_MINUTES}");
        return Err(Refusal::BadRequest(why).into());
    }
    let Some(store) = &context.store else {
        let why = "this router has none; measurements are kept where a [store] is configured";
        return Err(Refusal::StoreUnread(why.to_owned()).into());
    };
    match timeout(READ_DEADLINE, read(store, minutes)).await {
        Ok(Ok((health, measured))) => Ok(Json(Cluster::new(minutes, &health, &measured))),
        Ok(Err(e)) => Err(Refusal::StoreUnread(e.to_string()).into()),
        Err(_) => {
            let why = format!("no answer within {} s", READ_DEADLINE.as_secs());
            Err(Refusal::StoreUnread(why).into())
        }
    }
}

/// The summary, and the distributions behind it.
async fn read(store: &Store, minutes: u32) -> Result<(ClusterHealth, Measured), StoreError> {
    let (mut loads, mut measured) = (BTreeMap::new(), Measured::new());
    for (region, (load, metrics)) in store.region_loads(minutes).await? {
        loads.insert(region.clone(), load);
        measured.insert(region, metrics);
    }
    Ok((ClusterHealth::new(loads), measured))
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::model::{PoolMinute, Sample, Timestamp};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_not_measured_is_null_and_never_0() {
        let mut busy = PoolMetrics::default();
        let mut minute = PoolMinute {
            region: "us".into(),
            pool: "busy".into(),
            writer: "router-1".to_owned(),
            minute: Timestamp(0),
            measured: Default::default(),
            expires_at: 0,
        };
        for sample in [
            Sample::RequestsPerSecond(2.5),
            Sample::QueueDepth(0),
            Sample::QueueDepth(3),
            Sample::InferenceLatency { ms: 8.0 },
        ] {
            assert!(minute.measured.record(&sample));
        }
        busy.add(&minute);
        let metrics = BTreeMap::from([("busy".into(), busy)]);
        let load = RegionLoad::new(["busy".into(), "new".into(), "new".into()], &metrics);
        let regions = BTreeMap::from([("eu".into(), RegionLoad::default()), ("us".into(), load)]);
        let measured = Measured::from([("us".into(), metrics)]);

        let cluster = Cluster::new(5, &ClusterHealth::new(regions), &measured);
        let total = json!({
            "instances": 3, "requests_per_second": 2.5, "average_queue_depth": 1.5,
        });
        let unmeasured = |instances: u64| {
            json!({
                "instances": instances, "requests_per_second": null, "average_queue_depth": null,
            })
        };
        let mut new = unmeasured(2);
        new["latency"] = json!(null);
        let busy = json!({
            "instances": 1, "requests_per_second": 2.5, "average_queue_depth": 1.5,
            "latency": { "p50_ms": 8.0, "p95_ms": 8.0, "p99_ms": 8.0 },
        });
        let wanted = json!({
            "minutes": 5,
            "total": total,
            "regions": {
                "eu": { "total": unmeasured(0), "pools": {} },
                "us": { "total": total, "pools": { "busy": busy, "new": new } },
            },
        });
        assert_eq!(serde_json::to_value(&cluster).ok(), Some(wanted));
    }
}
