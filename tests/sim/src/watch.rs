//! What must hold after every step, whatever goes wrong. Each is a function that is told what happened and
//! says what should not have.

mod regions;
mod shares;

use mrgc_fleet::{
    failover::MAX_EVENTS,
    health::{MAX_OUTSTANDING, Outcome, ProbeResult},
    model::{EnclaveState, InstanceId, Lifecycle, Stamp},
    routing::{MAX_ATTEMPTS, MAX_CONNECTS},
    snapshot::Level,
};

use crate::{
    calls::MAX_CALLS,
    chaos::Lasting,
    flight::Place,
    journey::Leg,
    machine::Machine,
    network::Node,
    plan::{Plan, ROUTERS, number},
    router::{Known, Router},
    store::{LEASES, Look},
    traffic::{ATTEMPTS, Ending, Ticket},
};
use regions::Sights;
pub(crate) use shares::Draw;
pub use shares::Draws;

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
    }

    /// An instance leaves service for a while: a person wants it to, or its agent starts anew.
    pub(crate) fn interrupted(&mut self, no: usize) {
        self.interrupted[no] = true;
    }

    /// A request is about to be sent to an instance.
    pub(crate) fn sent(
        &mut self,
        router: &Router,
        ticket: &Ticket,
        no: usize,
        panic: bool,
        at_ms: u64,
        plan: &Plan,
    ) {
        let node = router.node;
        self.check(
            plan.permits(&ticket.request.needs, &plan.instances[no]),
            "no request where it must not go",
            || format!("{node} sends one with {:?} to i-{no}", ticket.request.needs),
        );
        let has_enclave = || {
            let view = router.snapshot.instances_at_home(&plan.pools[ticket.pool])?;
            let candidate = view.candidates.iter().find(|c| number(&c.id) == no)?;
            Some(candidate.enclave >= EnclaveState::Running)
        };
        let is_sealed = !ticket.request.needs.enclave || has_enclave() == Some(true);
        self.check(is_sealed, "no request where it must not go", || {
            format!("{node} sends one that needs an enclave to i-{no}, which lost its own")
        });
        self.check(!ticket.sent_to.contains(&no), "no instance twice for one request", || {
            format!("{node} sends to i-{no} again, after {:?}", ticket.sent_to)
        });
        let reached = ticket.sent_to.len() - ticket.unreached;
        self.check(reached < ATTEMPTS, "no request beyond its attempts", || {
            format!("{node} sends to i-{no} after {:?}, of which {reached} counted", ticket.sent_to)
        });
        let most = ATTEMPTS + MAX_CONNECTS * (1 + plan.regions.len());
        self.bounds(ticket.sent_to.len() < most, "connections for one request", most);
        if !panic {
            let now_ms = router.now_ms(at_ms);
            let is_ejected = router.flight.is_ejected(Place::Instance(no), now_ms, &plan.ejection);
            self.check(!is_ejected, "no request to an ejected instance", || {
                format!("{node} sends to i-{no}, which it has ejected")
            });
        }
        self.check_wanted(router, no, at_ms);
    }

    fn check_wanted(&mut self, router: &Router, no: usize, at_ms: u64) {
        let Some(known) = router.known.get(no).and_then(Option::as_ref) else {
            return self.check(false, "no request to an instance that is not known", || {
                format!("{} sends to i-{no}, of which it never read", router.node)
            });
        };
        let lifecycle = known.standing.lifecycle();
        // What it read just before a pause is published after it.
        let since_ms = known.unwanted_ms.map(|since_ms| since_ms.max(router.resumed_ms));
        let is_old = since_ms.is_some_and(|since_ms| at_ms > since_ms + NEWS_MS);
        self.check(!is_old, "no request to an instance that drains or is quarantined", || {
            format!("{} sends to i-{no}, which it knows to be {lifecycle}", router.node)
        });
        let serves = matches!(
            lifecycle,
            Lifecycle::Available
                | Lifecycle::Draining
                | Lifecycle::Quarantined
                | Lifecycle::Registering
        );
        self.check(serves, "no request to an instance that is gone", || {
            format!("{} sends to i-{no}, which is {lifecycle}", router.node)
        });
    }

    /// An instance was ejected by live requests.
    pub(crate) fn ejected(&mut self, router: &Router, no: usize, cause: Outcome, plan: &Plan) {
        if !cause.is_soft() {
            return;
        }
        let pool = plan.instances[no].pool;
        let is_out = |no: &usize| plan.instances[*no].pool == pool && router.flight.takes_room(*no);
        let out = router.flight.unclean().filter(is_out).count();
        let all = router
            .snapshot
            .instances_at_home(&plan.pools[pool])
            .map_or(0, |view| view.candidates.len());
        let most = ((all as f64 * plan.ejection.max_share) as usize).max(1);
        self.check(out <= most, "no more of a pool ejected than its share", || {
            format!("{} has ejected {out} of the {all} instances of a pool", router.node)
        });
    }

    /// A probe ended: the verdict that should follow.
    pub(crate) fn probed(
        &mut self,
        router: &Router,
        machine: &Machine,
        result: &ProbeResult,
        answered: bool,
        plan: &Plan,
    ) {
        let config = plan.probes();
        let expected = &mut self.probes[router.node.no][machine.node.no];
        match result {
            ProbeResult::Passed => {
                expected.failures = 0;
                expected.passes += 1;
                let needed = if expected.is_unhealthy { config.recovery_passes } else { 1 };
                expected.is_unhealthy &= expected.passes < needed;
            }
            ProbeResult::TimedOut if answered => {}
            ProbeResult::TimedOut | ProbeResult::Failed(_) => {
                expected.passes = 0;
                expected.failures += 1;
                expected.is_unhealthy |= expected.failures > config.failure_threshold;
            }
        }
    }

    /// A probe was judged.
    pub(crate) fn judged(&mut self, router: &Router, machine: &Machine) {
        let no = machine.node.no;
        let is_unhealthy = router.monitor.verdict(&machine.registration.id).is_unhealthy();
        let expected = &self.probes[router.node.no][no];
        // One that was out of service meanwhile has begun anew: it may only be judged milder.
        let may_differ = self.interrupted[no] && !is_unhealthy;
        let holds = expected.is_unhealthy == is_unhealthy || may_differ;
        let failures = expected.failures;
        self.check(holds, "a verdict after just as many failed probes as configured", || {
            let verdict = if is_unhealthy { "unhealthy" } else { "not unhealthy" };
            format!("{} finds i-{no} {verdict} after {failures} failures in a row", router.node)
        });
    }

    /// A router has read the store. No instance ever leaves for good, so whoever was once read of is there.
    pub(crate) fn learned(&mut self, router: &Router, look: &Look, at_ms: u64) {
        let (router, known) = (router.node, &router.known);
        let read = look.instances.iter().flatten().count();
        let (before, _) = self.read_of[router.no];
        self.check(read >= before, "no instance is lost", || {
            format!("{router} reads of {read} instances, after {before}")
        });
        if read > before {
            self.read_of[router.no] = (read, at_ms);
        }
        for (no, known) in known.iter().enumerate() {
            let Some(fence) = known.as_ref().and_then(Known::fence) else { continue };
            let last = self.fences[router.no][no];
            self.check(last <= Some(fence), "an instance's reports never go back", || {
                format!("{router} takes {fence:?} of i-{no} after {last:?}")
            });
            self.fences[router.no][no] = Some(fence);
        }
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
            (monitor.pings_outstanding(), MAX_OUTSTANDING, "pings under way to one region"),
            (monitor.events_waiting(), MAX_EVENTS, "failovers to be written"),
            (monitor.handler().kept(), MAX_EVENTS + regions, "the history of failovers"),
        ] {
            self.bounds(size <= most, what, size);
        }
    }

    /// A report was written.
    pub(crate) fn report_stored(
        &mut self,
        no: usize,
        before: Option<(u64, u64)>,
        fence: (u64, u64),
    ) {
        self.check(before < Some(fence), "an instance's reports never go back", || {
            format!("{fence:?} of i-{no} is stored over {before:?}")
        });
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

    /// A client has its answer.
    pub(crate) fn concluded(
        &mut self,
        ticket: &Ticket,
        router: Node,
        ending: Ending,
        lasting: &Lasting,
        plan: &Plan,
    ) {
        match ending {
            Ending::Served => self.served += 1,
            Ending::Shed | Ending::Busy => self.refused += 1,
            _ => self.failed += 1,
        }
        // What only a region could take that an operator has failed over is refused.
        let needs = &ticket.request.needs;
        let could_go = || {
            let mut places = plan.instances.iter().filter(|place| place.pool == ticket.pool);
            places.any(|place| Some(place.region) != lasting.region && plan.permits(needs, place))
        };
        // With a region less, the others may be full.
        let is_well =
            ending == Ending::Served || (ending == Ending::Shed && lasting.region.is_some());
        let fails = ticket.entered_ms >= self.settled_ms && !is_well;
        self.check(!fails || !could_go(), "in the end every request is served", || {
            format!("one with {needs:?} by {router} is {ending:?}, after {:?}", ticket.sent_to)
        });
    }

    /// A request is refused, or failed for good, with attempts left: nobody is left whom its router could have
    /// sent it to at home, where it was to try that.
    pub(crate) fn left_over(
        &mut self,
        router: &Router,
        leg: &Leg,
        ticket: &Ticket,
        at_ms: u64,
        plan: &Plan,
    ) {
        let (node, pool) = (router.node, &plan.pools[ticket.pool]);
        let has_home = leg.regions.as_ref().is_some_and(|course| {
            let mut order = course.order.as_slice().iter();
            order
                .any(|index| course.view.candidates[*index as usize].region == router.snapshot.home)
        });
        if leg.trail.is_spent() || !has_home || ticket.sent_to.len() >= MAX_ATTEMPTS {
            return;
        }
        let Some(view) = router.snapshot.instances_at_home(pool) else { return };
        let now_ms = router.now_ms(at_ms);
        let missed = view.candidates.iter().filter(|candidate| candidate.ready).find(|candidate| {
            let no = number(&candidate.id);
            let live = router.flight.live(Place::Instance(no), now_ms, &plan.ejection);
            let needs = &ticket.request.needs;
            !live.masked
                && !ticket.sent_to.contains(&no)
                && plan.permits(needs, &plan.instances[no])
                && (!needs.enclave || candidate.enclave >= EnclaveState::Running)
        });
        self.check(missed.is_none(), "no request refused that could be served", || {
            let id = missed.map(|candidate| &candidate.id);
            format!("{node} gives one up after {:?}, and {id:?} is ready", ticket.sent_to)
        });
    }

    /// After the faults: everything is as if there had been none, but for what operators still want.
    pub(crate) fn settled(
        &mut self,
        routers: &[Router],
        lasting: &Lasting,
        at_ms: u64,
        plan: &Plan,
    ) {
        let all = plan.instances.len();
        for router in routers {
            let node = router.node;
            let known = router.snapshot.instances.len();
            self.check(known == all, "no instance is lost", || {
                format!("{node} knows {known} of {all} instances")
            });
            let views = router.snapshot.views().filter(|view| view.key.level == Level::Instance);
            for candidate in views.flat_map(|view| &view.candidates) {
                let is_out = lasting.instance == Some(number(&candidate.id));
                self.check(candidate.ready != is_out, "in the end all serve who should", || {
                    format!("{} is ready: {}, by {node}", candidate.id, candidate.ready)
                });
            }
            let ejected = router.flight.ejected(&router.snapshot, router.now_ms(at_ms), plan);
            let is_known = |id: &InstanceId| lasting.instance == Some(number(id.as_str()));
            self.check(ejected.iter().all(is_known), "in the end nobody is ejected", || {
                format!("{node} has {ejected:?} ejected")
            });
            for (about, region) in plan.regions.iter().enumerate() {
                let share = router.monitor.handler().share(&region.id);
                let wanted = if lasting.region == Some(about) { 0.0 } else { 1.0 };
                self.check(share == wanted, "in the end every region has its traffic", || {
                    let state = router.monitor.handler().state(&region.id);
                    format!("by {node}, {} is {state} and keeps {share}", region.id)
                });
            }
        }
    }
}
