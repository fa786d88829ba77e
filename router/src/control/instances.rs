//! `GET /instances`: what is registered, with what this router knows of it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
};
use mrgc_fleet::{
    model::{RegionId, Standing},
    snapshot::Level,
};
use serde::{Deserialize, Serialize};

use super::{Context, api::Answer};
use crate::{
    attestation::Verdict,
    flight::{FleetView, Slot},
    problem::Refusal,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    region: Option<String>,
    pool: Option<String>,
}

impl Wanted {
    fn is(&self, standing: &Standing) -> bool {
        let registration = &standing.registration;
        self.region.as_deref().is_none_or(|region| registration.region.as_str() == region)
            && self.pool.as_deref().is_none_or(|pool| registration.pool.as_str() == pool)
    }
}

/// An instance with what this router knows of it.
#[derive(Debug, Serialize)]
pub(super) struct InstanceStatus {
    #[serde(flatten)]
    standing: Arc<Standing>,
    /// Whether it gets requests from this router: where nothing stands against it.
    ready: bool,
    /// What does; `None` where it is ready.
    out_because: Option<String>,
    /// The router's own counts; `None` for instances of other regions, and where it forwards no requests.
    in_flight: Option<u32>,
    requests: Option<u64>,
    ejected: Option<bool>,
    /// What this router verified itself.
    attestation: Verdict,
}

impl InstanceStatus {
    fn new(
        context: &Context,
        standing: &Arc<Standing>,
        known: Option<&Known<'_>>,
        home: &RegionId,
        said: Option<String>,
    ) -> Self {
        let now_ms = context.clock.now_ms();
        let counts = context.proxy.is_some() && standing.registration.region == *home;
        let here = known.filter(|_| counts);
        let live = here.map(|known| known.slot.live(now_ms));
        let out_because = out_because(known, counts, said, now_ms);
        Self {
            ready: out_because.is_none(),
            out_because,
            in_flight: live.map(|live| live.in_flight),
            requests: here.map(|known| known.slot.sent()),
            ejected: here.map(|known| known.slot.is_ejected(now_ms)),
            attestation: attestation(context, standing),
            standing: standing.clone(),
        }
    }
}

/// As in `ejected for 3 s: requests to it fail`.
fn ejection(slot: &Slot, now_ms: u64) -> Option<String> {
    if let Some(until_ms) = slot.shut_out_until_ms(now_ms) {
        let seconds = until_ms.saturating_sub(now_ms).div_ceil(1_000);
        return Some(format!("ejected for {seconds} s: requests to it fail"));
    }
    slot.is_ejected(now_ms).then(|| "ejected: a few requests try it out".to_owned())
}

/// All that stands against an instance: by what is `said` of it, and by live requests.
fn both(said: Option<String>, ejection: Option<String>) -> Option<String> {
    match (said, ejection) {
        (Some(said), Some(ejection)) => Some(format!("{said}; {ejection}")),
        (said, ejection) => said.or(ejection),
    }
}

/// Why an instance gets no requests from this router; `None` where it does. `said` is what the monitor says,
/// `counts` whether the router's own requests tell something, too.
pub(super) fn out_because(
    known: Option<&Known<'_>>,
    counts: bool,
    said: Option<String>,
    now_ms: u64,
) -> Option<String> {
    let here = known.filter(|_| counts);
    let is_ready = known.is_some_and(|known| known.ready);
    both(said, here.and_then(|known| ejection(known.slot, now_ms)))
        .or_else(|| (!is_ready).then(|| "it is about to be let back".to_owned()))
}

/// Who forwards nothing verifies nothing.
fn attestation(context: &Context, standing: &Standing) -> Verdict {
    let reason = || Some("only a process with the role `proxy` verifies enclaves".to_owned());
    match &context.proxy {
        Some(proxy) => proxy.attestations.verdict(standing),
        None => Verdict { reason: reason(), ..Verdict::default() },
    }
}

/// A candidate, as the routing knows it.
pub(super) struct Known<'a> {
    ready: bool,
    slot: &'a Slot,
}

pub(super) fn known<'a>(fleet: &'a FleetView, id: &str) -> Option<Known<'a>> {
    candidates(fleet).find(|(name, _)| *name == id).map(|(_, known)| known)
}

fn candidates(fleet: &FleetView) -> impl Iterator<Item = (&str, Known<'_>)> {
    let views = fleet.snapshot.views().filter(|view| view.key.level == Level::Instance);
    views.flat_map(|view| {
        let slots = fleet.slots(view);
        view.candidates
            .iter()
            .zip(slots)
            .map(|(candidate, slot)| (&*candidate.id, Known { ready: candidate.ready, slot }))
    })
}

pub(super) async fn list(
    State(context): State<Arc<Context>>,
    Query(wanted): Query<Wanted>,
) -> Answer<Vec<InstanceStatus>> {
    let mut out = context.failover.out().await?;
    let fleet = context.conductor.fleet();
    let known: BTreeMap<_, _> = candidates(&fleet).collect();
    let status = |standing: &Arc<Standing>| {
        let id = &standing.registration.id;
        let (known, said) = (known.get(id.as_str()), out.remove(id));
        InstanceStatus::new(&context, standing, known, &fleet.snapshot.home, said)
    };
    let all = fleet.snapshot.instances.iter().filter(|standing| wanted.is(standing));
    Ok(Json(all.map(status).collect()))
}

pub(super) async fn one(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
) -> Answer<InstanceStatus> {
    let said = context.failover.probes(id.as_str().into()).await?.out_because;
    let fleet = context.conductor.fleet();
    let mut instances = fleet.snapshot.instances.iter();
    let Some(standing) = instances.find(|standing| standing.registration.id.as_str() == id) else {
        return Err(Refusal::NotFound { what: "instance", name: id }.into());
    };
    let known = known(&fleet, &id);
    let home = &fleet.snapshot.home;
    Ok(Json(InstanceStatus::new(&context, standing, known.as_ref(), home, said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_ready_is_out_for_a_reason() {
        for counts in [true, false] {
            let because =
                |said: Option<&str>| out_because(None, counts, said.map(str::to_owned), 0);
            assert_eq!(because(None).as_deref(), Some("it is about to be let back"));
            assert_eq!(because(Some("drained by ada")).as_deref(), Some("drained by ada"));
        }
    }
}
