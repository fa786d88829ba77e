//! The endpoints.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::JsonRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mrgc_fleet::{
    model::{Region, RegionId},
    snapshot::Level,
};
use mrgc_store::StoreError;
use serde::{Deserialize, Serialize};

use super::{Context, check, cluster, dry_run, failover, instances, metrics};
use crate::{
    collect,
    config::{WrittenRegion, is_policy_name},
    policies::Status,
    problem::Refusal,
};

/// Larger than any policy the host takes, so that the host's own message is the one seen.
const UPLOAD_BYTES: usize = 16 << 20;
/// Longer than anything axum says of a request.
const REJECTION_BYTES: usize = 64 << 10;
const OPENAPI: &str = include_str!("openapi.json");

pub(super) type Answer<T> = Result<Json<T>, Problem>;

pub(super) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics_text))
        .route("/openapi.json", get(openapi))
        .route("/regions", get(regions).post(put_region))
        .route("/regions/{id}", get(region))
        .route("/regions/{id}/health", get(region_health))
        .route("/instances", get(instances::list))
        .route("/instances/{id}", get(instances::one))
        .route("/instances/{id}/check", post(check::check))
        .route("/failover", get(failover::overview).post(failover::start))
        .route("/failover/simulate", post(failover::simulate))
        .route("/failover/recover", post(failover::recover))
        .route("/failover/pin", post(failover::pin))
        .route("/failover/unpin", post(failover::unpin))
        .route("/failover/history", get(failover::history))
        .route("/cluster", get(cluster::summary))
        .route("/route", post(route))
        .route("/stats", get(stats))
        .route("/policies", get(policies))
        .route("/policies/{name}", get(policy).put(put_policy))
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::map_response(as_problem))
        .with_state(context)
}

/// A refusal, as axum answers it.
pub(super) struct Problem(Refusal);

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.response().map(axum::body::Body::from)
    }
}

/// What axum refuses by itself (a query, a path, a body too long) says so in plain text.
async fn as_problem(response: Response) -> Response {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    let status = response.status();
    if !status.is_client_error() || response.headers().get(header::CONTENT_TYPE) != Some(&PLAIN) {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), REJECTION_BYTES).await;
    let text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    let refusal = match status {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge { limit: UPLOAD_BYTES as u64 },
        _ => Refusal::BadRequest(text),
    };
    Problem(refusal).into_response()
}

async fn no_such_path(uri: Uri) -> Problem {
    Refusal::NotFound { what: "endpoint", name: uri.path().to_owned() }.into()
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    Refusal::NoSuchMethod { path: uri.path().to_owned(), method: method.to_string() }.into()
}

async fn healthz(State(context): State<Arc<Context>>) -> impl IntoResponse {
    context.health.response().map(axum::body::Body::from)
}

async fn metrics_text(State(context): State<Arc<Context>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::text(&context).await)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RegionQuery {
    healthy_only: bool,
}

/// A region with how it is, over all its pools.
#[derive(Debug, Serialize)]
struct RegionStatus {
    #[serde(flatten)]
    region: Region,
    #[serde(flatten)]
    health: RegionHealth,
}

#[derive(Debug, Default, Serialize)]
struct RegionHealth {
    status: &'static str,
    /// Share of instances that are ready and healthy, 0 to 100.
    health_score: f64,
    instances: u32,
    healthy_instances: u32,
    /// Percent of slots in use.
    capacity_utilization: Option<f64>,
    rtt_ms: Option<f64>,
}

fn health_of(context: &Context, id: &RegionId) -> RegionHealth {
    let fleet = context.conductor.fleet();
    let wholes = fleet.snapshot.views().filter(|view| view.key.level == Level::Region);
    let wholes: Vec<_> =
        wholes.flat_map(|view| &view.candidates).filter(|c| c.region == *id).collect();
    let instances: u32 = wholes.iter().map(|c| c.instances).sum();
    let healthy: u32 = wholes.iter().map(|c| c.healthy_instances).sum();
    let (running, slots) = wholes.iter().fold((0, 0), |(running, slots), c| {
        (running + c.running.unwrap_or(0), slots + c.slots.unwrap_or(0))
    });
    let share = if instances > 0 { f64::from(healthy) / f64::from(instances) } else { 0.0 };
    RegionHealth {
        status: match () {
            () if !wholes.iter().any(|c| c.ready) => "unhealthy",
            () if share < 0.8 => "degraded",
            () => "healthy",
        },
        health_score: 100.0 * share,
        instances,
        healthy_instances: healthy,
        capacity_utilization: (slots > 0).then(|| 100.0 * f64::from(running) / f64::from(slots)),
        rtt_ms: wholes.iter().find_map(|c| c.rtt_ms),
    }
}

async fn regions(
    State(context): State<Arc<Context>>,
    Query(query): Query<RegionQuery>,
) -> Json<Vec<RegionStatus>> {
    let fleet = context.conductor.fleet();
    let all = fleet.snapshot.regions.iter().map(|region| RegionStatus {
        health: health_of(&context, &region.id),
        region: region.clone(),
    });
    Json(all.filter(|r| !query.healthy_only || r.health.status != "unhealthy").collect())
}

fn find_region(context: &Context, id: &str) -> Result<Region, Refusal> {
    let fleet = context.conductor.fleet();
    let found = fleet.snapshot.regions.iter().find(|region| region.id.as_str() == id).cloned();
    found.ok_or_else(|| Refusal::NotFound { what: "region", name: id.to_owned() })
}

