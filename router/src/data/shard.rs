//! One data thread's own state: nothing here is shared, so nothing is locked.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;
use mrgc_fleet::{
    model::{PoolId, RegionId, Request},
    routing::{self, Attempts, NoRoute, Question, Scratch},
    snapshot::{Candidate, Level, View},
};
use tokio::sync::mpsc;

use super::{
    alarm,
    decision::DecisionId,
    meter::{Batch, Meter},
    stats::Stats,
    upstream,
};
use crate::{
    config::Config,
    flight::{Clock, FleetView, Slot, label},
    health::HealthBoard,
    policies::{Deck, Handle, RouteTable, translate::Moment},
};

/// What all data threads are started with.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub home: RegionId,
    /// Its name, as a response's header names it.
    pub home_label: HeaderValue,
    pub config: Arc<Config>,
    pub conductor: Handle,
    pub clock: Clock,
    pub health: HealthBoard,
    /// Tenants by the digest of their key.
    pub tenants: Arc<HashMap<[u8; 32], usize>>,
    /// Starts every decision's id, so that two routers' never meet.
    pub node: u32,
    /// Where measurements go; `None` where nobody collects them.
    pub measurements: Option<mpsc::Sender<Batch>>,
}

/// The fleet as a data thread sees it: counted on that thread alone, for an atomic count that all threads
/// write is a cache line that all wait for.
pub(super) type Fleet = Rc<Arc<FleetView>>;

/// A decision.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    fleet: &'a Fleet,
    /// What it was chosen from.
    pub view: &'a View,
    order: Attempts,
    /// The versions that made it, for the response's header.
    pub label: HeaderValue,
}

/// A candidate to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    fleet: &'a Fleet,
    view: u32,
    index: u32,
    pub candidate: &'a Candidate,
    pub slot: &'a Slot,
}

impl<'a> Choice<'a> {
    /// The candidates to try, best first.
    pub fn places(&self) -> impl Iterator<Item = Place<'a>> {
        let Self { fleet, view, order, .. } = *self;
        (0..order.as_slice().len()).filter_map(move |nth| {
            let index = order.as_slice()[nth];
            Some(Place {
                fleet,
                view: view.id,
                index,
                candidate: view.candidates.get(index as usize)?,
                slot: fleet.slot(view.id, index)?,
            })
        })
    }
}

/// A request in flight: counted while it lives.
#[derive(Debug)]
pub(super) struct InFlight {
    fleet: Fleet,
    view: u32,
    index: u32,
    tokens: u64,
}

impl InFlight {
    pub fn new(place: Place<'_>, tokens: u64) -> Self {
        let Place { fleet, view, index, slot, .. } = place;
        slot.started(tokens);
        Self { fleet: fleet.clone(), view, index, tokens }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(slot) = self.fleet.slot(self.view, self.index) {
            slot.ended(self.tokens);
        }
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    pub thread: usize,
    pub common: Common,
    pub stats: Arc<Stats>,
    pub idle: RefCell<upstream::Idle>,
    pub meter: Meter,
    deck: RefCell<Deck>,
    /// The deck's.
    fleet: RefCell<Fleet>,
    scratch: RefCell<Scratch>,
    /// Decisions so far, by view.
    numbers: RefCell<Vec<u64>>,
    decisions: Cell<u64>,
    /// The thread takes no more connections and ends those it has.
    pub stopping: Rc<Cell<bool>>,
    seed: Cell<u64>,
}

impl Shard {
    pub fn new(thread: usize, common: Common, stats: Arc<Stats>, deck: Deck) -> Self {
        // A value of its own: a clone's bytes would be counted by all threads.
        let common = Common { home_label: label(common.home.as_str()), ..common };
        let seed = alarm::unix_ms() ^ (u64::from(common.node) << 32) ^ thread as u64;
        let meter = Meter::new(common.measurements.clone(), alarm::now());
        Self {
            thread,
            common,
            stats,
            idle: RefCell::default(),
            meter,
            fleet: RefCell::new(Rc::new(deck.fleet.clone())),
            deck: RefCell::new(deck),
            scratch: RefCell::default(),
            numbers: RefCell::default(),
            decisions: Cell::new(0),
            stopping: Rc::default(),
            seed: Cell::new(seed),
        }
    }

    pub fn config(&self) -> &Config {
        &self.common.config
    }

    pub fn table(&self) -> &Arc<RouteTable> {
        self.common.conductor.table()
    }

