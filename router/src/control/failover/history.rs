//! `GET /failover/history`: the failovers that there were, and what operators ordered.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
};
use mrgc_fleet::{
    failover::FailoverEvent,
    model::{AuditRecord, Timestamp},
};
use mrgc_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    control::{Context, api::Answer},
    problem::Refusal,
    sync::wall_clock,
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 1_000;
const DEFAULT_DAYS: u64 = 30;
/// As long as both are kept.
const MAX_DAYS: u64 = 400;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// The trail has other things between those about regions.
const MAX_RECORDS: usize = 10_000;
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// How subjects begin that are about regions.
const REGION: &str = "region ";

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    limit: usize,
    days: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, days: DEFAULT_DAYS }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct History {
    source: Source,
    /// `None` where it is from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_from_store_because: Option<String>,
    /// The last one first.
    events: Vec<FailoverEvent>,
    /// What was ordered, the last one first; `None` where the trail cannot be read.
    orders: Option<Vec<AuditRecord>>,
}

/// Where it is from.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// Every region's.
    Store,
    /// What this router saw since it started, for the store could not be read, or it has none.
    Router,
}

pub(crate) async fn history(
    State(context): State<Arc<Context>>,
    Query(wanted): Query<Wanted>,
) -> Answer<History> {
    for (name, value, max) in
        [("limit", wanted.limit as u64, MAX_LIMIT as u64), ("days", wanted.days, MAX_DAYS)]
    {
        if !(1..=max).contains(&value) {
            let why = format!("{name} = {value} is not within 1 and {max}");
            return Err(Refusal::BadRequest(why).into());
        }
    }
    let why = match &context.store {
        Some(store) => match timeout(READ_DEADLINE, read(store, &wanted)).await {
            Ok(Ok(history)) => return Ok(Json(history)),
            Ok(Err(error)) => unread(error.to_string()),
            Err(_) => unread(format!("it did not answer within {} s", READ_DEADLINE.as_secs())),
        },
        None => "this router has no store".to_owned(),
    };
    let mut events = context.failover.status().await?.events;
    events.reverse();
    let since = wanted.since();
    events.retain(|event| event.at >= since);
    events.truncate(wanted.limit);
    let not_from_store_because = Some(why);
    Ok(Json(History { source: Source::Router, not_from_store_because, events, orders: None }))
}

fn unread(why: String) -> String {
    tracing::warn!(why, "the history is the router's own");
    format!("the store could not be read: {why}")
}

impl Wanted {
    fn since(&self) -> Timestamp {
        Timestamp(wall_clock().0.saturating_sub(self.days * DAY_MS))
    }
}

async fn read(store: &Store, wanted: &Wanted) -> Result<History, StoreError> {
    let (from, to) = (wanted.since(), Timestamp(u64::MAX));
    let events = store.failover_events(from, to, wanted.limit).await?;
    let mut orders = store.audit_trail(from, to, MAX_RECORDS).await?;
    orders.retain(|record| record.subject.starts_with(REGION));
    orders.truncate(wanted.limit);
    let (source, orders) = (Source::Store, Some(orders));
    Ok(History { source, not_from_store_because: None, events, orders })
}
