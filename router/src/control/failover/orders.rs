//! What operators order: `POST /failover`, `/failover/recover`, `/failover/pin` and `/failover/unpin`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use mrgc_fleet::{
    failover::{RegionOrder, RegionState, RegionStatus, Strategy, Wish},
    model::{RegionId, Stamp},
};
use mrgc_store::Store;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{
    Checked, Command,
    unstored::{Entry, STORE_DEADLINE},
};
use crate::{
    control::{Context, api::Answer},
    problem::Refusal,
    sync::wall_clock,
};

/// An item has room for a ticket and a sentence.
const MAX_TEXT_BYTES: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    #[serde(rename = "from_region", alias = "from")]
    from: RegionId,
    #[serde(rename = "to_region", alias = "to")]
    to: Option<RegionId>,
    strategy: Strategy,
    reason: String,
    operator: String,
    /// Also where too few instances elsewhere are healthy.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    region: RegionId,
    state: RegionState,
    reason: String,
    operator: String,
}

/// Of a recovery, and of the end of a pin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Release {
    region: RegionId,
    reason: String,
    operator: String,
    /// Also where this router knows of nothing to lift.
    #[serde(default)]
    force: bool,
}

/// What was ordered, and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Given {
    order: RegionOrder,
    /// What was in force before.
    replaced: Option<RegionOrder>,
    /// Whether other routers will read it, and this one after a restart.
    stored: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_stored_because: Option<String>,
    /// How the region stands since; `None` where it is gone by now.
    status: Option<RegionStatus>,
}

/// What is to be done to a region.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    FailOver { to: Option<RegionId>, strategy: Strategy },
    Recover,
    Pin(RegionState),
    Unpin,
}

impl Action {
    pub(super) fn failover(to: Option<RegionId>) -> Self {
        Self::FailOver { to, strategy: Strategy::Immediate }
    }

    /// As the audit trail has it.
    fn name(&self) -> &'static str {
        match self {
            Self::FailOver { .. } => "failover",
            Self::Recover => "recover",
            Self::Pin(_) => "pin",
            Self::Unpin => "unpin",
        }
    }

    /// As in `region us-east-1 to us-west-2, graceful`.
    fn subject(&self, region: &RegionId) -> String {
        match self {
            Self::FailOver { to, strategy } => {
                let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
                let strategy = match strategy {
                    Strategy::Graceful => "graceful",
                    Strategy::Immediate => "immediate",
                };
                format!("region {region}{to}, {strategy}")
            }
            Self::Pin(state) => format!("region {region} in {state}"),
            Self::Recover | Self::Unpin => format!("region {region}"),
        }
    }

    fn wish(&self) -> Wish {
        match self {
            Self::FailOver { to, strategy } => {
                Wish::FailOver { to: to.clone(), strategy: *strategy }
            }
            Self::Pin(state) => Wish::Pinned { state: *state },
            Self::Recover | Self::Unpin => Wish::Automatic,
        }
    }

    pub(super) fn order(
        &self,
        context: &Context,
        region: RegionId,
        reason: Option<String>,
        operator: Option<String>,
    ) -> RegionOrder {
        RegionOrder {
            region,
            wish: self.wish(),
            reason,
            operator,
            at: wall_clock(),
            writer_region: context.config.home(),
            stamp: Stamp::default(),
        }
    }

    /// What speaks against lifting what is in force; `None` where it is what this lifts.
    fn nothing_to_lift(&self, region: &RegionId, in_force: Option<&Wish>) -> Option<String> {
        let advice = "`force` writes it all the same, should another router know more";
        match (self, in_force) {
            (Self::FailOver { .. } | Self::Pin(_), _)
            | (Self::Recover, Some(Wish::FailOver { .. }))
            | (Self::Unpin, Some(Wish::Pinned { .. })) => None,
            (Self::Recover, Some(Wish::Pinned { state })) => {
                Some(format!("`{region}` is pinned in {state}: unpin it"))
            }
            (Self::Recover, _) => Some(format!(
                "`{region}` is not failed over by an operator, and comes back by itself; {advice}"
            )),
            (Self::Unpin, Some(Wish::FailOver { .. })) => {
                Some(format!("`{region}` is failed over and not pinned: recover it"))
            }
            (Self::Unpin, _) => Some(format!("`{region}` is not pinned; {advice}")),
        }
    }
}

pub(crate) async fn start(
    State(context): State<Arc<Context>>,
    body: Result<Json<Start>, JsonRejection>,
) -> Answer<Given> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let Start { from, to, strategy, reason, operator, force } = body;
    give(context, Action::FailOver { to, strategy }, from, (reason, operator), force).await
}

