//! A request's way through routers: attempts, their ends, and what they say of whom. Where it goes next is
//! the dispatcher's to say.
//!
//! ```text
//!  entering ─► regions, steered ─┬─► home ─► instances ─► attempt ─► answered: served
//!                                │                          └─ failed: the next one
//!                                └─► another region's router: a leg of its own, from `instances` on
//! ```

use std::sync::Arc;

use mrgc_fleet::{
    health::{Admission, Change, Outcome},
    routing::{Attempts, Trail},
    snapshot::{Candidate, View},
};

use crate::{
    dispatcher::{Dispatcher, Next},
    flight::Place,
    network::Node,
    slab::Key,
    trace::Note,
    traffic::{ATTEMPTS, DEADLINE_MS, Ending},
    world::{Body, Event, Timer, World},
};

/// For how long a connection is waited for, the head of an instance's response, and that of a region's.
const CONNECT_MS: u64 = 500;
const HEAD_MS: u64 = 5_000;
const HEAD_OF_REGION_MS: u64 = 12_000;

pub(crate) type LegId = Key;

/// One router's part in a request.
#[derive(Debug)]
pub(crate) struct Leg {
    pub ticket: Key,
    pub router: usize,
    /// Who forwarded it here.
    pub parent: Option<Parent>,
    /// It was moved from its first choice to another region.
    pub is_moved: bool,
    pub seed: u64,
    pub trail: Trail,
    pub regions: Option<Course>,
    pub instances: Option<Course>,
    /// Decisions made between instances.
    pub decisions: u64,
    /// There is a further region to try.
    pub elsewhere: bool,
    /// Home's instances were not all that could have been tried, for the sake of other regions.
    pub held_back: bool,
    /// All regions were tried.
    pub is_last_round: bool,
    /// Another region's router had no room for it.
    pub found_no_room: bool,
    /// What it ends with if nobody is left now.
    pub ending: Ending,
    deadline_ms: u64,
    going: Option<Going>,
    sent: u32,
}

/// Another region's router that waits for a leg, and by what it names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parent {
    node: Node,
    leg: LegId,
    attempt: u32,
}

/// An order of attempts, and how far it was followed.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub view: Arc<View>,
    pub order: Attempts,
    /// Evidence was set aside.
    pub panic: bool,
    pub cursor: usize,
    /// Attempts that had begun when it was decided.
    pub begun: usize,
}

/// The attempt under way.
#[derive(Clone, Debug)]
struct Going {
    number: u32,
    candidate: Candidate,
    place: Place,
    admission: Admission,
    /// The connection stands.
    is_connected: bool,
    /// Attempts that another region's router may make.
    given: usize,
}

/// What an attempt is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Connection,
    Head,
}

/// What came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub outcome: Outcome,
    /// Made by another region's router.
    pub attempts: usize,
    pub no_capacity: bool,
}

impl Answer {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, attempts: 0, no_capacity: false }
    }
}

impl Leg {
    pub(crate) fn entering(ticket: Key, router: usize, seed: u64, now_ms: u64) -> Self {
        let trail = Trail::new(ATTEMPTS, Vec::new());
        Self {
            ticket,
            router,
            parent: None,
            is_moved: false,
            seed,
            trail,
            regions: None,
            instances: None,
            decisions: 0,
            elsewhere: false,
            held_back: false,
            is_last_round: false,
            found_no_room: false,
            ending: Ending::NoRoute,
            deadline_ms: now_ms + DEADLINE_MS,
            going: None,
            sent: 0,
        }
    }

    pub(crate) fn going_to(&self) -> Option<Place> {
        self.going.as_ref().map(|going| going.place)
    }

    /// The number of its attempt, where that is under way there.
    pub(crate) fn attempt_at(&self, place: Place) -> Option<u32> {
        self.going.as_ref().filter(|going| going.place == place).map(|going| going.number)
    }

    /// The attempt of that number, where it is under way.
    fn going(&mut self, number: u32) -> Option<&mut Going> {
        self.going.as_mut().filter(|going| going.number == number)
    }
}

