//! How regions' states and shares may change.

use mrgc_fleet::{
    failover::{RegionState, Transition, Wish},
    monitor::LONGEST_TURN_MS,
};

use super::Watch;
use crate::{
    network::Node,
    plan::{Plan, ROUTERS},
    router::Router,
};

/// How long before a fall an order may have been its cause: as long as every router takes to hear of it.
const ORDER_MS: u64 = 30_000;
/// Sums of steps are not exact.
const NEAR: f64 = 1e-6;

/// What was seen of each region by each router.
#[derive(Debug)]
pub(super) struct Sights {
    by_router: Vec<Vec<Sight>>,
    /// When each router, by its own clock, last told of changes: none that it tells of next is older.
    told_ms: Vec<u64>,
    /// When somebody last wanted something of a region, in virtual time.
    ordered_ms: Vec<Option<u64>>,
}

/// Times are by the router's own clock, and of a change the earliest at which it may have been.
#[derive(Clone, Debug, Default)]
struct Sight {
    rose_ms: Option<u64>,
    fell_ms: Option<u64>,
    /// The same in virtual time, at the latest.
    fell_at_ms: u64,
    /// Since when it has held the lease without a break: nobody else's word binds it.
    led_ms: Option<u64>,
}

impl Sights {
    pub(super) fn new(plan: &Plan) -> Self {
        let regions = plan.regions.len();
        Self {
            by_router: vec![vec![Sight::default(); regions]; regions * ROUTERS],
            told_ms: vec![0; regions * ROUTERS],
            ordered_ms: vec![None; regions],
        }
    }

    pub(super) fn forget(&mut self, router: Node) {
        self.by_router[router.no].fill(Sight::default());
        self.told_ms[router.no] = 0;
    }

    pub(super) fn ordered(&mut self, about: usize, now_ms: u64) {
        self.ordered_ms[about] = Some(now_ms);
    }
}

impl Watch {
    /// A router has looked at its leases: only a holder is bound by nothing but evidence and orders.
    pub(crate) fn leads(&mut self, router: &Router, at_ms: u64) {
        let (now_ms, leads) = (router.now_ms(at_ms), router.epochs(at_ms).failover.is_some());
        for sight in &mut self.regions.by_router[router.node.no] {
            sight.led_ms = leads.then(|| sight.led_ms.unwrap_or(now_ms));
        }
    }

    /// A router is about to look. Time in which it was held up counts for no step and no hold: what was
    /// seen before is as if it had been seen so much later.
    pub(crate) fn looks(&mut self, router: &Router, at_ms: u64) {
        let (no, now_ms) = (router.node.no, router.now_ms(at_ms));
        let told_ms = &mut self.regions.told_ms[no];
        let blind_ms = (now_ms - *told_ms).saturating_sub(LONGEST_TURN_MS);
        *told_ms += blind_ms;
        for sight in &mut self.regions.by_router[no] {
            for seen_ms in [&mut sight.rose_ms, &mut sight.fell_ms].into_iter().flatten() {
                *seen_ms += blind_ms;
            }
        }
    }

    /// A router has told of all changes until now.
    pub(crate) fn told(&mut self, router: &Router, at_ms: u64) {
        self.regions.told_ms[router.node.no] = router.now_ms(at_ms);
    }

    /// A region's state or share changed, as a router has it.
    pub(crate) fn region_changed(
        &mut self,
        router: &Router,
        about: usize,
        change: &Transition,
        at_ms: u64,
        plan: &Plan,
    ) {
        let (node, now_ms) = (router.node, router.now_ms(at_ms));
        let thresholds = router.monitor.handler().thresholds();
        let id = &plan.regions[about].id;
        let status = router.monitor.handler().status();
        let order =
            status.iter().find(|status| status.region == *id).and_then(|s| s.order.as_ref());
        let is_pinned = order.is_some_and(|order| matches!(order.wish, Wish::Pinned { .. }));
        let sight = self.regions.by_router[node.no][about].clone();
        let told_ms = self.regions.told_ms[node.no];
        let Transition { from, to, share_before, share, .. } = *change;
        let told = || {
            format!(
                "{node}: region {about} from {from} {share_before:.3} to {to} {share:.3} by {order:?}: {}",
                change.reason
            )
        };

        self.check((0.0..=1.0).contains(&share), "a share within 0 and 1", told);
        let fits = match to {
            RegionState::Normal => share == 1.0,
            RegionState::Recovering => share < 1.0,
            // On its way up from less, it may still keep less.
            RegionState::Degraded | RegionState::FailoverActive => true,
        };
        self.check(fits || is_pinned, "no more is moved than the state says", told);

        if share > share_before && !is_pinned {
            let most = thresholds.recovery_step + NEAR;
            self.check(share - share_before <= most, "traffic returns by steps", told);
            let is_early =
                sight.rose_ms.is_some_and(|rose_ms| now_ms < rose_ms + thresholds.step_ms);
            self.check(!is_early, "a step lasts as long as configured", told);
        }
        let is_better = share > share_before || to.severity() < from.severity();
        let is_by_evidence = self.is_by_evidence(&sight, about);
        if is_better && is_by_evidence && !is_pinned {
            let is_early =
                sight.fell_ms.is_some_and(|fell_ms| now_ms < fell_ms + thresholds.hold_ms);
            self.check(!is_early, "a state holds before it improves", || {
                format!(
                    "{}, after it fell {:?} ms ago",
                    told(),
                    sight.fell_ms.map(|fell| now_ms - fell)
                )
            });
        }
        let sight = &mut self.regions.by_router[node.no][about];
        if share > share_before {
            sight.rose_ms = Some(told_ms);
        }
        if share < share_before {
            (sight.fell_ms, sight.fell_at_ms) = (Some(told_ms), at_ms);
        }
    }

    /// Whether nobody's order and nobody else's word has had a part in the region's state since it fell.
    fn is_by_evidence(&self, sight: &Sight, about: usize) -> bool {
        let ordered_ms = self.regions.ordered_ms[about];
        let is_ordered = ordered_ms.is_some_and(|ordered| ordered + ORDER_MS > sight.fell_at_ms);
        let has_led = match (sight.led_ms, sight.fell_ms) {
            (Some(led_ms), Some(fell_ms)) => led_ms < fell_ms,
            _ => false,
        };
        !is_ordered && has_led
    }
}
