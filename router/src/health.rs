//! The router's own health, as load balancers see it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use mrgc_fleet::model::{PoolId, RegionId};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What each part says of itself. Cheap to clone; written by the control plane, read by every thread.
#[derive(Clone, Debug)]
pub struct HealthBoard(Arc<Board>);

#[derive(Debug)]
struct Board {
    region: RegionId,
    forwards: bool,
    draining: AtomicBool,
    checks: ArcSwap<BTreeMap<&'static str, Check>>,
    attested_pools: ArcSwap<Vec<PoolId>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// It serves, but somebody should look.
    Degraded,
    /// Nothing can be served.
    Error,
}

impl Check {
    pub fn ok() -> Self {
        Self { status: Status::Ok, reason: None }
    }

    pub fn degraded(reason: impl Into<String>) -> Self {
        Self { status: Status::Degraded, reason: Some(reason.into()) }
    }

    pub fn error(reason: impl Into<String>) -> Self {
        Self { status: Status::Error, reason: Some(reason.into()) }
    }
}

/// The shape of `GET /health`.
#[derive(Debug, Serialize)]
pub struct Health {
    /// RFC 3339.
    pub timestamp: String,
    pub status: &'static str,
    pub region: RegionId,
    pub checks: BTreeMap<&'static str, Check>,
    /// Pools of this region with an instance whose enclave this router verified: routers elsewhere may send
    /// here what needs one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attested_pools: Vec<PoolId>,
}

impl HealthBoard {
    /// `forwards`: clients are sent here, unless it answers that nothing can be served. Of a process that
    /// only watches, that is no reason to end it.
    pub fn new(region: RegionId, forwards: bool) -> Self {
        let (draining, checks, attested_pools) = Default::default();
        Self(Arc::new(Board { region, forwards, draining, checks, attested_pools }))
    }

    /// Sets what a part says; the last word stands.
    pub fn set(&self, part: &'static str, check: Check) {
        self.0.checks.rcu(|checks| {
            let mut checks = BTreeMap::clone(checks);
            checks.insert(part, check.clone());
            checks
        });
    }

    pub fn get(&self, part: &str) -> Option<Check> {
        self.0.checks.load().get(part).cloned()
    }

    pub fn set_attested_pools(&self, pools: Vec<PoolId>) {
        self.0.attested_pools.store(Arc::new(pools));
    }

    /// From now on load balancers are told to send no more.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    pub fn report(&self) -> (StatusCode, Health) {
        let checks = BTreeMap::clone(&self.0.checks.load());
        let has = |status| checks.values().any(|check| check.status == status);
        let (code, status) = if self.0.draining.load(Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if has(Status::Error) && self.0.forwards {
            (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
        } else if has(Status::Error) || has(Status::Degraded) {
            (StatusCode::OK, "degraded")
        } else {
            (StatusCode::OK, "healthy")
        };
        let timestamp = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let attested_pools = Vec::clone(&self.0.attested_pools.load());
        (code, Health { timestamp, status, region: self.0.region.clone(), checks, attested_pools })
    }

    pub fn response(&self) -> Response<Bytes> {
        let (status, health) = self.report();
        let body = serde_json::to_vec(&health).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
