//! Requests at model servers.

use mrgc_fleet::health::Outcome;

use crate::{
    flight::Place,
    journey::LegId,
    machine::Taken,
    world::{Body, Event, World},
};

impl World {
    /// A request reaches an instance.
    pub(crate) fn take(&mut self, no: usize, id: LegId, attempt: u32) {
        let Some(leg) = self.legs.get(id) else { return };
        if leg.attempt_at(Place::Instance(no)) != Some(attempt) {
            return;
        }
        let router = self.routers[leg.router].node;
        let machine = &mut self.machines[no];
        let node = machine.node;
        match machine.take(id, &mut self.rng) {
            Taken::Refused => {
                let outcome = Outcome::Unreachable;
                let refusal =
                    Body::Response { leg: id, attempt, outcome, attempts: 0, no_capacity: false };
                self.send(node, router, refusal);
            }
            Taken::Held => self.connected(id, attempt),
            Taken::Answered { outcome, after_ms } => {
                self.connected(id, attempt);
                let served = Event::Served { machine: no, leg: id, attempt, outcome };
                self.agenda.plan(self.now_ms + after_ms, served);
            }
        }
    }

    /// A server is done with a request.
    pub(crate) fn served(&mut self, no: usize, id: LegId, attempt: u32, outcome: Outcome) {
        if !self.machines[no].finish(id) {
            return;
        }
        let node = self.machines[no].node;
        let Some(leg) = self.legs.get(id) else { return };
        let router = self.routers[leg.router].node;
        let answer = Body::Response { leg: id, attempt, outcome, attempts: 0, no_capacity: false };
        self.send(node, router, answer);
    }

    /// A server's process ends: the connections that it held are reset.
    pub(crate) fn reset_all(&mut self, no: usize) {
        let node = self.machines[no].node;
        for id in self.machines[no].drop_all() {
            let Some(leg) = self.legs.get(id) else { continue };
            let Some(attempt) = leg.attempt_at(Place::Instance(no)) else { continue };
            let router = self.routers[leg.router].node;
            let outcome = Outcome::Broken;
            let reset =
                Body::Response { leg: id, attempt, outcome, attempts: 0, no_capacity: false };
            self.send(node, router, reset);
        }
    }
}