impl World {
    /// Goes on with a request until it waits for something, or is over.
    pub(crate) fn advance(&mut self, id: LegId) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        if self.now_ms >= leg.deadline_ms {
            return self.finish(id, Ending::TooLate);
        }
        let Some(ticket) = self.tickets.get(leg.ticket) else { return };
        let router = &mut self.routers[leg.router];
        let (watch, plan) = (&mut self.watch, &self.plan);
        match Dispatcher::new(router, watch, plan, ticket, self.now_ms).next(leg) {
            Next::Instance { index, no, admission, panic } => {
                self.check_sent(id, no, panic);
                self.attempt(id, index, Place::Instance(no), admission);
            }
            Next::Region { index, no, admission } => {
                self.attempt(id, index, Place::Region(no), admission);
            }
            Next::Over(ending) => self.finish(id, ending),
        }
    }

    fn check_sent(&mut self, id: LegId, no: usize, panic: bool) {
        let Some(leg) = self.legs.get(id) else { return };
        let Some(ticket) = self.tickets.get(leg.ticket) else { return };
        let router = &self.routers[leg.router];
        self.watch.sent(router, ticket, no, panic, self.now_ms, &self.plan);
    }

    fn attempt(&mut self, id: LegId, index: u32, place: Place, admission: Admission) {
        let to = match place {
            Place::Instance(no) => self.machines[no].node,
            Place::Region(region) => self.balance(region),
        };
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(ticket) = self.tickets.get_mut(leg.ticket) else { return };
        let router = &self.routers[leg.router];
        let course = match place {
            Place::Instance(_) => &leg.instances,
            Place::Region(_) => &leg.regions,
        };
        let Some(course) = course else { return };
        let candidate = course.view.candidates[index as usize].clone();
        leg.trail.begin();
        // Where yet another region is left, the last attempt is not this one's.
        let kept = usize::from(leg.elsewhere && leg.trail.attempts_left() > 0);
        let given = leg.trail.attempts_left() + 1 - kept;
        leg.sent += 1;
        let number = leg.sent;
        leg.going = Some(Going { number, candidate, place, admission, is_connected: false, given });
        let head_ms = match place {
            Place::Instance(no) => {
                let note = Note::Sent { router: router.node, machine: no, attempt: number };
                self.trace.note(self.now_ms, note);
                ticket.sent_to.push(no);
                HEAD_MS
            }
            Place::Region(_) => {
                self.trace.note(self.now_ms, Note::Forwarded { router: router.node, to });
                HEAD_OF_REGION_MS
            }
        };
        let (node, boot) = (router.node, router.boot);
        let connect_ms = router.clock.after(self.now_ms, CONNECT_MS);
        let head_ms = router.clock.after(self.now_ms, head_ms).min(leg.deadline_ms);
        self.send(node, to, Body::Request { leg: id, attempt: number });
        for (at_ms, limit) in [(connect_ms, Limit::Connection), (head_ms, Limit::Head)] {
            let timer = Timer::Attempt { leg: id, number, limit };
            self.agenda.plan(at_ms, Event::Timer { node, boot, timer });
        }
    }

    /// A connection stands; whether somebody reads from it is another matter.
    pub(crate) fn connected(&mut self, id: LegId, attempt: u32) {
        if let Some(going) = self.legs.get_mut(id).and_then(|leg| leg.going(attempt)) {
            going.is_connected = true;
        }
    }

    /// A request reaches another region's router.
    pub(crate) fn forwarded(&mut self, from: Node, to: Node, id: LegId, attempt: u32) {
        self.connected(id, attempt);
        let Some(parent) = self.legs.get_mut(id) else { return };
        let Some(going) = parent.going(attempt) else { return };
        let given = going.given;
        let mut regions_tried = parent.trail.regions_tried().to_vec();
        regions_tried.push(self.plan.regions[from.region].id.clone());
        let leg = Leg {
            ticket: parent.ticket,
            router: to.no,
            parent: Some(Parent { node: from, leg: id, attempt }),
            trail: Trail::new(given, regions_tried),
            regions: None,
            instances: None,
            decisions: 0,
            held_back: false,
            is_last_round: false,
            found_no_room: false,
            ending: Ending::NoRoute,
            going: None,
            sent: 0,
            ..*parent
        };
        let Some(ticket) = self.tickets.get_mut(leg.ticket) else { return };
        ticket.legs += 1;
        let router = &self.routers[to.no];
        let pool = &self.plan.pools[ticket.pool];
        let in_flight = router.flight.in_flight_of(ticket.pool, &self.plan);
        let priority = ticket.request.priority;
        let is_admitted =
            !leg.is_moved || router.snapshot.steering.admits(pool, in_flight, priority);
        let leg = self.legs.insert(leg);
        match is_admitted {
            true => self.advance(leg),
            false => self.finish(leg, Ending::Shed),
        }
    }

    /// An attempt has been waited for.
    pub(crate) fn attempt_took(&mut self, id: LegId, number: u32, limit: Limit) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(going) = leg.going(number) else { return };
        let (given, is_connected) = (going.given, going.is_connected);
        match limit {
            Limit::Connection if is_connected => {}
            Limit::Connection => self.ended(id, Answer::of(Outcome::Unreachable)),
            // What another router did meanwhile is not known: all that it might have.
            Limit::Head => {
                let answer = Answer { attempts: given, ..Answer::of(Outcome::TimedOut) };
                self.ended(id, answer);
            }
        }
    }

    /// A response's head came.
    pub(crate) fn answered(&mut self, id: LegId, attempt: u32, answer: Answer) {
        if self.legs.get_mut(id).and_then(|leg| leg.going(attempt)).is_some() {
            self.ended(id, answer);
        }
    }

    /// A router finds that a region does not answer: what waits for it need not wait any longer.
    pub(crate) fn give_up_region(&mut self, router: usize, region: usize) {
        let waiting =
            |leg: &Leg| leg.router == router && leg.going_to() == Some(Place::Region(region));
        let waiting: Vec<_> =
            self.legs.iter().filter(|(_, leg)| waiting(leg)).map(|(id, _)| id).collect();
        for id in waiting {
            let Some(going) = self.legs.get(id).and_then(|leg| leg.going.as_ref()) else {
                continue;
            };
            let answer = Answer { attempts: going.given, ..Answer::of(Outcome::TimedOut) };
            self.ended(id, answer);
        }
    }

    /// The attempt under way ended.
    fn ended(&mut self, id: LegId, answer: Answer) {
        let Some(leg) = self.legs.get_mut(id) else { return };
        let Some(going) = leg.going.take() else { return };
        let no = leg.router;
        let router = &mut self.routers[no];
        let note = Note::Ended { router: router.node, outcome: answer.outcome };
        self.trace.note(self.now_ms, note);
        let evidence = leg.learn(&going, answer);
        let now_ms = router.clock.now_ms(self.now_ms);
        let room = router.flight.room(going.place, &router.snapshot, &self.plan);
        let (place, admission) = (going.place, going.admission);
        let change =
            router.flight.end(place, admission, evidence, room, now_ms, &self.plan.ejection);
        if let (Outcome::Unreachable, Some(ticket)) =
            (answer.outcome, self.tickets.get_mut(leg.ticket))
            && matches!(place, Place::Instance(_))
        {
            ticket.unreached += 1;
        }
        self.changed(no, place, change);
        match answer.outcome {
            Outcome::Answered => self.finish(id, Ending::Served),
            Outcome::Busy if !answer.no_capacity => self.finish(id, Ending::Busy),
            _ => self.advance(id),
        }
    }

    /// What an outcome changed about a candidate.
    fn changed(&mut self, no: usize, place: Place, change: Change) {
        let Place::Instance(machine) = place else { return };
        let node = self.routers[no].node;
        match change {
            Change::None | Change::Probing => return,
            Change::Ejected { cause, .. } => {
                self.trace.note(self.now_ms, Note::Ejected { router: node, machine });
                self.watch.ejected(&self.routers[no], machine, cause, &self.plan);
            }
            Change::Rejoined => {
                self.trace.note(self.now_ms, Note::Rejoined { router: node, machine });
            }
        }
        self.evaluate(no);
    }

    /// A router's part in a request is over: whoever waits for it hears so.
    pub(crate) fn finish(&mut self, id: LegId, ending: Ending) {
        let Some(leg) = self.legs.remove(id) else { return };
        let node = self.routers[leg.router].node;
        match leg.parent {
            Some(parent) => {
                let attempts = leg.trail.attempts();
                let outcome = match ending {
                    Ending::Served => Outcome::Answered,
                    Ending::Busy => Outcome::Busy,
                    Ending::NoRoute | Ending::Shed if attempts == 0 => Outcome::Busy,
                    Ending::Dropped => Outcome::Broken,
                    _ => Outcome::ServerError,
                };
                let no_capacity = outcome == Outcome::Busy && ending != Ending::Busy;
                let (leg, attempt) = (parent.leg, parent.attempt);
                let answer = Body::Response { leg, attempt, outcome, attempts, no_capacity };
                self.send(node, parent.node, answer);
            }
            None => self.conclude(&leg, ending),
        }
        self.release(&leg);
    }

    /// A router's process ends: its requests with it.
    pub(crate) fn drop_legs(&mut self, router: usize, is_reset: bool) {
        let of_it = self.legs.iter().filter(|(_, leg)| leg.router == router);
        let ids: Vec<_> = of_it.map(|(id, _)| id).collect();
        for id in ids {
            if is_reset {
                self.finish(id, Ending::Dropped);
            } else if let Some(leg) = self.legs.remove(id) {
                self.release(&leg);
            }
        }
    }
}

impl Leg {
    /// Notes how an attempt ended, and says what of it is evidence about the candidate.
    fn learn(&mut self, going: &Going, answer: Answer) -> Option<Outcome> {
        let Answer { outcome, attempts, no_capacity } = answer;
        if no_capacity {
            self.trail.give_back();
            self.found_no_room = true;
            return None;
        }
        if outcome.is_failure() {
            self.ending = Ending::Failed;
        }
        let evidence = self.trail.ended(&going.candidate, outcome);
        if let Place::Region(_) = going.place {
            self.trail.count_elsewhere(attempts);
            self.trail.region_tried(going.candidate.region.clone());
            // A router that says that its instances failed is well itself.
            let is_its_word = outcome == Outcome::ServerError;
            return if is_its_word { Some(Outcome::Answered) } else { evidence };
        }
        evidence
    }
}
