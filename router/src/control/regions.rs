//! `/regions`: who is registered, and how each is by this router.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
};
use mrgc_fleet::{
    failover::{self, RegionState},
    model::{Region, RegionId},
    snapshot::{Candidate, Level},
};
use mrgc_store::StoreError;
use serde::{Deserialize, Serialize};

use super::{
    Context,
    api::{Answer, Problem},
};
use crate::{config::WrittenRegion, flight::FleetView, problem::Refusal};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    healthy_only: bool,
}

/// A region with how it is, over all its pools.
#[derive(Debug, Serialize)]
pub(super) struct RegionStatus {
    #[serde(flatten)]
    region: Region,
    #[serde(flatten)]
    health: RegionHealth,
}

#[derive(Debug, Serialize)]
pub(super) struct RegionHealth {
    status: Status,
    /// Share of instances that are ready and healthy, 0 to 100.
    health_score: f64,
    instances: u32,
    /// Those that take requests, as `/failover` counts them.
    ready_instances: u32,
    /// Those that do, and call themselves healthy.
    healthy_instances: u32,
    /// Percent of slots in use.
    capacity_utilization: Option<f64>,
    rtt_ms: Option<f64>,
}

/// A region in a word, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Healthy,
    /// It gives traffic away, or gets it back by steps.
    Degraded,
    /// It is failed over, or nobody there takes requests.
    Unhealthy,
}

impl Status {
    fn of(state: RegionState, ready_instances: u32) -> Self {
        match state {
            _ if ready_instances == 0 => Self::Unhealthy,
            RegionState::FailoverActive => Self::Unhealthy,
            RegionState::Degraded | RegionState::Recovering => Self::Degraded,
            RegionState::Normal => Self::Healthy,
        }
    }
}

/// All regions at one moment: one snapshot, and how the regions are judged.
pub(super) struct Look {
    pub(super) fleet: Arc<FleetView>,
    judged: Vec<failover::RegionStatus>,
}

impl Look {
    async fn take(context: &Context) -> Result<Self, Refusal> {
        Ok(Self::new(context, context.failover.status().await?.regions))
    }

    pub(super) fn new(context: &Context, judged: Vec<failover::RegionStatus>) -> Self {
        Self { fleet: context.conductor.fleet(), judged }
    }

    /// How many regions can be relied on, at least for a part of their traffic.
    pub(super) fn healthy_regions(&self) -> usize {
        let regions = self.fleet.snapshot.regions.iter();
        regions.filter(|region| self.health(&region.id).status != Status::Unhealthy).count()
    }

    fn regions(&self) -> impl Iterator<Item = RegionStatus> {
        let status = |region: &Region| RegionStatus {
            region: region.clone(),
            health: self.health(&region.id),
        };
        self.fleet.snapshot.regions.iter().map(status)
    }

    fn region(&self, id: &str) -> Result<RegionStatus, Refusal> {
        let found = self.regions().find(|found| found.region.id.as_str() == id);
        found.ok_or_else(|| Refusal::NotFound { what: "region", name: id.to_owned() })
    }

    fn health(&self, id: &RegionId) -> RegionHealth {
        let views = self.fleet.snapshot.views().filter(|view| view.key.level == Level::Region);
        let pools = views.flat_map(|view| &view.candidates).filter(|c| c.region == *id);
        let pools: Vec<&Candidate> = pools.collect();
        let sum = |number: fn(&Candidate) -> u32| total(pools.iter().map(|pool| number(pool)));
        let instances = sum(|pool| pool.instances);
        let healthy_instances = sum(|pool| pool.healthy_instances);
        let running = sum(|pool| pool.running.unwrap_or(0));
        let slots = sum(|pool| pool.slots.unwrap_or(0));
        let percent = |part: u32, all: u32| 100.0 * f64::from(part) / f64::from(all);

        let judged = self.judged.iter().find(|judged| judged.region == *id);
        let evidence = judged.and_then(|judged| judged.evidence);
        let ready_instances = evidence.map_or(0, |evidence| evidence.healthy);
        let state = judged.map_or(RegionState::Normal, |judged| judged.state);
        RegionHealth {
            status: Status::of(state, ready_instances),
            health_score: if instances > 0 { percent(healthy_instances, instances) } else { 0.0 },
            instances,
            ready_instances,
            healthy_instances,
            capacity_utilization: (slots > 0).then(|| percent(running, slots)),
            rtt_ms: pools.iter().find_map(|pool| pool.rtt_ms),
        }
    }
}

/// Numbers of agents, which may say anything.
fn total(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Query(wanted): Query<Wanted>,
) -> Answer<Vec<RegionStatus>> {
    let look = Look::take(&context).await?;
    let is_wanted = |r: &RegionStatus| !wanted.healthy_only || r.health.status != Status::Unhealthy;
    Ok(Json(look.regions().filter(is_wanted).collect()))
}

pub(super) async fn one(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<RegionStatus> {
    Ok(Json(Look::take(&context).await?.region(&id)?))
}

pub(super) async fn health(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<RegionHealth> {
    Ok(Json(Look::take(&context).await?.region(&id)?.health))
}

pub(super) async fn put(
    State(context): State<Arc<Context>>,
    body: Result<Json<WrittenRegion>, JsonRejection>,
) -> Result<(StatusCode, Json<Region>), Problem> {
    let Json(WrittenRegion(region)) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let problems = region.problems();
    if !problems.is_empty() {
        return Err(Refusal::BadRequest(problems.join("; ")).into());
    }
    let Some(store) = &context.store else {
        let why = "this router has no store: list the region in its configuration";
        return Err(Refusal::Store(why.to_owned()).into());
    };
    store.put_region(&region).await.map_err(|e| match e {
        StoreError::Invalid { .. } => Refusal::BadRequest(e.to_string()),
        e => Refusal::Store(e.to_string()),
    })?;
    Ok((StatusCode::CREATED, Json(region)))
}

#[cfg(test)]
mod tests {
    use RegionState::{Degraded, FailoverActive, Normal, Recovering};

    use super::*;

    #[test]
    fn a_region_is_as_well_as_its_state_and_never_without_an_instance() {
        for (state, ready, expected) in [
            (Normal, 8, Status::Healthy),
            (Normal, 0, Status::Unhealthy),
            (Degraded, 7, Status::Degraded),
            (Recovering, 10, Status::Degraded),
            (FailoverActive, 10, Status::Unhealthy),
        ] {
            assert_eq!(Status::of(state, ready), expected, "{state} with {ready}");
        }
    }

    #[test]
    fn what_agents_say_together_has_an_end() {
        assert_eq!(total([1, 2].into_iter()), 3);
        assert_eq!(total([u32::MAX, 2].into_iter()), u32::MAX);
    }
}
