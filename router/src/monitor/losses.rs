//! Who is lost: out at once, before the next snapshot says so, and nobody waits there any longer.
//!
//! A request whose response has not begun, and which can be sent again, leaves when the flag is set. So it
//! takes more than to be passed over by the next request: a region's routers answer no pings; or there is
//! evidence against an instance beside what waits behind it, and it has answered nobody for a while. Where
//! the flag goes, who waits there by then stays.

use std::collections::BTreeSet;

use mrgc_fleet::{
    model::InstanceId,
    monitor::Monitor,
    snapshot::{Candidate, Level, View},
};

use crate::flight::{FleetView, Slot};

/// How long an instance that is condemned may answer no request before it is lost. Busy is not dead: one that
/// works through a long queue answers now and then, whatever becomes of its agent.
const SILENCE_MAX_MS: u64 = 5_000;

/// Walks over home's instances; returns those that live requests have ejected. One whose ejection has run out
/// is not among them, though nobody has tried it yet: where its region gets no requests, nothing else would
/// ever bring it back.
pub(super) fn at_home(monitor: &Monitor, fleet: &FleetView, now_ms: u64) -> BTreeSet<InstanceId> {
    let mut ejected = BTreeSet::new();
    let home = Some(&fleet.snapshot.home);
    for view in fleet.snapshot.views().filter(|view| view.key.region.as_ref() == home) {
        let anyone_ready = has_ready(fleet, view);
        for (candidate, slot) in view.candidates.iter().zip(fleet.slots(view)) {
            slot.set_lost(anyone_ready && is_lost(monitor, candidate, slot, now_ms));
            if slot.is_shut_out(now_ms) {
                ejected.insert(InstanceId::from(&*candidate.id));
            }
        }
    }
    ejected
}

/// The regions whose routers do not answer.
pub(super) fn elsewhere(monitor: &Monitor, fleet: &FleetView) {
    for view in fleet.snapshot.views().filter(|view| view.key.level == Level::Region) {
        for (candidate, slot) in view.candidates.iter().zip(fleet.slots(view)) {
            slot.set_lost(monitor.is_unreachable(&candidate.region));
        }
    }
}

/// One that is ready is not looked up: it is well, as far as the last snapshot knew.
fn is_lost(monitor: &Monitor, candidate: &Candidate, slot: &Slot, now_ms: u64) -> bool {
    !candidate.ready
        && now_ms.saturating_sub(slot.answered_ms()) >= SILENCE_MAX_MS
        && monitor.is_condemned(&InstanceId::from(&*candidate.id))
}

/// Whether anybody, in whichever region, could take what leaves. Evidence that all are dead is likelier wrong
/// than true.
fn has_ready(fleet: &FleetView, view: &View) -> bool {
    let regions = fleet.snapshot.regions_with(&view.key.pool);
    regions.is_some_and(|view| view.candidates.iter().any(|region| region.ready))
}

#[cfg(test)]
mod tests;
