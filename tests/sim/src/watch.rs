//! What must hold after every step, whatever goes wrong. Each is a function that is told what happened and
//! says what should not have.

mod instances;
mod regions;
mod requests;
mod settled;
mod shares;
mod written;

use mrgc_fleet::{failover::MAX_EVENTS, health::MAX_OUTSTANDING, model::Stamp};

use crate::{
    calls::MAX_CALLS,
    executor::WAITING,
    network::Node,
    plan::{Plan, ROUTERS},
    router::Router,
    store::LEASES,
};
use regions::Sights;
pub(crate) use shares::Draw;
pub use shares::Draws;
use written::Failovers;

/// Within which a router's news reaches its decisions: until the next look at what is due, and the next
/// snapshot.
const NEWS_MS: u64 = 1_000;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What happened.
    pub message: String,
}

#[derive(Debug)]
pub(crate) struct Watch {
    violation: Option<Violation>,
    /// From when on nothing may be wrong any more.
    settled_ms: u64,
    /// The latest report of each instance that each router has read.
    fences: Vec<Vec<Option<(u64, u64)>>>,
    /// What each router's probes of each instance should come to.
    probes: Vec<Vec<Expected>>,
    /// Instances that were out of service for a while: their probes begin anew.
    interrupted: Vec<bool>,
    /// How many instances each router has read of, and since when so many, in virtual time.
    read_of: Vec<(usize, u64)>,
    regions: Sights,
    failovers: Failovers,
    pub draws: Draws,
    pub served: u64,
    pub refused: u64,
    pub failed: u64,
}

/// The probes of one instance, counted apart from the machine that is watched.
#[derive(Clone, Debug, Default)]
struct Expected {
    failures: u32,
    passes: u32,
    is_unhealthy: bool,
}

impl Watch {
    pub(crate) fn new(plan: &Plan, settled_ms: u64) -> Self {
        let (routers, instances) = (plan.regions.len() * ROUTERS, plan.instances.len());
        Self {
            violation: None,
            settled_ms,
            fences: vec![vec![None; instances]; routers],
            probes: vec![vec![Expected::default(); instances]; routers],
            interrupted: vec![false; instances],
            read_of: vec![(0, 0); routers],
            regions: Sights::new(plan),
            failovers: Failovers::new(routers),
            draws: Draws::default(),
            served: 0,
            refused: 0,
            failed: 0,
        }
    }

    /// What does not hold; the first thing, for others may follow from it.
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    fn check(&mut self, holds: bool, invariant: &'static str, message: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { invariant, message: message() });
        }
    }

    /// Every queue and collection has a bound.
    pub(crate) fn bounds(&mut self, holds: bool, what: &'static str, size: usize) {
        self.check(holds, "every queue within its bound", || format!("{what} is at {size}"));
    }

    /// A router starts anew, and remembers nothing.
    pub(crate) fn restarted(&mut self, router: Node) {
        self.fences[router.no].fill(None);
        self.probes[router.no].fill(Expected::default());
        self.read_of[router.no] = (0, 0);
        self.regions.forget(router);
        self.failovers.forget(router);
    }

    /// An instance leaves service for a while: a person wants it to, or its agent starts anew.
    pub(crate) fn interrupted(&mut self, no: usize) {
        self.interrupted[no] = true;
    }

    /// A step is over: what a router that runs has by now.
    pub(crate) fn stepped(&mut self, router: &Router, at_ms: u64, plan: &Plan) {
        let node = router.node;
        let (read, since_ms) = self.read_of[node.no];
        let shown = router.snapshot.instances.len();
        let is_due = at_ms > since_ms.max(router.resumed_ms) + NEWS_MS;
        self.check(shown >= read || !is_due, "no instance is lost", || {
            format!("{node} read of {read} instances, and sees {shown}")
        });
        let (monitor, regions) = (&router.monitor, plan.regions.len());
        for (size, most, what) in [
            (router.probes.len(), plan.probes().parallel as usize, "probes under way"),
            (router.pending.len(), MAX_CALLS, "calls under way"),
            (router.executor.waiting(), WAITING, "actions that wait"),
            (monitor.pings_outstanding(), MAX_OUTSTANDING, "pings under way to one region"),
            (monitor.events_waiting(), MAX_EVENTS, "failovers to be written"),
            (monitor.handler().kept(), MAX_EVENTS + regions, "the history of failovers"),
        ] {
            self.bounds(size <= most, what, size);
        }
    }

    /// A record was written.
    pub(crate) fn record_stored(&mut self, by: Node, before: Option<Stamp>, stamp: Stamp) {
        self.check(before < Some(stamp), "no word of a superseded lease holder", || {
            format!("{by} writes a record of {stamp} over one of {before:?}")
        });
    }

    /// A router has a lease.
    pub(crate) fn leased(&mut self, routers: &[Router], no: usize, which: usize, at_ms: u64) {
        debug_assert!(which < LEASES);
        let node = routers[no].node;
        // The answer may have come too late for it to believe.
        if routers[no].leases[which].epoch(routers[no].now_ms(at_ms)).is_none() {
            return;
        }
        let others = routers.iter().filter(|other| {
            other.node.region == node.region && other.node.no != no && !other.is_gone()
        });
        for other in others {
            let holds = other.leases[which].epoch(other.now_ms(at_ms)).is_some();
            self.check(!holds, "one holder of a lease", || {
                format!("{node} has lease {which}, in which {} believes, too", other.node)
            });
        }
    }
}
