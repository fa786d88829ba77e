//! Where a request goes next: the decision, the steering and the trail, as a router has them.

use std::sync::Arc;

use mrgc_fleet::{
    failover::{Steered, steer},
    health::Admission,
    model::{PoolId, RegionId},
    routing::{self, Attempts, Live, Loads, MAX_ATTEMPTS, NoRoute, Picker, Question, Weight},
    snapshot::{Level, Snapshot, View},
};

use crate::{
    flight::Place,
    journey::{Course, Leg},
    plan::{Plan, number},
    router::Router,
    traffic::{Ending, Ticket},
    watch::{Draw, Watch},
};

/// Regions are chosen by a policy: [`prefer`].
const WEIGHTS: [Weight; 1] = [Weight { weight: 1.0, required: false }];

/// Candidates that are looked at for one attempt: none is looked at twice, but where a fault is planted.
const MAX_LOOKS: usize = 2 * MAX_ATTEMPTS;

/// What is looked at to say it.
pub(crate) struct Dispatcher<'a> {
    router: &'a mut Router,
    snapshot: Arc<Snapshot>,
    watch: &'a mut Watch,
    plan: &'a Plan,
    ticket: &'a Ticket,
    pool: &'a PoolId,
    /// By the router's clock.
    now_ms: u64,
}

/// What a request does next. A candidate comes with its index in its view.
pub(crate) enum Next {
    Instance { index: u32, no: usize, admission: Admission, panic: bool },
    Region { index: u32, no: usize, admission: Admission },
    Over(Ending),
}

/// A region that is next.
enum Region {
    Home,
    Other(Next),
}

impl<'a> Dispatcher<'a> {
    pub(crate) fn new(
        router: &'a mut Router,
        watch: &'a mut Watch,
        plan: &'a Plan,
        ticket: &'a Ticket,
        at_ms: u64,
    ) -> Self {
        let now_ms = router.now_ms(at_ms);
        let snapshot = router.snapshot.clone();
        Self { router, snapshot, watch, plan, ticket, pool: &plan.pools[ticket.pool], now_ms }
    }

    /// As the real router's journey goes: regions in their order, the instances of home among them, and
    /// these once more where nobody else would.
    pub(crate) fn next(&mut self, leg: &mut Leg) -> Next {
        let is_hop = leg.parent.is_some();
        if is_hop && leg.instances.is_none() && leg.trail.attempts() == 0 {
            leg.instances = self.instances(leg);
        }
        for _ in 0..MAX_LOOKS {
            if let Some(next) = self.next_instance(leg) {
                return next;
            }
            leg.instances = None;
            if is_hop || leg.is_last_round || leg.trail.is_spent() {
                return Next::Over(leg.ending);
            }
            if leg.regions.is_none() {
                match self.regions(leg) {
                    Ok(course) => leg.regions = Some(course),
                    Err(ending) => return Next::Over(ending),
                }
            }
            match self.next_region(leg) {
                Some(Region::Home) => {
                    leg.held_back |= leg.elsewhere;
                    leg.instances = self.instances(leg);
                }
                Some(Region::Other(next)) => return next,
                None if !leg.held_back => return Next::Over(leg.ending),
                // Nobody else would: what was kept for others is spent here.
                None => {
                    leg.is_last_round = true;
                    leg.elsewhere = false;
                    leg.instances = self.instances(leg);
                }
            }
        }
        Next::Over(leg.ending)
    }

    /// The pool's regions in the order to try them, steered.
    fn regions(&mut self, leg: &mut Leg) -> Result<Course, Ending> {
        let snapshot = self.snapshot.clone();
        let view = snapshot.regions_with(self.pool).ok_or(Ending::NoRoute)?;
        let (order, panic) = self.decide(view, true, leg).ok_or(leg.ending)?;
        if panic {
            self.watch.panics_over_regions(self.router, view, self.now_ms, self.plan);
        }
        let steering = &snapshot.steering;
        let order = if steering.is_normal() {
            order
        } else {
            let in_flight = |index| self.router.flight.in_flight(self.region(view, index));
            let (lanes, limit) =
                (steering.lanes(self.pool), steering.limit(self.ticket.request.priority));
            leg.is_moved = lanes.iter().any(|lane| lane.share < 1.0);
            let steered = steer(&order, lanes, in_flight, limit, leg.seed);
            if let Some(draw) = Draw::of(&order, lanes, in_flight, limit, &steered) {
                self.watch.drawn(self.router, draw);
            }
            match steered {
                Steered::Stay(order) | Steered::Moved(order) => order,
                Steered::Shed => return Err(Ending::Shed),
            }
        };
        Ok(Course { view: view.clone(), order, panic, cursor: 0, begun: 0 })
    }

    /// Home's instances in the order to try them. Evidence is set aside only where no other region is left.
    fn instances(&mut self, leg: &mut Leg) -> Option<Course> {
        leg.trail.reserve(leg.elsewhere);
        leg.decisions += 1;
        let snapshot = self.snapshot.clone();
        let view = snapshot.instances_at_home(self.pool)?;
        let (order, panic) = self.decide(view, !leg.elsewhere, leg)?;
        if panic {
            self.watch.panics_over_instances(self.router, self.ticket, self.now_ms, self.plan);
        }
        Some(Course { view: view.clone(), order, panic, cursor: 0, begun: leg.trail.attempts() })
    }