    /// The fleet as this thread sees it now.
    pub fn fleet(&self) -> Fleet {
        self.fleet.borrow().clone()
    }

    /// Takes a new deck and gives the old one back.
    pub fn take(&self, deck: Deck) {
        self.fleet.replace(Rc::new(deck.fleet.clone()));
        let old = self.deck.replace(deck);
        self.common.conductor.give_back(self.thread, old);
    }

    /// An id for the next decision, unique over routers and restarts for all practical purposes.
    pub fn next_decision(&self) -> DecisionId {
        let number = self.decisions.get();
        self.decisions.set(number + 1);
        DecisionId::new(self.common.node, self.thread, number)
    }

    /// Asks the route's policies where a request should go: to which region that has the pool, or to
    /// which of the pool's instances here. `None` where there is no such view. `fleet` is this thread's.
    pub fn decide<'a>(
        &self,
        fleet: &'a Fleet,
        route: usize,
        level: Level,
        pool: &PoolId,
        facts: &Request,
        attempts: usize,
    ) -> Option<Result<Choice<'a>, NoRoute>> {
        let deck = &mut *self.deck.borrow_mut();
        let view = match level {
            Level::Region => fleet.snapshot.regions_with(pool),
            Level::Instance => fleet.snapshot.instances_at_home(pool),
        }?;
        let table = self.table();
        if level == Level::Region && self.is_settled(table, route, view) {
            let (order, label) = (Attempts::only(0), deck.labels[route].clone());
            return Some(Ok(Choice { fleet, view, order, label }));
        }
        let at = Moment {
            number: self.count(view.id),
            time_ms: alarm::unix_ms(),
            seed: self.next_seed(),
        };
        let part = table.part(route, level);
        let question = Question {
            view,
            request: facts,
            rules: &self.config().placement,
            weights: &part.weights,
            picker: picker(table, route, level),
            seed: at.seed,
            attempts,
        };
        let slots = fleet.slots(view);
        let clock_ms = self.common.clock.at_ms(alarm::now());
        let live =
            |index: u32| slots.get(index as usize).map(|s| s.live(clock_ms)).unwrap_or_default();
        let unmasked = |index: u32| routing::Live { masked: false, ..live(index) };
        let mut died = false;
        let seats = &mut deck.seats;
        let mut score = |policy: usize, picks: &[u32], loads: routing::Loads<'_>| {
            let seat = &mut seats[part.seats[policy]];
            let scores = seat.score(self.thread, view, facts, at, picks, loads);
            if scores.is_none() {
                Stats::count(&self.stats.native_decisions);
                died |= seat.is_empty() && seat.version.is_some();
            }
            scores
        };
        let scratch = &mut *self.scratch.borrow_mut();
        let mut decided = routing::decide(scratch, &question, live, &mut score);
        if decided == Err(NoRoute::NoneReady) {
            // With every candidate ejected, trying one beats refusing.
            decided = routing::decide(scratch, &question, unmasked, &mut score);
        }
        if died {
            self.common.conductor.seat_died(self.thread);
        }
        let label = &deck.labels[route];
        let choice = |order| Choice { fleet, view, order, label: label.clone() };
        Some(decided.map(choice))
    }

    /// Whether there is nothing to decide among regions: home is the only one, and every policy that
    /// would be asked of it is asked of its instances, which carry all its facts, and so is the guard.
    fn is_settled(&self, table: &RouteTable, route: usize, view: &View) -> bool {
        let (regions, instances) =
            (table.part(route, Level::Region), table.part(route, Level::Instance));
        matches!(view.candidates.as_slice(), [only] if only.region == self.common.home)
            && regions.seats.iter().all(|seat| instances.seats.contains(seat))
    }

    fn count(&self, view: u32) -> u64 {
        let mut numbers = self.numbers.borrow_mut();
        let view = view as usize;
        if numbers.len() <= view {
            numbers.resize(view + 1, 0);
        }
        let number = numbers[view];
        numbers[view] += 1;
        number
    }

    fn next_seed(&self) -> u64 {
        let seed = self.seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed.set(seed);
        seed
    }
}

/// Regions are always tried best first: the picker spreads load among instances.
fn picker(table: &RouteTable, route: usize, level: Level) -> routing::Picker {
    match level {
        Level::Region => routing::Picker::Best,
        Level::Instance => table.routes[route].picker,
    }
}
