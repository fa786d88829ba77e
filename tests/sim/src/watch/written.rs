//! What of that which was found is written: failovers, replacements, capacity.
//!
//! Every router sees failovers for itself; the holder of the lease writes what it saw, also before it held it,
//! as far as nothing stored tells of that. What only routers saw that never held it is not written. Clocks
//! differ by hours, so when a failover was is noted here in virtual time.

use std::collections::BTreeMap;

use mrgc_fleet::{
    failover::FailoverEvent,
    model::{Capacity, Lifecycle, RegionId, ScalingDecision},
};

use super::Watch;
use crate::{
    chaos::Lasting,
    network::Node,
    plan::{Plan, ROUTERS},
    router::Router,
    store::Store,
};

#[derive(Debug)]
pub(super) struct Failovers {
    /// When each began and ended, by its id.
    times: BTreeMap<String, (u64, Option<u64>)>,
    /// What each router has seen since it started.
    seen: Vec<Vec<Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    event: FailoverEvent,
    /// It was handed over to be written.
    is_due: bool,
    /// Its router found in the store what another saw of it.
    is_told: bool,
}

impl Failovers {
    pub(super) fn new(routers: usize) -> Self {
        Self { times: BTreeMap::new(), seen: vec![Vec::new(); routers] }
    }

    pub(super) fn forget(&mut self, router: Node) {
        self.seen[router.no].clear();
    }

    /// Whether two were at one time, in truth or by the clocks of who saw them, which is all that routers know.
    fn are_one(&self, a: &FailoverEvent, b: &FailoverEvent) -> bool {
        let times = |event: &FailoverEvent| self.times.get(&event.id).copied();
        let at_once = match (times(a), times(b)) {
            (Some((a, a_end)), Some((b, b_end))) => {
                a <= b_end.unwrap_or(u64::MAX) && b <= a_end.unwrap_or(u64::MAX)
            }
            _ => false,
        };
        a.from == b.from && (at_once || a.overlaps(b))
    }

    /// The first of those that a router has seen of which the store does not tell.
    fn untold(&self, router: &Router, store: &Store) -> Option<&FailoverEvent> {
        let home = router.node.region;
        let is_told = |seen: &Seen| {
            store.failovers.get(home, &seen.event.id).is_some()
                || store.failovers.of(home).any(|stored| self.are_one(stored, &seen.event))
        };
        let due = self.seen[router.node.no].iter().filter(|seen| seen.is_due && !seen.is_told);
        due.filter(|seen| !is_told(seen)).map(|seen| &seen.event).next()
    }
}

impl Watch {
    /// A router tells of a failover.
    pub(crate) fn failover_seen(&mut self, router: Node, event: &FailoverEvent, at_ms: u64) {
        let Failovers { times, seen } = &mut self.failovers;
        let (_, ended_ms) = times.entry(event.id.clone()).or_insert((at_ms, None));
        if event.ended_at.is_some() {
            *ended_ms = Some(at_ms);
        }
        let seen = &mut seen[router.no];
        match seen.iter_mut().find(|seen| seen.event.id == event.id) {
            Some(seen) => (seen.event, seen.is_due) = (event.clone(), false),
            None => seen.push(Seen { event: event.clone(), is_due: false, is_told: false }),
        }
    }

    /// A router has read what is stored of its region's failovers.
    pub(crate) fn history_read(&mut self, router: Node, stored: &[FailoverEvent]) {
        let mut seen = std::mem::take(&mut self.failovers.seen[router.no]);
        for seen in &mut seen {
            seen.is_told |= stored.iter().any(|stored| self.failovers.are_one(stored, &seen.event));
        }
        self.failovers.seen[router.no] = seen;
    }

    /// A router has handed over what is to be written: all that it saw, once it knows what is written.
    pub(crate) fn handed_over(&mut self, router: &Router, epoch: Option<u64>) {
        let is_all = router.monitor.events_waiting() == 0;
        if epoch.is_some() && epoch == router.history.known_in && is_all {
            self.failovers.seen[router.node.no].iter_mut().for_each(|seen| seen.is_due = true);
        }
    }

