//! `POST /instances/{id}/check`: a probe by hand.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Path, State},
};
use mrgc_fleet::{
    health::{ProbeResult, Verdict},
    model::{InstanceId, RegionId},
};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{Context, api::Answer, instances};
use crate::{
    probe::{Checked, Prober},
    problem::Refusal,
};

/// Probes by hand at the same time; who comes later waits.
const AT_ONCE: usize = 8;
static UNDER_WAY: Semaphore = Semaphore::const_new(AT_ONCE);

/// What a probe by hand found, beside what the router's own probes have. It counts as none of those: an
/// instance does not become unhealthy by being looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    id: InstanceId,
    region: RegionId,
    /// By the router's own probes.
    status: &'static str,
    /// Of those, in a row.
    consecutive_failures: u32,
    probe: &'static str,
    /// Why it gets no requests from this router, by all that is known; `None` where it does.
    out_because: Option<String>,
    /// Of the answer, whatever it was worth; `None` where there was none.
    status_code: Option<u16>,
    /// Requests that wait there, by its last report.
    queue_depth: Option<u32>,
    /// What was wrong with this probe or, where nothing was, with those that made it unhealthy.
    detail: Option<String>,
    /// `None` where it did not pass.
    response_time_ms: Option<f64>,
}

pub(super) async fn check(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<Check> {
    let Some(prober) = &context.failover.prober else {
        let why = "this process probes nobody: ask one of the region with the role `health`";
        return Err(Refusal::Conflict(why.to_owned()).into());
    };
    let id = InstanceId::from(id);
    let fleet = context.conductor.fleet();
    let home = &fleet.snapshot.home;
    let found = fleet.snapshot.instances.iter().find(|standing| standing.registration.id == id);
    let Some(standing) = found else {
        return Err(Refusal::NotFound { what: "instance", name: id.to_string() }.into());
    };
    let registration = standing.registration.clone();
    if registration.region != *home {
        let region = &registration.region;
        let why = format!("`{id}` is in {region}, and this router in {home}: ask one of {region}");
        return Err(Refusal::Conflict(why).into());
    }
    if registration.health_address.is_empty() {
        let why = format!("`{id}` has no agent to ask: its registration has no health_address");
        return Err(Refusal::Conflict(why).into());
    }
    let (checked, took) = probe(prober, &registration.health_address).await;
    let probed = context.failover.probes(id.clone()).await?;
    // Not older than what the monitor said.
    let fleet = context.conductor.fleet();
    let known = instances::known(&fleet, id.as_str());
    let (counts, now_ms) = (context.proxy.is_some(), context.clock.now_ms());
    let out_because = instances::out_because(known.as_ref(), counts, probed.out_because, now_ms);
    let (status, reason) = match probed.verdict {
        Verdict::Unknown => ("unknown", None),
        Verdict::Healthy => ("healthy", None),
        Verdict::Unhealthy { reason, .. } => ("unhealthy", Some(reason)),
    };
    let (probe, detail) = match checked.result {
        ProbeResult::Passed => ("passed", reason),
        ProbeResult::TimedOut => {
            ("timed_out", Some(format!("no answer within {} ms", prober.timeout().as_millis())))
        }
        ProbeResult::Failed(why) => ("failed", Some(why)),
    };
    Ok(Json(Check {
        id,
        region: registration.region.clone(),
        status,
        consecutive_failures: probed.failures,
        probe,
        out_because,
        status_code: checked.status_code,
        queue_depth: standing.report.as_ref().and_then(|report| report.queue_depth),
        detail,
        response_time_ms: (probe == "passed").then_some(took.as_secs_f64() * 1_000.0),
    }))
}

async fn probe(prober: &Prober, address: &str) -> (Checked, Duration) {
    // It is never closed.
    let _turn = UNDER_WAY.acquire().await;
    let started = Instant::now();
    (prober.check(address).await, started.elapsed())
}
