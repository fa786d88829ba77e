//! What this router knows of each candidate from its own traffic, fresher than any snapshot: requests in
//! flight, and whether it has just failed to connect. Shared by all data threads, as atomics.

use std::{
    collections::HashMap,
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

/// Counts of one candidate. They outlive snapshots.
#[derive(Debug)]
pub struct Slot {
    /// Its id, as a response's header names it.
    label: HeaderValue,
    in_flight: AtomicU32,
    /// Requests sent there since the router started.
    sent: AtomicU64,
    in_flight_tokens: AtomicU64,
    /// By the router's own clock ([`Clock`]); 0 when not ejected.
    ejected_until_ms: AtomicU64,
    ejections: AtomicU32,
}

impl Slot {
    fn new(id: &str) -> Self {
        Self {
            label: label(id),
            in_flight: AtomicU32::default(),
            sent: AtomicU64::default(),
            in_flight_tokens: AtomicU64::default(),
            ejected_until_ms: AtomicU64::default(),
            ejections: AtomicU32::default(),
        }
    }

    pub fn label(&self) -> &HeaderValue {
        &self.label
    }

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
}

/// A request in flight: counted while it lives.
#[derive(Debug)]
pub struct InFlight {
    slot: Arc<Slot>,
    tokens: u64,
}

impl InFlight {
    pub fn new(slot: &Arc<Slot>, tokens: u64) -> Self {
        slot.in_flight.fetch_add(1, Relaxed);
        slot.sent.fetch_add(1, Relaxed);
        slot.in_flight_tokens.fetch_add(tokens, Relaxed);
        Self { slot: slot.clone(), tokens }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.slot.in_flight.fetch_sub(1, Relaxed);
        self.slot.in_flight_tokens.fetch_sub(self.tokens, Relaxed);
    }
}

/// A snapshot with the slots of its candidates.
#[derive(Debug)]
pub struct FleetView {
    pub snapshot: Snapshot,
    /// By view id, then by candidate.
    slots: Vec<Vec<Arc<Slot>>>,
}

impl FleetView {
    pub fn slots(&self, view: &View) -> &[Arc<Slot>] {
        self.slots.get(view.id as usize).map_or(&[], Vec::as_slice)
    }
}

/// Every candidate's slot, so that a new snapshot goes on with the counts of the one before.
#[derive(Debug, Default)]
pub struct SlotTable {
    slots: HashMap<(Level, Arc<str>), Arc<Slot>>,
}

impl SlotTable {
    /// Joins a snapshot with its slots. Those of candidates that are gone and idle are dropped.
    pub fn join(&mut self, snapshot: Snapshot) -> FleetView {
        let mut slots = Vec::new();
        for view in snapshot.views() {
            let id = view.id as usize;
            slots.resize_with(slots.len().max(id + 1), Vec::new);
            slots[id] = view.candidates.iter().map(|candidate| self.slot(candidate)).collect();
        }
        self.slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        FleetView { snapshot, slots }
    }

    fn slot(&mut self, candidate: &Candidate) -> Arc<Slot> {
        let new = || Arc::new(Slot::new(&candidate.id));
        self.slots.entry((candidate.level, candidate.id.clone())).or_insert_with(new).clone()
    }
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