    /// A pool's capacity was written.
    pub(crate) fn capacity_stored(
        &mut self,
        by: Node,
        before: Option<&Capacity>,
        after: &Capacity,
        plan: &Plan,
    ) {
        let usual = |it: &Capacity| raised(it).map_or(it.desired, |decision| decision.from);
        let planned = |is_home: bool| {
            let of_pool = plan.instances.iter().filter(|it| plan.pools[it.pool] == after.pool);
            of_pool.filter(|it| !is_home || it.region == by.region).count() as u32
        };
        let was_raised = before.is_some_and(|before| raised(before).is_some());
        let stays = before.is_none_or(|before| usual(before) == usual(after));
        let holds = (stays || !was_raised)
            && usual(after) <= planned(true)
            && after.desired <= planned(false);
        self.check(
            holds,
            "capacity is raised for others' traffic, and returns to what it was",
            || format!("{by} writes {after:?} over {before:?}"),
        );
    }

    /// In the end the store tells of everything, and of nothing that is over.
    pub(super) fn all_is_written(
        &mut self,
        routers: &[Router],
        store: &Store,
        lasting: &Lasting,
        at_ms: u64,
        plan: &Plan,
    ) {
        for router in routers {
            let node = router.node;
            let untold = self.failovers.untold(router, store).cloned();
            self.check(untold.is_none(), "a failover that a lease holder saw is written", || {
                format!("nothing tells of what {node} saw: {untold:?}")
            });
            let holds = router.epochs(at_ms).failover.is_some();
            let is_all = self.failovers.seen[node.no].iter().all(|seen| seen.is_due);
            self.check(!holds || is_all, "a failover that a lease holder saw is written", || {
                let waiting = router.monitor.events_waiting();
                format!("{node} holds the lease, and has {waiting} to hand over")
            });
        }
        for home in 0..routers.len() / ROUTERS {
            for (about, region) in plan.regions.iter().enumerate() {
                // A former holder that is late may have ended, in the store, what goes on.
                let most = usize::from(lasting.region == Some(about));
                let open = under_way(store, home, &region.id);
                self.check(open <= most, "in the end failovers that are over have ended", || {
                    format!("region {home} has {open} under way of region {about}")
                });
            }
            self.capacities(store, home, lasting, plan);
        }
        self.replacements(store, lasting, plan);
    }

    fn capacities(&mut self, store: &Store, home: usize, lasting: &Lasting, plan: &Plan) {
        let expected = lasting.region.is_some_and(|about| about != home);
        for pool in &plan.pools {
            let capacity = store.autoscaling.capacity(home, pool);
            let is_raised = capacity.is_some_and(|capacity| raised(capacity).is_some());
            self.check(is_raised == expected, "in the end capacity is what it should be", || {
                format!("region {home} has {capacity:?} of {pool}")
            });
        }
    }

    fn replacements(&mut self, store: &Store, lasting: &Lasting, plan: &Plan) {
        let drained = |no: usize| {
            let wish = store.wanted_in_the_end(no);
            wish.is_some_and(|wish| {
                wish.automatic && wish.state.lifecycle() != Lifecycle::Available
            })
        };
        // What a person keeps out of service may be to be replaced or not.
        for no in (0..plan.instances.len()).filter(|no| lasting.instance != Some(*no)) {
            let fails = lasting.failing == Some(no);
            let (is_drained, is_open) = (drained(no), store.autoscaling.is_to_be_replaced(no));
            let holds = is_drained == fails && is_open == fails;
            self.check(holds, "in the end who fails is to be replaced, and nobody else", || {
                format!("i-{no} fails: {fails}, drained: {is_drained}, to be replaced: {is_open}")
            });
        }
    }
}

/// Why a pool has more than usual, if it has.
fn raised(capacity: &Capacity) -> Option<&ScalingDecision> {
    capacity.last_decision.as_ref().filter(|decision| decision.failover)
}

fn under_way(store: &Store, writer: usize, from: &RegionId) -> usize {
    let open = |event: &&FailoverEvent| event.from == *from && event.ended_at.is_none();
    store.failovers.of(writer).filter(open).count()
}
