//! What this router knows of each candidate from its own traffic, fresher than any snapshot: requests in
//! flight, and whether it has just failed to connect. Shared by all data threads, as atomics.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use http::HeaderValue;
use mrgc_fleet::{
    routing::Live,
    snapshot::{Candidate, Level, Snapshot, View},
};

/// How long a candidate stays out after its first failed connection; each further one doubles it.
const FIRST_EJECTION_MS: u64 = 2_000;
const LONGEST_EJECTION_MS: u64 = 60_000;

/// Counts of one candidate. They outlive snapshots. On cache lines of their own: every data thread writes
/// them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Slot {
    in_flight: AtomicU32,
    /// Requests sent there since the router started.
    sent: AtomicU64,
    in_flight_tokens: AtomicU64,
    /// By the router's own clock ([`Clock`]); 0 when not ejected.
    ejected_until_ms: AtomicU64,
    ejections: AtomicU32,
}

impl Slot {
    pub fn live(&self, now_ms: u64) -> Live {
        Live {
            in_flight: self.in_flight.load(Relaxed),
            in_flight_tokens: self.in_flight_tokens.load(Relaxed),
            masked: self.ejected_until_ms.load(Relaxed) > now_ms,
        }
    }

    /// Requests sent there since the router started.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Takes the candidate out for a while, longer each time in a row.
    pub fn eject(&self, now_ms: u64) {
        let times = self.ejections.fetch_add(1, Relaxed).min(5);
        let for_ms = (FIRST_EJECTION_MS << times).min(LONGEST_EJECTION_MS);
        self.ejected_until_ms.store(now_ms + for_ms, Relaxed);
    }

    /// It answered: whatever was held against it is forgotten.
    pub fn forgive(&self) {
        if self.ejections.load(Relaxed) > 0 {
            self.ejections.store(0, Relaxed);
            self.ejected_until_ms.store(0, Relaxed);
        }
    }

    /// A request of so many tokens is sent there.
    pub fn started(&self, tokens: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.sent.fetch_add(1, Relaxed);
        self.in_flight_tokens.fetch_add(tokens, Relaxed);
    }

    /// It has ended, however it did.
    pub fn ended(&self, tokens: u64) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.in_flight_tokens.fetch_sub(tokens, Relaxed);
    }
}

/// A snapshot with the slots of its candidates.
#[derive(Debug)]
pub struct FleetView {
    pub snapshot: Snapshot,
    /// By view id, then by candidate.
    slots: Vec<Slots>,
}

type Slots = Arc<[Arc<Slot>]>;

impl FleetView {
    pub fn slots(&self, view: &View) -> &[Arc<Slot>] {
        self.slots.get(view.id as usize).map_or(&[], |slots| slots)
    }

    /// The slot of a candidate by its view's id and its index there.
    pub fn slot(&self, view: u32, candidate: u32) -> Option<&Slot> {
        Some(self.slots.get(view as usize)?.get(candidate as usize)?)
    }
}

/// Every candidate's slot, so that a new snapshot goes on with the counts of the one before.
#[derive(Debug, Default)]
pub struct SlotTable {
    slots: HashMap<(Level, Arc<str>), Arc<Slot>>,
    /// The views that were joined last, by id: nobody is looked up again while the same are there.
    joined: HashMap<u32, (Arc<View>, Slots)>,
}

impl SlotTable {
    /// Joins a snapshot with its slots. Those of candidates that are gone and idle are dropped with the next
    /// that come or go.
    pub fn join(&mut self, snapshot: Snapshot) -> FleetView {
        let mut before = mem::take(&mut self.joined);
        let mut slots = Vec::new();
        let mut moved = false;
        for view in snapshot.shared_views() {
            let same = before.remove(&view.id).filter(|(old, _)| are_same(old, view));
            let joined: Slots = match same {
                Some((_, slots)) => slots,
                None => {
                    moved = true;
                    view.candidates.iter().map(|candidate| self.slot(candidate)).collect()
                }
            };
            let id = view.id as usize;
            slots.resize_with(slots.len().max(id + 1), Slots::default);
            slots[id] = joined.clone();
            self.joined.insert(view.id, (view.clone(), joined));
        }
        if moved || !before.is_empty() {
            drop(before);
            self.slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        FleetView { snapshot, slots }
    }

    fn slot(&mut self, candidate: &Candidate) -> Arc<Slot> {
        self.slots.entry((candidate.level, candidate.id.clone())).or_default().clone()
    }
}

/// Whether two of a view hold the same candidates.
fn are_same(old: &View, new: &View) -> bool {
    old.candidates.iter().map(|c| &c.id).eq(new.candidates.iter().map(|c| &c.id))
}

/// A name as a header's value. One that no header can hold is not named.
pub fn label(name: &str) -> HeaderValue {
    HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("?"))
}

/// Milliseconds since the router started: what ejections are timed by.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    pub fn now_ms(self) -> u64 {
        self.at_ms(Instant::now())
    }

    pub fn at_ms(self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use mrgc_fleet::{
        model::{Registration, Standing, Timestamp},
        snapshot::{Builder, Member},
    };

    use super::*;

    fn snapshot(builder: &mut Builder, ids: &[&str]) -> Snapshot {
        let region = serde_json::json!({ "region_id": "us", "endpoint": "http://us:8000" });
        let member = |id: &&str| Member {
            standing: Standing::new(Registration::new(*id, "us", "p", "a:1"), None).into(),
            fresh: true,
        };
        let members = ids.iter().map(member).collect();
        let regions = vec![serde_json::from_value(region).unwrap()];
        builder.build(Timestamp(0), regions, members, &BTreeMap::new())
    }

    fn at_home(fleet: &FleetView) -> &[Arc<Slot>] {
        fleet.slots(fleet.snapshot.instances_at_home(&"p".into()).unwrap())
    }

    #[test]
    fn a_candidate_keeps_its_slot_while_others_come_and_go() {
        let (mut builder, mut table) = (Builder::new("us".into()), SlotTable::default());
        let first = table.join(snapshot(&mut builder, &["i-1", "i-2"]));
        at_home(&first)[1].started(7);
        for ids in [&["i-1", "i-2"][..], &["i-0", "i-2", "i-3"], &["i-2"]] {
            let next = table.join(snapshot(&mut builder, ids));
            let own = ids.iter().position(|id| *id == "i-2").unwrap();
            assert_eq!(at_home(&next).len(), ids.len());
            for (n, slot) in at_home(&next).iter().enumerate() {
                assert_eq!(slot.live(0).in_flight, u32::from(n == own));
            }
        }
    }

    #[test]
    fn the_gone_are_forgotten_once_nobody_holds_them() {
        let (mut builder, mut table) = (Builder::new("us".into()), SlotTable::default());
        let first = table.join(snapshot(&mut builder, &["i-1", "i-2", "i-3"]));
        let held = at_home(&first)[0].clone();
        drop(first);
        table.join(snapshot(&mut builder, &["i-3"]));
        // The region's own, the one that is there and the one that is held.
        assert_eq!(table.slots.len(), 3);
        drop(held);
        table.join(snapshot(&mut builder, &[]));
        assert_eq!(table.slots.len(), 0);
    }
}
