//! Who is lost: out at once, before the next snapshot says so, and nobody waits there any longer.
//!
//! A request whose response has not begun, and which can be sent again, leaves when the flag is set. So it
//! takes more than to be passed over by the next request: a region's routers answer no pings; or there is
//! evidence against an instance beside what waits behind it, and it has answered nobody for a while. Where
//! the flag goes, who waits there by then stays.

use mrgc_fleet::{
    model::InstanceId,
    monitor::Monitor,
    snapshot::{Candidate, Level, View},
};

use super::at_home;
use crate::flight::{FleetView, Slot};

/// How long an instance that is condemned may answer no request before it is lost. Busy is not dead: one that
/// works through a long queue answers now and then, whatever becomes of its agent.
const SILENCE_MAX_MS: u64 = 5_000;

pub(super) fn mark(monitor: &Monitor, fleet: &FleetView, now_ms: u64) {
    for view in fleet.snapshot.views().filter(|view| view.key.level == Level::Region) {
        for (candidate, slot) in view.candidates.iter().zip(fleet.slots(view)) {
            slot.set_lost(monitor.is_unreachable(&candidate.region));
        }
    }
    for view in at_home(fleet) {
        let is_elsewhere = has_ready(fleet, view);
        for (candidate, slot) in view.candidates.iter().zip(fleet.slots(view)) {
            slot.set_lost(is_elsewhere && is_lost(monitor, candidate, slot, now_ms));
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
