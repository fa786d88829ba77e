//! The endpoints.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mrgc_fleet::{model::RegionId, snapshot::Level};
use serde::Serialize;

use super::{Context, check, cluster, dry_run, failover, instances, metrics, regions};
use crate::{collect, config::is_policy_name, policies::Status, problem::Refusal};

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
        .route("/regions", get(regions::list).post(regions::put))
        .route("/regions/{id}", get(regions::one))
        .route("/regions/{id}/health", get(regions::health))
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
    total_failovers: u64,
    /// From the first sign of a failure, or the order, until the traffic had moved; `None` where none has.
    average_duration_ms: Option<f64>,
}

async fn stats(State(context): State<Arc<Context>>) -> Answer<StatsBody> {
    let proxy = context.proxy()?;
    let failover::Status { summary, regions: judged, .. } = context.failover.status().await?;
    let look = regions::Look::new(&context, judged);
    let (fleet, snapshot) = (&look.fleet, &look.fleet.snapshot);
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
        healthy_regions: look.healthy_regions(),
        total_instances: snapshot.instances.len(),
        ready_instances: instances.flat_map(|view| &view.candidates).filter(|c| c.ready).count(),
        snapshot: snapshot.version,
        decisions_by_region,
        requests: proxy.threads.totals(),
        measurements: proxy.collection.as_ref().map(|collection| collection.counts()),
        policies: statuses(&context),
        total_failovers: summary.total_failovers,
        average_duration_ms: summary.average_duration_ms,
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