pub(crate) async fn recover(
    State(context): State<Arc<Context>>,
    body: Result<Json<Release>, JsonRejection>,
) -> Answer<Given> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let Release { region, reason, operator, force } = body;
    give(context, Action::Recover, region, (reason, operator), force).await
}

pub(crate) async fn pin(
    State(context): State<Arc<Context>>,
    body: Result<Json<Pin>, JsonRejection>,
) -> Answer<Given> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let Pin { region, state, reason, operator } = body;
    give(context, Action::Pin(state), region, (reason, operator), false).await
}

pub(crate) async fn unpin(
    State(context): State<Arc<Context>>,
    body: Result<Json<Release>, JsonRejection>,
) -> Answer<Given> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let Release { region, reason, operator, force } = body;
    give(context, Action::Unpin, region, (reason, operator), force).await
}

async fn give(
    context: Arc<Context>,
    action: Action,
    region: RegionId,
    (reason, operator): (String, String),
    force: bool,
) -> Answer<Given> {
    let (reason, operator) = (short("reason", &reason)?, short("operator", &operator)?);
    let order = action.order(&context, region, Some(reason), Some(operator));
    // Finished even where the client goes away: what is recorded is done.
    let work = async move { carry_out(&context, &action, order, force).await };
    match tokio::spawn(work).await {
        Ok(given) => Ok(Json(given?)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn carry_out(
    context: &Context,
    action: &Action,
    order: RegionOrder,
    force: bool,
) -> Result<Given, Refusal> {
    let failover = &context.failover;
    let _turn = failover.turn.lock().await;
    let checked = failover.ask(|answer| Command::Check(order.clone(), answer)).await?;
    let replaced = allow(action, &order.region, checked, force)?;

    let subject = action.subject(&order.region);
    let (operator, reason) = (order.operator.as_deref(), order.reason.as_deref());
    tracing::warn!(action = action.name(), subject, operator, reason, "ordered");
    let entry = Entry::new(action.name(), subject, &order);
    let store = context.store.as_ref();
    let audited = failover.unstored.record(store, entry).await;
    let seen = replaced.as_ref().map(|order| order.stamp);
    let (order, not_stored_because) = match store {
        None => (late(order, seen), Some("this router has no store".to_owned())),
        Some(store) => match put(store, &order, audited).await {
            Ok(order) => (order, None),
            Err(why) => {
                let order = late(order, seen);
                failover.unstored.keep(order.clone());
                (order, Some(why))
            }
        },
    };
    failover.ask(|answer| Command::Order(order.clone(), answer)).await?;
    // The monitor has drawn its conclusions by the time it answers again.
    let status = failover.status().await?.regions.into_iter().find(|s| s.region == order.region);
    let replaced = replaced.filter(|replaced| replaced.wish != Wish::Automatic);
    let stored = not_stored_because.is_none();
    Ok(Given { order, replaced, stored, not_stored_because, status })
}

/// Whether an order may be given; what it takes the place of, of whatever kind.
fn allow(
    action: &Action,
    region: &RegionId,
    checked: Checked,
    force: bool,
) -> Result<Option<RegionOrder>, Refusal> {
    let Checked { verdict, in_force } = checked;
    if let Err(refused) = verdict
        && !(force && refused.may_be_forced())
    {
        return Err(refused.into());
    }
    let wish = in_force.as_ref().map(|order| &order.wish);
    match action.nothing_to_lift(region, wish) {
        Some(why) if !force => Err(Refusal::Conflict(why)),
        _ => Ok(in_force),
    }
}

/// Stores an order, stamped above all others. `audited` tells whether the store is there at all.
async fn put(
    store: &Store,
    order: &RegionOrder,
    audited: Result<(), String>,
) -> Result<RegionOrder, String> {
    audited?;
    match timeout(STORE_DEADLINE, store.put_region_order(order)).await {
        Ok(Ok(order)) => Ok(order),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} s", STORE_DEADLINE.as_secs())),
    }
}

/// An order that could not be stored: it goes above what was heard of when it was given.
fn late(order: RegionOrder, seen: Option<Stamp>) -> RegionOrder {
    RegionOrder { stamp: Stamp::next(seen, seen.map_or(0, |seen| seen.epoch)), ..order }
}

/// A text of an operator that says something and has room in an item.
pub(super) fn short(field: &str, text: &str) -> Result<String, Refusal> {
    let (text, max) = (text.trim(), MAX_TEXT_BYTES);
    if text.is_empty() {
        return Err(Refusal::BadRequest(format!("{field} says nothing: give it a text")));
    }
    if text.len() > max {
        let bytes = text.len();
        return Err(Refusal::BadRequest(format!("{field} has {bytes} bytes; it may have {max}")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
