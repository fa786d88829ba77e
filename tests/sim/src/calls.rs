//! What routers and agents ask of the store, and what comes back.

use std::sync::Arc;

use mrgc_fleet::{
    failover::{FailoverEvent, RegionRecord},
    lease::Write,
    model::{Capacity, Desired, Lease, PoolId, Report},
};

use crate::{
    faults::Fault,
    network::{Node, Role},
    store::{Look, Yields},
    trace::Note,
    world::{Body, Event, Timer, World},
};

/// How long a call is waited for.
const TIMEOUT_MS: u64 = 1_000;
/// Calls of one router that may be under way; what would be one more is not made now.
pub(crate) const MAX_CALLS: usize = 64;
/// An answer of the store takes up to so long.
const SERVICE_MS: u64 = 15;

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Look,
    ReadLease {
        which: usize,
    },
    WriteLease {
        which: usize,
        write: Write,
    },
    Record(RegionRecord),
    Wish {
        machine: usize,
        wish: Desired,
    },
    ReadWish {
        machine: usize,
    },
    /// Another instance in the place of one, or not any more.
    Replacement {
        machine: usize,
        is_open: bool,
    },
    ReadCapacity {
        pool: PoolId,
    },
    WriteCapacity(Capacity),
    ReadHistory,
    Failover(FailoverEvent),
}

#[derive(Clone, Debug)]
pub(crate) enum Returned {
    Look(Arc<Look>),
    Lease(Option<Lease>),
    /// The stored lease, where the write was refused for it.
    LeaseWritten(Result<(), Option<Lease>>),
    Wanted(Option<Desired>),
    Capacity(Option<Capacity>),
    History(Vec<FailoverEvent>),
    /// Also where what is stored is later: another does it by now.
    Done,
    /// Nothing was written, for a person wants it otherwise.
    Yielded,
    /// Throttled, or in an outage.
    Refused,
    TimedOut,
}

/// A call whose answer is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub number: u64,
    /// By the router's own clock.
    pub sent_ms: u64,
    pub asked: Asked,
}

/// What of a call its answer is read with.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Look,
    ReadLease {
        which: usize,
    },
    WriteLease {
        which: usize,
        write: Write,
    },
    /// In the epoch of the lease for it, or at the start.
    ReadHistory {
        epoch: Option<u64>,
    },
    /// A step of the action under way.
    Step,
}

impl World {
    /// Calls the store's replica in a router's region; `false` where too many calls are under way.
    pub(crate) fn call(&mut self, router: usize, call: Call, asked: Asked) -> bool {
        let now_ms = self.now_ms;
        let caller = &mut self.routers[router];
        if caller.pending.len() == MAX_CALLS {
            return false;
        }
        caller.calls += 1;
        let (node, boot, number) = (caller.node, caller.boot, caller.calls);
        caller.pending.push(Pending { number, sent_ms: caller.clock.now_ms(now_ms), asked });
        let replica = Node { role: Role::Store, region: node.region, no: node.region };
        self.send(node, replica, Body::Call { number, call: Box::new(call) });
        let timer = Timer::Call { number };
        self.agenda.plan(now_ms + TIMEOUT_MS, Event::Timer { node, boot, timer });
        true
    }

    /// The store's replica serves a call.
    pub(crate) fn called(&mut self, from: Node, to: Node, number: u64, call: Call) {
        let returned = match self.store.admits(to.region, &mut self.tally) {
            Ok(()) => self.serve(from, call),
            Err(_) => Returned::Refused,
        };
        let returned = Body::Returned { number, returned: Box::new(returned) };
        // What takes a while to answer answers later, the work is done at once.
        let service_ms = self.rng.u64(0..SERVICE_MS);
        self.now_ms += service_ms;
        self.send(to, from, returned);
        self.now_ms -= service_ms;
    }

    fn serve(&mut self, from: Node, call: Call) -> Returned {
        let (region, now_ms) = (from.region, self.now_ms);
        match call {
            Call::Look => Returned::Look(self.store.look(region, now_ms, &mut self.tally).into()),
            Call::ReadLease { which } => Returned::Lease(self.store.lease(region, which).cloned()),
            Call::WriteLease { which, write } => {
                let written = self.store.write_lease(region, which, &write);
                if written.is_ok() {
                    self.trace
                        .note(now_ms, Note::Leased { by: from, which, stamp: write.lease.stamp });
                }
                Returned::LeaseWritten(written)
            }
            Call::Record(record) => self.write_record(from, record),
            Call::Wish { machine, wish } => {
                self.trace.note(now_ms, Note::Wished { by: from, machine, state: wish.state });
                match self.store.wish(machine, region, wish, now_ms) {
                    Ok(()) => Returned::Done,
                    Err(Yields) => Returned::Yielded,
                }
            }
            Call::ReadWish { machine } => {
                Returned::Wanted(self.store.wanted(machine, region, now_ms))
            }
            Call::Replacement { machine, is_open } => {
                self.trace.note(now_ms, Note::Replacement { by: from, machine, is_open });
                match is_open {
                    true => self.store.autoscaling.ask_for(machine),
                    false => self.store.autoscaling.call_off(machine),
                }
                Returned::Done
            }
            Call::ReadCapacity { pool } => {
                Returned::Capacity(self.store.autoscaling.capacity(region, &pool).cloned())
            }
            Call::WriteCapacity(capacity) => self.write_capacity(from, capacity),
            Call::ReadHistory => Returned::History(self.store.failovers.latest(region)),
            Call::Failover(event) => {
                let about = self.plan.region(&event.from).unwrap_or_default();
                let is_over = event.ended_at.is_some();
                self.trace.note(now_ms, Note::Failover { by: from, about, is_over });
                self.store.failovers.write(region, event);
                Returned::Done
            }
        }
    }

    fn write_capacity(&mut self, from: Node, capacity: Capacity) -> Returned {
        let before = self.store.autoscaling.capacity(from.region, &capacity.pool).cloned();
        if self.store.autoscaling.scale(from.region, capacity.clone()).is_ok() {
            let desired = capacity.desired;
            self.trace.note(self.now_ms, Note::Scaled { by: from, desired });
            self.watch.capacity_stored(from, before.as_ref(), &capacity, &self.plan);
        }
        Returned::Done
    }

    fn write_record(&mut self, from: Node, record: RegionRecord) -> Returned {
        let Some(about) = self.plan.region(&record.region) else { return Returned::Done };
        let before = self.store.recorded(from.region, about).map(|stored| stored.stamp);
        let stamp = record.stamp;
        if self.store.record(from.region, about, record, self.now_ms).is_ok() {
            self.trace.note(self.now_ms, Note::Recorded { by: from, about, stamp });
            self.watch.record_stored(from, before, stamp);
        }
        Returned::Done
    }

    /// An agent's report reaches the store.
    pub(crate) fn reported(&mut self, from: Node, to: Node, report: Report) {
        if self.store.admits(to.region, &mut self.tally).is_err() {
            return;
        }
        let fence = |report: &Report| (report.generation, report.sequence);
        let before = self.store.reported(from.no).map(fence);
        let fence = fence(&report);
        if report.generation < self.machines[from.no].registration.generation {
            self.tally.add(Fault::ZombieAgent);
        }
        if self.store.report(from.no, report, self.now_ms).is_ok() {
            self.watch.report_stored(from.no, before, fence);
        }
    }
}
