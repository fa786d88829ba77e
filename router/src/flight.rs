//! What this router knows of each candidate from its own traffic, fresher than any snapshot: requests in
//! flight, and how those before them fared. Shared by all data threads, as atomics.

mod slot;

use std::{collections::HashMap, mem, sync::Arc, time::Instant};

use http::HeaderValue;
use mrgc_fleet::{
    health::{Change, EjectionConfig, Outcome},
    snapshot::{Candidate, Level, Snapshot, View},
};

use slot::Rules;
pub use slot::{Permit, Signs, Slot};

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

    /// What came of an attempt at a candidate of this view.
    pub fn judge(&self, view: u32, permit: Permit<'_>, outcome: Outcome, now_ms: u64) -> Change {
        let pool = self.slots.get(view as usize).map_or(&[][..], |slots| slots);
        permit.conclude(outcome, pool, now_ms)
    }
}

/// Every candidate's slot, so that a new snapshot goes on with the counts of the one before.
#[derive(Debug)]
pub struct SlotTable {
    rules: Arc<Rules>,
    slots: HashMap<(Level, Arc<str>), Arc<Slot>>,
    /// The views that were joined last, by id: nobody is looked up again while the same are there.
    joined: HashMap<u32, (Arc<View>, Slots)>,
}

impl SlotTable {
    pub fn new(ejection: EjectionConfig, signs: Signs) -> Self {
        let rules = Arc::new(Rules::new(ejection, signs));
        Self { rules, slots: HashMap::new(), joined: HashMap::new() }
    }

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
        let slot = self.slots.entry((candidate.level, candidate.id.clone()));
        slot.or_insert_with(|| Arc::new(Slot::new(self.rules.clone()))).clone()
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
        snapshot::{Builder, Member, Seen},
    };

    use super::*;

    fn snapshot(builder: &mut Builder, ids: &[&str]) -> Snapshot {
        let region = serde_json::json!({ "region_id": "us", "endpoint": "http://us:8000" });
        let member = |id: &&str| Member {
            standing: Standing::new(Registration::new(*id, "us", "p", "a:1"), None).into(),
            seen: Seen::Well,
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
        let (mut builder, mut table) = (
            Builder::new("us".into()),
            SlotTable::new(EjectionConfig::default(), Signs::default()),
        );
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
        let (mut builder, mut table) = (
            Builder::new("us".into()),
            SlotTable::new(EjectionConfig::default(), Signs::default()),
        );
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