async fn region(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<RegionStatus> {
    let region = find_region(&context, &id)?;
    Ok(Json(RegionStatus { health: health_of(&context, &region.id), region }))
}

async fn region_health(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<RegionHealth> {
    let region = find_region(&context, &id)?;
    Ok(Json(health_of(&context, &region.id)))
}

async fn put_region(
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

async fn route(
    State(context): State<Arc<Context>>,
    body: Result<Json<dry_run::Body>, JsonRejection>,
) -> Answer<dry_run::Answer> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    context.proxy()?;
    // It instantiates policies and runs them: milliseconds of CPU.
    let work = move || dry_run::run(&context, body);
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => Ok(Json(answer?)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[derive(Debug, Serialize)]
struct StatsBody {
    region: RegionId,
    uptime_seconds: f64,
    total_regions: usize,
    healthy_regions: usize,
    total_instances: usize,
    ready_instances: usize,
    snapshot: u64,
    /// Requests this router sent to each region, by its id.
    decisions_by_region: BTreeMap<String, u64>,
    requests: crate::data::Totals,
    /// `None` without a store.
    measurements: Option<collect::Counts>,
    policies: Vec<Status>,
    /// `None` where nobody can tell.
    total_failovers: Option<u64>,
    /// From the first sign of a failure, or the order, until the traffic had moved.
    average_duration_ms: Option<f64>,
}

async fn stats(State(context): State<Arc<Context>>) -> Answer<StatsBody> {
    let proxy = context.proxy()?;
    let failovers = context.failover.status().await.ok().map(|status| status.summary);
    let fleet = context.conductor.fleet();
    let snapshot = &fleet.snapshot;
    let healthy = |region: &&Region| health_of(&context, &region.id).status != "unhealthy";
    let instances = snapshot.views().filter(|view| view.key.level == Level::Instance);
    let mut decisions_by_region = BTreeMap::new();
    for view in snapshot.views() {
        for (candidate, slot) in view.candidates.iter().zip(fleet.slots(view)) {
            // A request to this region is counted by its instance, one to another by the region.
            if (view.key.level == Level::Instance) == (candidate.region == snapshot.home) {
                *decisions_by_region.entry(candidate.region.to_string()).or_default() +=
                    slot.sent();
            }
        }
    }
    Ok(Json(StatsBody {
        region: snapshot.home.clone(),
        uptime_seconds: context.started.elapsed().as_secs_f64(),
        total_regions: snapshot.regions.len(),
        healthy_regions: snapshot.regions.iter().filter(healthy).count(),
        total_instances: snapshot.instances.len(),
        ready_instances: instances.flat_map(|view| &view.candidates).filter(|c| c.ready).count(),
        snapshot: snapshot.version,
        decisions_by_region,
        requests: proxy.threads.totals(),
        measurements: proxy.collection.as_ref().map(|collection| collection.counts()),
        policies: statuses(&context),
        total_failovers: failovers.as_ref().map(|summary| summary.total_failovers),
        average_duration_ms: failovers.and_then(|summary| summary.average_duration_ms),
    }))
}

fn statuses(context: &Context) -> Vec<Status> {
    context.conductor.versions().iter().map(|version| Status::of(version)).collect()
}

async fn policies(State(context): State<Arc<Context>>) -> Answer<Vec<Status>> {
    context.proxy()?;
    Ok(Json(statuses(&context)))
}

/// A policy, with how the routes use it.
#[derive(Debug, Serialize)]
struct PolicyBody {
    #[serde(flatten)]
    status: Status,
    config_schema: serde_json::Value,
    configs: Vec<serde_json::Value>,
}

async fn policy(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
) -> Answer<PolicyBody> {
    context.proxy()?;
    let version = context.conductor.version(&name);
    let version =
        version.ok_or_else(|| Refusal::NotFound { what: "policy", name: name.clone() })?;
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    Ok(Json(PolicyBody {
        status: Status::of(&version),
        config_schema: json(&version.policy.manifest().config_schema),
        configs: context.conductor.table().configs(&name).map(json).collect(),
    }))
}

async fn put_policy(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    artifact: Bytes,
) -> Answer<super::uploads::Uploaded> {
    if !is_policy_name(&name) {
        let rule = "up to 64 lower-case letters, digits and `-`";
        return Err(Refusal::BadRequest(format!("`{name}` is not a policy's name: {rule}")).into());
    }
    let uploads = context.proxy()?.uploads.clone();
    // Finished even where the client goes away: half a swap is none.
    let work =
        async move { uploads.upload(context.store.as_ref(), &name, artifact.to_vec()).await };
    match tokio::spawn(work).await {
        Ok(uploaded) => Ok(Json(uploaded?)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_in_the_openapi_document() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let documented: Vec<_> = document["paths"].as_object().expect("paths").keys().collect();
        let source = include_str!("api.rs");
        let routed: Vec<_> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix(".route(\""))
            .filter_map(|line| line.split('"').next())
            .collect();
        assert!(routed.len() > 8, "{routed:?}");
        for path in &routed {
            assert!(documented.iter().any(|d| d == path), "{path} is not documented");
        }
        assert_eq!(documented.len(), routed.len(), "{documented:?}");
    }
}