    /// Decides, and says whether evidence had to be set aside.
    fn decide(&mut self, view: &View, may_panic: bool, leg: &Leg) -> Option<(Attempts, bool)> {
        let mut scratch = std::mem::take(&mut self.router.scratch);
        let mut question = self.question(view, leg, false);
        let is_of_regions = view.key.level == Level::Region;
        if is_of_regions {
            question.weights = &WEIGHTS;
        } else {
            (question.picker, question.attempts) = (Picker::PowerOfTwo, leg.trail.attempts_left());
        }
        // Who has failed this request is not decided for again.
        let live = |index| {
            let live = self.live(view, index);
            let was_tried = leg.trail.was_tried(&view.candidates[index as usize]);
            Live { masked: live.masked || was_tried, ..live }
        };
        let mut score =
            |_, picks: &[u32], _: Loads<'_>| Some(prefer(view, picks, &self.snapshot.home));
        let mut decided = routing::decide(&mut scratch, &question, live, &mut score);
        if may_panic && decided == Err(NoRoute::NoneReady) {
            (question.panic, question.attempts) = (true, MAX_ATTEMPTS);
            decided = routing::decide(&mut scratch, &question, live, &mut score);
        }
        let panic = question.panic;
        self.router.scratch = scratch;
        Some((decided.ok()?, panic))
    }

    fn next_instance(&mut self, leg: &mut Leg) -> Option<Next> {
        let mut course = leg.instances.take()?;
        let snapshot = self.snapshot.clone();
        match snapshot.instances_at_home(self.pool) {
            Some(view) if Arc::ptr_eq(view, &course.view) => {}
            // The order is of another time, and its candidates are looked at as they are now.
            Some(view) if !course.panic && are_same(view, &course.view) => {
                course.view = view.clone();
            }
            _ => course = self.instances(leg)?,
        }
        for _ in 0..MAX_LOOKS {
            let question = self.question(&course.view, leg, course.panic);
            let live = |index| self.live(&course.view, index);
            let next = leg.trail.next(&course.order, &mut course.cursor, &question, live);
            let Some(index) = next else {
                // Connections that failed cost no attempt: more may be left than the order is long.
                let is_over = leg.trail.attempts() == course.begun || leg.trail.is_over_here();
                if is_over {
                    return None;
                }
                course = self.instances(leg)?;
                continue;
            };
            let no = number(&course.view.candidates[index as usize].id);
            let (flight, panic) = (&mut self.router.flight, course.panic);
            if let Some(admission) =
                flight.begin(Place::Instance(no), self.now_ms, panic, &self.plan.ejection)
            {
                leg.instances = Some(course);
                return Some(Next::Instance { index, no, admission, panic });
            }
        }
        None
    }

    fn next_region(&mut self, leg: &mut Leg) -> Option<Region> {
        let mut course = leg.regions.take()?;
        let mut chosen = None;
        for _ in 0..MAX_LOOKS {
            let question = self.question(&course.view, leg, course.panic);
            let live = |index| self.live(&course.view, index);
            let next = leg.trail.next(&course.order, &mut course.cursor, &question, live);
            let Some(index) = next else { break };
            let mut further = course.cursor;
            leg.elsewhere = leg.trail.next(&course.order, &mut further, &question, live).is_some();
            if course.view.candidates[index as usize].region == self.snapshot.home {
                chosen = Some(Region::Home);
                break;
            }
            let Place::Region(no) = self.region(&course.view, index) else { continue };
            let (flight, panic) = (&mut self.router.flight, course.panic);
            if let Some(admission) =
                flight.begin(Place::Region(no), self.now_ms, panic, &self.plan.ejection)
            {
                chosen = Some(Region::Other(Next::Region { index, no, admission }));
                break;
            }
        }
        leg.regions = Some(course);
        chosen
    }

    fn question<'q>(&'q self, view: &'q View, leg: &Leg, panic: bool) -> Question<'q> {
        Question {
            view,
            request: &self.ticket.request,
            rules: &self.plan.rules,
            weights: &[],
            picker: Picker::Best,
            // A decision's own.
            seed: leg.seed ^ leg.decisions,
            attempts: MAX_ATTEMPTS,
            panic,
        }
    }

    fn live(&self, view: &View, index: u32) -> Live {
        let candidate = &view.candidates[index as usize];
        let flight = &self.router.flight;
        if candidate.level == Level::Instance {
            let place = Place::Instance(number(&candidate.id));
            let live = flight.live(place, self.now_ms, &self.plan.ejection);
            return Live { masked: live.masked || !candidate.ready, ..live };
        }
        let live = flight.live(self.region(view, index), self.now_ms, &self.plan.ejection);
        let is_unreachable = self.router.monitor.is_unreachable(&candidate.region);
        Live { masked: live.masked || is_unreachable, ..live }
    }

    fn region(&self, view: &View, index: u32) -> Place {
        let region = &view.candidates[index as usize].region;
        Place::Region(self.plan.region(region).unwrap_or_default())
    }
}

/// Whether two of a view hold the same candidates.
fn are_same(one: &View, other: &View) -> bool {
    one.candidates.iter().map(|c| &c.id).eq(other.candidates.iter().map(|c| &c.id))
}

/// The policy by which a region is chosen: home first, then the nearer ones.
fn prefer(view: &View, picks: &[u32], home: &RegionId) -> Vec<f32> {
    let points = |index: u32| {
        let candidate = &view.candidates[index as usize];
        match candidate.region == *home {
            true => 100.0,
            false => (80.0 - candidate.rtt_ms.unwrap_or(500.0) as f32 / 10.0).max(1.0),
        }
    };
    match picks {
        [] => (0..view.candidates.len() as u32).map(points).collect(),
        picks => picks.iter().copied().map(points).collect(),
    }
}
