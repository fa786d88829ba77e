//! Where requests go, and that none is refused which somebody could have served.

use mrgc_fleet::{
    health::Outcome,
    model::{EnclaveState, Lifecycle},
    routing::{MAX_ATTEMPTS, MAX_CONNECTS},
    snapshot::{Candidate, View},
};

use super::{NEWS_MS, Watch};
use crate::{
    chaos::Lasting,
    flight::Place,
    journey::Leg,
    plan::{Plan, number},
    router::Router,
    traffic::{ATTEMPTS, Ending, Ticket},
};

impl Watch {
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
        let sent = ticket.sent_to.len();
        self.bounds(sent < most, "connections for one request", sent);
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

    /// A client has its answer.
    pub(crate) fn concluded(
        &mut self,
        router: &Router,
        leg: &Leg,
        ticket: &Ticket,
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
        let is_full = ending == Ending::Shed || (ending == Ending::NoRoute && leg.found_no_room);
        let is_well = ending == Ending::Served || (is_full && lasting.region.is_some());
        let fails = ticket.entered_ms >= self.settled_ms && !is_well;
        self.check(!fails || !could_go(), "in the end every request is served", || {
            format!(
                "one with {needs:?} by {} is {ending:?}, after {:?}",
                router.node, ticket.sent_to
            )
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
        let node = router.node;
        let has_home = leg.regions.as_ref().is_some_and(|course| {
            let mut order = course.order.as_slice().iter();
            order
                .any(|index| course.view.candidates[*index as usize].region == router.snapshot.home)
        });
        if leg.trail.is_spent() || !has_home || ticket.sent_to.len() >= MAX_ATTEMPTS {
            return;
        }
        let missed = could_serve(router, ticket, router.now_ms(at_ms), plan);
        self.check(missed.is_none(), "no request refused that could be served", || {
            let id = missed.map(|candidate| &candidate.id);
            format!("{node} gives one up after {:?}, and {id:?} is ready", ticket.sent_to)
        });
    }

    /// A router sets evidence aside to choose one of its own instances: nobody is left by the evidence.
    pub(crate) fn panics_over_instances(
        &mut self,
        router: &Router,
        ticket: &Ticket,
        now_ms: u64,
        plan: &Plan,
    ) {
        let ready = could_serve(router, ticket, now_ms, plan);
        self.check(ready.is_none(), PANIC, || {
            let (node, id) = (router.node, ready.map(|candidate| &candidate.id));
            format!("{node} sets evidence aside, and {id:?} is ready")
        });
    }

    /// A router sets evidence aside to choose a region, before it has tried any.
    pub(crate) fn panics_over_regions(
        &mut self,
        router: &Router,
        view: &View,
        now_ms: u64,
        plan: &Plan,
    ) {
        let is_ready = |candidate: &&Candidate| {
            let region = &candidate.region;
            let is_masked = plan.region(region).is_none_or(|region| {
                router.flight.live(Place::Region(region), now_ms, &plan.ejection).masked
            });
            candidate.ready && !is_masked && !router.monitor.is_unreachable(region)
        };
        let ready = view.candidates.iter().find(is_ready);
        self.check(ready.is_none(), PANIC, || {
            let (node, region) = (router.node, ready.map(|candidate| &candidate.region));
            format!("{node} sets evidence aside, and {region:?} is ready")
        });
    }
}

const PANIC: &str = "evidence is set aside only where nobody is ready";

/// One of a router's own instances that it could send a request to, by all that it knows.
fn could_serve<'a>(
    router: &'a Router,
    ticket: &Ticket,
    now_ms: u64,
    plan: &Plan,
) -> Option<&'a Candidate> {
    let view = router.snapshot.instances_at_home(&plan.pools[ticket.pool])?;
    let needs = &ticket.request.needs;
    view.candidates.iter().filter(|candidate| candidate.ready).find(|candidate| {
        let no = number(&candidate.id);
        !router.flight.live(Place::Instance(no), now_ms, &plan.ejection).masked
            && !ticket.sent_to.contains(&no)
            && plan.permits(needs, &plan.instances[no])
            && (!needs.enclave || candidate.enclave >= EnclaveState::Running)
    })
}
