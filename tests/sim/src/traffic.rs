//! Clients: what they ask for, where they enter, and what they get.

use std::sync::Arc;

use mrgc_fleet::model::Request;

use crate::{
    journey::Leg,
    trace::Note,
    world::{Event, World},
};

/// Between two requests, on average.
const EVERY_MS: f64 = 40.0;
/// How many times as many come in a peak.
const PEAK: f64 = 6.0;
/// Attempts that a request may make, over all hops.
pub(crate) const ATTEMPTS: usize = 4;
/// For how long a client waits.
pub(crate) const DEADLINE_MS: u64 = 20_000;
/// Requests that may be under way at once.
const MAX_UNDER_WAY: usize = 5_000;

/// A request, as the client and the truth know it.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub pool: usize,
    pub request: Arc<Request>,
    pub entered_ms: u64,
    /// Instances that it was sent to, in order.
    pub sent_to: Vec<usize>,
    /// Of those, the ones that were not reached.
    pub unreached: usize,
    /// Routers that work on it.
    pub legs: usize,
}

/// What a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Served,
    /// Every attempt failed.
    Failed,
    /// 429.
    Busy,
    /// Nobody was left to try.
    NoRoute,
    /// 503, for want of room elsewhere.
    Shed,
    /// It took longer than the client waits.
    TooLate,
    /// The router that it entered by died: the client tries another.
    Dropped,
}

impl World {
    /// A client comes, and plans the next one.
    pub(crate) fn arrive(&mut self) {
        let pace = if self.chaos.is_peak { EVERY_MS / PEAK } else { EVERY_MS };
        let wait_ms = -(1.0 - self.rng.f64()).ln() * pace;
        self.agenda.plan(self.now_ms + 1 + wait_ms as u64, Event::Arrival);
        if self.tickets.len() >= MAX_UNDER_WAY {
            return;
        }
        let start = self.rng.usize(0..self.routers.len());
        let order = (0..self.routers.len()).map(|n| (start + n) % self.routers.len());
        let Some(router) = order.clone().find(|no| self.routers[*no].takes_clients()) else {
            return;
        };
        let (pool, request) = self.plan.request(&mut self.rng);
        let ticket = Ticket {
            pool,
            request: request.into(),
            entered_ms: self.now_ms,
            sent_to: Vec::new(),
            unreached: 0,
            legs: 1,
        };
        let ticket = self.tickets.insert(ticket);
        let leg = Leg::entering(ticket, router, self.rng.u64(..), self.now_ms);
        let leg = self.legs.insert(leg);
        self.advance(leg);
    }

    /// A client has its answer.
    pub(crate) fn conclude(&mut self, leg: &Leg, ending: Ending) {
        let router = &self.routers[leg.router];
        self.trace.note(self.now_ms, Note::Finished { router: router.node, ending });
        let Some(ticket) = self.tickets.get(leg.ticket) else { return };
        let lasting = &self.chaos.lasting;
        self.watch.concluded(router, leg, ticket, ending, lasting, &self.plan);
        if matches!(ending, Ending::NoRoute | Ending::Failed) {
            self.watch.left_over(router, leg, ticket, self.now_ms, &self.plan);
        }
    }

    /// A router's part in a request is over.
    pub(crate) fn release(&mut self, leg: &Leg) {
        let Some(ticket) = self.tickets.get_mut(leg.ticket) else { return };
        ticket.legs -= 1;
        if ticket.legs == 0 {
            self.tickets.remove(leg.ticket);
        }
    }
}
