//! One data thread's own state: nothing here is shared, so nothing is locked.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;
use mrgc_fleet::{
    health::{Change, Outcome},
    model::{PoolId, RegionId, Request},
    routing::{self, Attempts, MAX_ATTEMPTS, NoRoute, Question, Scratch, Trail},
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
    flight::{Clock, FleetView, Permit, Signs, Slot, label},
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
    pub signs: Signs,
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
    pub order: Attempts,
    /// Nobody was eligible, so that evidence was set aside.
    panic: bool,
    /// The versions that made it, for the response's header.
    pub label: HeaderValue,
}

/// What a decision is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub route: usize,
    pub pool: &'a PoolId,
    pub facts: &'a Request,
    /// Who failed the request already is not decided for again.
    pub trail: &'a Trail,
    /// Where nobody is eligible, evidence is set aside.
    pub may_panic: bool,
}

/// A candidate to try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    fleet: &'a Fleet,
    view: u32,
    index: u32,
    pub candidate: &'a Candidate,
    pub slot: &'a Slot,
    /// It is tried whatever is held against it, for there is nobody else.
    is_last_resort: bool,
}

impl<'a> Choice<'a> {
    /// The next candidate to try, by what is known of it by now.
    pub fn next(
        &self,
        cursor: &mut usize,
        trail: &Trail,
        facts: &Request,
        shard: &Shard,
    ) -> Option<Place<'a>> {
        let Self { fleet, view, order, panic, .. } = self;
        let question = Question {
            view,
            request: facts,
            rules: &shard.config().placement,
            weights: &[],
            picker: routing::Picker::Best,
            seed: 0,
            attempts: 0,
            panic: *panic,
        };
        let now_ms = shard.now_ms();
        let live = |index| fleet.slot(view.id, index).map(|s| s.live(now_ms)).unwrap_or_default();
        let index = trail.next(order, cursor, &question, live)?;
        Some(Place {
            fleet,
            view: view.id,
            index,
            candidate: view.candidates.get(index as usize)?,
            slot: fleet.slot(view.id, index)?,
            is_last_resort: *panic,
        })
    }
}

impl<'a> Place<'a> {
    /// Asks for a place for one attempt, which another request may have taken a moment ago.
    pub fn admit(&self, now_ms: u64) -> Option<Permit<'a>> {
        self.slot.admit(self.is_last_resort, now_ms)
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
    /// By the router's clock, at the last tick.
    now_ms: Cell<u64>,
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
        let now_ms = Cell::new(common.clock.at_ms(alarm::now()));
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
            now_ms,
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

    /// By the router's clock, and as coarse as the alarms are.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.get()
    }

    /// The thread's alarms have ticked.
    pub fn turned(&self) {
        Stats::count(&self.stats.turns);
        self.now_ms.set(self.common.clock.at_ms(alarm::now()));
        self.meter.tick(alarm::now());
    }

    /// Tells what came of an attempt.
    pub fn judge(&self, place: Place<'_>, permit: Permit<'_>, outcome: Outcome) {
        let Place { fleet, view, candidate, .. } = place;
        match fleet.judge(view, permit, outcome, self.now_ms()) {
            Change::None => {}
            Change::Ejected { cause, until_ms } => {
                self.stats.ejected(cause);
                let (cause, for_ms) = (cause.as_str(), until_ms.saturating_sub(self.now_ms()));
                tracing::warn!(candidate = &*candidate.id, cause, for_ms, "ejected");
            }
            Change::Probing => tracing::info!(candidate = &*candidate.id, "tried out"),
            Change::Rejoined => tracing::info!(candidate = &*candidate.id, "is back"),
        }
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
    /// which of the pool's instances here. `fleet` is this thread's. Where nobody is eligible, evidence is set
    /// aside, if it may be.
    pub fn decide<'a>(
        &self,
        fleet: &'a Fleet,
        wanted: &Wanted<'_>,
        level: Level,
        attempts: usize,
    ) -> Result<Choice<'a>, NoRoute> {
        let Wanted { route, pool, facts, trail, may_panic } = *wanted;
        let deck = &mut *self.deck.borrow_mut();
        let view = match level {
            Level::Region => fleet.snapshot.regions_with(pool),
            Level::Instance => fleet.snapshot.instances_at_home(pool),
        };
        let view = view.ok_or(NoRoute::NoneReady)?;
        let at = Moment {
            number: self.count(view.id),
            time_ms: alarm::unix_ms(),
            seed: self.next_seed(),
        };
        let table = self.table();
        let part = table.part(route, level);
        let mut question = Question {
            view,
            request: facts,
            rules: &self.config().placement,
            weights: &part.weights,
            picker: picker(table, route, level),
            seed: at.seed,
            attempts,
            panic: false,
        };
        let (slots, now_ms) = (fleet.slots(view), self.now_ms());
        let is_first = trail.attempts() == 0;
        let live = |index: u32| {
            let at = index as usize;
            let mut live = slots.get(at).map(|slot| slot.live(now_ms)).unwrap_or_default();
            live.masked |= !is_first && view.candidates.get(at).is_some_and(|c| trail.was_tried(c));
            live
        };
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
        if may_panic && decided == Err(NoRoute::NoneReady) {
            (question.panic, question.attempts) = (true, MAX_ATTEMPTS);
            decided = routing::decide(scratch, &question, live, &mut score);
        }
        if died {
            self.common.conductor.seat_died(self.thread);
        }
        let (panic, label) = (question.panic, &deck.labels[route]);
        decided.map(|order| Choice { fleet, view, order, panic, label: label.clone() })
    }

    /// Whether there is nothing to decide among regions: home is the only one, and every policy that
    /// would be asked of it is asked of its instances, which carry all its facts, and so is the guard.
    pub fn is_settled(&self, fleet: &Fleet, route: usize, pool: &PoolId) -> bool {
        let (table, view) = (self.table(), fleet.snapshot.regions_with(pool));
        let (regions, instances) =
            (table.part(route, Level::Region), table.part(route, Level::Instance));
        let regions_there = view.map_or(&[][..], |view| &view.candidates);
        matches!(regions_there, [only] if only.region == self.common.home)
            && regions.seats.iter().all(|seat| instances.seats.contains(seat))
    }

    /// This router's requests under way at instances of the pool.
    pub fn in_flight_at_home(&self, fleet: &Fleet, pool: &PoolId) -> u32 {
        let instances = fleet.snapshot.instances_at_home(pool);
        let slots = instances.map_or(&[][..], |view| fleet.slots(view));
        slots.iter().map(|slot| slot.in_flight()).sum()
    }

    /// This router's requests under way in a region, an index into a pool's view of regions.
    pub fn in_flight_in(&self, fleet: &Fleet, view: &View, region: u32) -> u32 {
        let candidate = view.candidates.get(region as usize);
        match candidate.is_some_and(|candidate| candidate.region == self.common.home) {
            true => self.in_flight_at_home(fleet, &view.key.pool),
            false => fleet.slot(view.id, region).map_or(0, Slot::in_flight),
        }
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

    pub fn next_seed(&self) -> u64 {
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
