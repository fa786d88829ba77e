//! How regions' states and shares may change, by what each router was shown of them.
//!
//! What evidence allows is worked out here once more, from the thresholds, so that the core is not its own
//! witness. It binds every router, whether it holds a lease or not: a lease holder's word only ever takes from
//! what a router's own evidence leaves a region. An operator's pin sets all of it aside.

use std::collections::VecDeque;

use mrgc_fleet::{
    failover::{Evidence, RegionRecord, RegionState, Thresholds, Transition, Wish},
    model::Stamp,
    monitor::LONGEST_TURN_MS,
};

use super::Watch;
use crate::{
    network::Node,
    plan::{Plan, ROUTERS},
    router::Router,
};

/// Sums of steps are not exact.
const NEAR: f64 = 1e-6;

/// What was seen of each region by each router.
#[derive(Debug)]
pub(super) struct Sights {
    by_router: Vec<Vec<Sight>>,
    /// When each router, by its own clock, last told of changes: none that it tells of next is older.
    told_ms: Vec<u64>,
    /// The epoch in which each holds its region's lease.
    leading: Vec<Option<u64>>,
}

/// Times are by the router's own clock, and of a change the earliest at which it may have been.
#[derive(Clone, Debug)]
struct Sight {
    rose_ms: Option<u64>,
    /// What the evidence of the last while rated the region, each worse than those after it.
    rated: VecDeque<(u64, Rated)>,
    /// The last word of the region's lease holder.
    word: Option<Word>,
    /// The least that a word has left it since the last look.
    least_word: f64,
    /// An operator's order that was not there at the last look.
    is_reordered: bool,
    order: Option<Stamp>,
}

#[derive(Clone, Copy, Debug)]
struct Word {
    stamp: Stamp,
    share: f64,
}

/// A state, and the share that a region in it keeps.
#[derive(Clone, Copy, Debug)]
struct Rated {
    state: RegionState,
    share: f64,
}

impl Default for Sight {
    fn default() -> Self {
        Self {
            rose_ms: None,
            rated: VecDeque::new(),
            word: None,
            least_word: 1.0,
            is_reordered: false,
            order: None,
        }
    }
}

impl Sights {
    pub(super) fn new(plan: &Plan) -> Self {
        let regions = plan.regions.len();
        Self {
            by_router: vec![vec![Sight::default(); regions]; regions * ROUTERS],
            told_ms: vec![0; regions * ROUTERS],
            leading: vec![None; regions * ROUTERS],
        }
    }

    pub(super) fn forget(&mut self, router: Node) {
        self.by_router[router.no].fill(Sight::default());
        (self.told_ms[router.no], self.leading[router.no]) = (0, None);
    }
}

impl Rated {
    /// What evidence alone leaves a region; `None` where there is no instance to judge by.
    fn by(evidence: &Evidence, thresholds: &Thresholds) -> Option<Self> {
        let Thresholds { normal_threshold, degraded_threshold, unhealthy_threshold, .. } =
            *thresholds;
        let (least, most) = (thresholds.degraded_share_moved, thresholds.failover_share_moved);
        let Evidence { healthy, all, reachable } = *evidence;
        if all == 0 {
            return None;
        }
        let ratio = f64::from(healthy) / f64::from(all);
        let (state, moved) = if healthy == 0 || !reachable {
            (RegionState::FailoverActive, 1.0)
        } else if ratio >= normal_threshold {
            (RegionState::Normal, 0.0)
        } else if ratio >= degraded_threshold {
            (RegionState::Degraded, least)
        } else if ratio >= unhealthy_threshold {
            let above = ratio - unhealthy_threshold;
            let slope = (most - least) / (degraded_threshold - unhealthy_threshold);
            (RegionState::Degraded, most - above * slope)
        } else {
            (RegionState::FailoverActive, most)
        };
        Some(Self { state, share: 1.0 - moved })
    }

    /// What a region keeps that was taken for failed over, as a router that starts takes its holder's word for
    /// it, as long as it has not recovered.
    fn until_recovered(
        from: RegionState,
        evidence: &Evidence,
        thresholds: &Thresholds,
    ) -> Option<Self> {
        let has_recovered = evidence.ratio()? >= thresholds.recovery_threshold;
        let share = 1.0 - thresholds.failover_share_moved;
        (from == RegionState::FailoverActive && !has_recovered)
            .then_some(Self { state: from, share })
    }

    fn is_better_than(self, other: Self) -> bool {
        let is_milder = self.state.severity() < other.state.severity();
        self.share > other.share + NEAR || (self.share > other.share - NEAR && is_milder)
    }
}

impl Watch {
    /// A router has looked at its leases.
    pub(crate) fn leads(&mut self, router: &Router, at_ms: u64) {
        self.regions.leading[router.node.no] = router.epochs(at_ms).failover;
    }

    /// A router has read what its region's lease holder says of the regions, and what operators want.
    pub(crate) fn heard(&mut self, router: &Router, records: &[RegionRecord], plan: &Plan) {
        let (node, handler) = (router.node, router.monitor.handler());
        for (about, region) in plan.regions.iter().enumerate() {
            let stamp = handler.heard(&region.id);
            let sight = &mut self.regions.by_router[node.no][about];
            let last = sight.word.map(|word| word.stamp);
            if stamp != last {
                let record =
                    records.iter().find(|r| r.region == region.id && Some(r.stamp) == stamp);
                sight.word = record.map(|record| Word { stamp: record.stamp, share: record.share });
                sight.least_word = sight.word.map_or(1.0, |word| word.share.min(sight.least_word));
            }
            let order = handler.ordered(&region.id).map(|order| order.stamp);
            sight.is_reordered |= order != sight.order;
            sight.order = order;
            self.check(last <= stamp, "no word of a superseded lease holder", || {
                format!("{node} takes a word of {stamp:?} after one of {last:?}")
            });
        }
    }

