//! `POST /failover/simulate`: what a failover would do, without doing it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use mrgc_fleet::{failover::Simulation, model::RegionId};
use serde::{Deserialize, Serialize};

use super::{
    Command, known,
    orders::{Action, short},
    unstored::Entry,
};
use crate::{
    control::{Context, api::Answer},
    problem::Refusal,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    #[serde(alias = "from_region", alias = "from")]
    region: RegionId,
    #[serde(alias = "to")]
    to_region: Option<RegionId>,
    reason: Option<String>,
    /// Who asks; recorded where it is said.
    operator: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Simulated {
    #[serde(flatten)]
    simulation: Simulation,
    /// Whether a failover would be done without being forced; else why not.
    refused: Option<String>,
}

pub(crate) async fn simulate(
    State(context): State<Arc<Context>>,
    body: Result<Json<Body>, JsonRejection>,
) -> Answer<Simulated> {
    let Json(body) = body.map_err(|e| Refusal::BadRequest(e.body_text()))?;
    let Body { region, to_region: to, reason, operator } = body;
    for region in [Some(&region), to.as_ref()].into_iter().flatten() {
        known(&context, region)?;
    }
    let reason = reason.map(|reason| short("reason", &reason)).transpose()?;
    let operator = operator.map(|operator| short("operator", &operator)).transpose()?;
    let is_signed = operator.is_some();
    let action = Action::failover(to.clone());
    let order = action.order(&context, region.clone(), reason, operator);

    let failover = &context.failover;
    if is_signed {
        let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        let entry = Entry::new("simulate", format!("region {region}{to}"), &order);
        // Nothing is done, so it may as well be recorded later.
        let _ = failover.unstored.record(context.store.as_ref(), entry).await;
    }
    let checked = failover.ask(|answer| Command::Check(order, answer)).await?;
    let fleet = context.conductor.fleet();
    let simulation = failover.ask(|answer| Command::Simulate { region, to, fleet, answer }).await?;
    let refused = checked.verdict.err().map(|refused| refused.to_string());
    Ok(Json(Simulated { simulation, refused }))
}
