//! `GET /failover`.

use std::sync::Arc;

use axum::{Json, extract::State};
use mrgc_fleet::{
    failover::{FailoverEvent, RegionStatus, Summary},
    model::RegionId,
};
use serde::Serialize;
use tokio::time::timeout;

use super::unstored::STORE_DEADLINE;
use crate::{
    config::Role,
    control::{Context, api::Answer},
    executor::failover_lease,
};

/// Failovers that are shown; `/failover/history` has more.
const LATEST: usize = 10;

#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    /// This router's.
    region: RegionId,
    router: Arc<str>,
    /// Who writes what is found of the regions; `None` where nobody is known to.
    lease_holder: Option<String>,
    #[serde(flatten)]
    summary: Summary,
    regions: Vec<RegionStatus>,
    /// The latest, the last one first.
    events: Vec<FailoverEvent>,
    /// Orders that hold on this router and wait for the store to come back.
    unstored_orders: usize,
}

pub(crate) async fn overview(State(context): State<Arc<Context>>) -> Answer<Overview> {
    let failover = &context.failover;
    let status = failover.status().await?;
    let lease_holder = match status.lease_holder {
        None if !context.config.roles.has(Role::Failover) => stored_holder(&context).await,
        holder => holder,
    };
    Ok(Json(Overview {
        region: context.config.home(),
        router: failover.router.clone(),
        lease_holder,
        summary: status.summary,
        regions: status.regions,
        events: status.events.into_iter().rev().take(LATEST).collect(),
        unstored_orders: failover.unstored.orders(),
    }))
}

/// Who held the lease last. A process that does not contend for it cannot tell whether the holder lives.
async fn stored_holder(context: &Context) -> Option<String> {
    let leases = timeout(STORE_DEADLINE, context.store.as_ref()?.leases()).await.ok()?.ok()?;
    let name = failover_lease(&context.config.home());
    leases.into_iter().find(|lease| lease.name == name)?.holder
}