    /// A router is about to look. Time in which it was held up counts for no step and no hold: what was
    /// seen before is as if it had been seen so much later.
    pub(crate) fn looks(&mut self, router: &Router, at_ms: u64) {
        let (no, now_ms) = (router.node.no, router.now_ms(at_ms));
        let told_ms = &mut self.regions.told_ms[no];
        let blind_ms = (now_ms - *told_ms).saturating_sub(LONGEST_TURN_MS);
        if blind_ms == 0 {
            return;
        }
        *told_ms += blind_ms;
        for sight in &mut self.regions.by_router[no] {
            let rated = sight.rated.iter_mut().map(|(rated_ms, _)| rated_ms);
            rated.chain(&mut sight.rose_ms).for_each(|seen_ms| *seen_ms += blind_ms);
        }
    }

    /// A router has told of all changes until now: nowhere stays more than the evidence of the last while
    /// allows.
    pub(crate) fn told(&mut self, router: &Router, at_ms: u64, plan: &Plan) {
        let (node, now_ms) = (router.node, router.now_ms(at_ms));
        let handler = router.monitor.handler();
        let thresholds = handler.thresholds();
        for (about, region) in plan.regions.iter().enumerate() {
            let id = &region.id;
            let rated = handler.seen(id).and_then(|seen| Rated::by(seen, thresholds));
            let now = Rated { state: handler.state(id), share: handler.share(id) };
            let sight = &mut self.regions.by_router[node.no][about];
            sight.note(rated, now_ms, thresholds.hold_ms);
            sight.least_word = sight.word.map_or(1.0, |word| word.share);
            sight.is_reordered = false;
            let worst = sight.rated.front().copied();
            let is_pinned = || {
                handler.ordered(id).is_some_and(|order| matches!(order.wish, Wish::Pinned { .. }))
            };
            if rated.is_some_and(|rated| now.share > rated.share + NEAR) && !is_pinned() {
                self.check(false, "no more is kept than the evidence allows", || {
                    format!("{node} leaves region {about} {now:?}, and its evidence is {rated:?}")
                });
            }
            if worst.is_some_and(|(_, worst)| now.is_better_than(worst)) && !is_pinned() {
                self.check(false, "a state holds before it improves", || {
                    format!("{node} has region {about} as {now:?} at {now_ms}, after {worst:?}")
                });
            }
        }
        self.regions.told_ms[node.no] = now_ms;
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
        let handler = router.monitor.handler();
        let (thresholds, id) = (handler.thresholds(), &plan.regions[about].id);
        let order = handler.ordered(id).filter(|order| order.wish != Wish::Automatic);
        let is_pinned = order.is_some_and(|order| matches!(order.wish, Wish::Pinned { .. }));
        let rated = handler.seen(id).and_then(|seen| Rated::by(seen, thresholds));
        let sight = self.regions.by_router[node.no][about].clone();
        let Transition { from, to, share_before, share, .. } = *change;
        let told = || {
            format!(
                "{node}: region {about} from {from} {share_before:.3} to {to} {share:.3} by {rated:?} and \
                 {order:?}: {}",
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

        let is_ordered = order.is_some() || sight.is_reordered;
        if share < share_before && !is_ordered {
            let stays = || Rated::until_recovered(from, handler.seen(id)?, thresholds);
            let is_its =
                [rated, stays()].into_iter().flatten().any(|r| (share - r.share).abs() < NEAR);
            let leading = self.regions.leading[node.no];
            let is_bound = |word: Word| leading.is_none_or(|epoch| word.stamp.epoch > epoch);
            let is_told = sight.word.is_some_and(is_bound) && share > sight.least_word - NEAR;
            self.check(is_its || is_told, "no more is moved than the evidence says", told);
        }
        if share > share_before && !is_pinned {
            let most = thresholds.recovery_step + NEAR;
            self.check(share - share_before <= most, "traffic returns by steps", told);
            let is_early =
                sight.rose_ms.is_some_and(|rose_ms| now_ms < rose_ms + thresholds.step_ms);
            self.check(!is_early, "a step lasts as long as configured", told);
        }
        if share > share_before {
            let told_ms = self.regions.told_ms[node.no];
            self.regions.by_router[node.no][about].rose_ms = Some(told_ms);
        }
    }
}

impl Sight {
    /// Keeps what the evidence rates the region now, and what it rated it within a hold.
    fn note(&mut self, rated: Option<Rated>, now_ms: u64, hold_ms: u64) {
        while self.rated.front().is_some_and(|(rated_ms, _)| now_ms >= rated_ms + hold_ms) {
            self.rated.pop_front();
        }
        let Some(rated) = rated.filter(|rated| rated.state != RegionState::Normal) else { return };
        while self.rated.back().is_some_and(|(_, before)| !rated.is_better_than(*before)) {
            self.rated.pop_back();
        }
        self.rated.push_back((now_ms, rated));
    }
}
