//! Where a request goes next: the decision, the steering and the trail, as a router has them.

use std::sync::Arc;

use mrgc_fleet::{
    failover::{Steered, steer},
    health::Admission,
    model::{PoolId, RegionId, Request},
    routing::{self, Attempts, Live, Loads, NoRoute, Picker, Question, Weight},
    snapshot::{Snapshot, View},
};

use crate::{
    flight::Place,
    journey::{Course, Leg},
    plan::{Plan, number},
    router::Router,
    traffic::{Ending, Ticket},
};

/// Regions are chosen by a policy: [`prefer`].
const WEIGHTS: [Weight; 1] = [Weight { weight: 1.0, required: false }];

/// What is looked at to say it.
pub(crate) struct Desk<'a> {
    router: &'a mut Router,
    snapshot: Arc<Snapshot>,
    plan: &'a Plan,
    request: &'a Request,
    pool: &'a PoolId,
    /// By the router's clock.
    now_ms: u64,
}

/// What a request does next. A candidate comes with its index in its view.
pub(crate) enum Next {
    Instance { index: u32, no: usize, admission: Admission },
    Region { index: u32, no: usize, admission: Admission },
    Over(Ending),
}

/// A region that is next.
enum Region {
    Home,
    Other(Next),
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        router: &'a mut Router,
        plan: &'a Plan,
        ticket: &'a Ticket,
        at_ms: u64,
    ) -> Self {
        let now_ms = router.now_ms(at_ms);
        let snapshot = router.snapshot.clone();
        Self {
            router,
            snapshot,
            plan,
            request: &ticket.request,
            pool: &plan.pools[ticket.pool],
            now_ms,
        }
    }

    pub(crate) fn next(&mut self, leg: &mut Leg) -> Next {
        let is_hop = leg.parent.is_some();
        if is_hop && leg.trail.attempts() == 0 && leg.instances.is_none() {
            leg.instances = self.instances(leg);
        }
        loop {
            if let Some(next) = self.next_instance(leg) {
                return next;
            }
            leg.instances = None;
            if is_hop {
                return Next::Over(leg.ending);
            }
            if leg.regions.is_none() {
                match self.regions(leg) {
                    Ok(course) => leg.regions = Some(course),
                    Err(ending) => return Next::Over(ending),
                }
            }
            match self.next_region(leg) {
                Some(Region::Home) => leg.instances = self.instances(leg),
                Some(Region::Other(next)) => return next,
                // Nobody is left: evidence is set aside, once.
                None if leg.panic || leg.trail.is_spent() => return Next::Over(leg.ending),
                None => {
                    leg.panic = true;
                    leg.regions = None;
                }
            }
        }
    }

    /// The pool's regions in the order to try them, steered.
    fn regions(&mut self, leg: &mut Leg) -> Result<Course, Ending> {
        let snapshot = self.snapshot.clone();
        let view = snapshot.regions_with(self.pool).ok_or(Ending::NoRoute)?;
        let order = match self.order_regions(view, leg) {
            Err(NoRoute::NoneReady) if !leg.panic => {
                leg.panic = true;
                self.order_regions(view, leg)
            }
            order => order,
        };
        let order = order.map_err(|_| leg.ending)?;
        let steering = &snapshot.steering;
        let order = if steering.is_normal() || leg.panic {
            order
        } else {
            let in_flight = |index| self.router.flight.in_flight(self.region(view, index));
            let limit = steering.limit(self.request.priority);
            match steer(&order, steering.lanes(self.pool), in_flight, limit, leg.seed) {
                Steered::Stay(order) => order,
                Steered::Moved(order) => {
                    leg.is_moved = true;
                    order
                }
                Steered::Shed => return Err(Ending::Shed),
            }
        };
        Ok(Course { view: view.clone(), order, cursor: 0 })
    }

    fn order_regions(&mut self, view: &Arc<View>, leg: &Leg) -> Result<Attempts, NoRoute> {
        let mut scratch = std::mem::take(&mut self.router.scratch);
        let question = Question { weights: &WEIGHTS, ..self.question(view, leg) };
        let live = |index| self.live_region(view, index);
        let score =
            |_, picks: &[u32], _: Loads<'_>| Some(prefer(view, picks, &self.snapshot.home));
        let order = routing::decide(&mut scratch, &question, live, score);
        self.router.scratch = scratch;
        order
    }

    /// Home's instances in the order to try them.
    fn instances(&mut self, leg: &mut Leg) -> Option<Course> {
        leg.trail.reserve(leg.regions.as_ref().is_some_and(Course::has_more));
        let snapshot = self.snapshot.clone();
        let view = snapshot.instances_at_home(self.pool)?;
        let mut scratch = std::mem::take(&mut self.router.scratch);
        let question = Question { picker: Picker::PowerOfTwo, ..self.question(view, leg) };
        let live = |index| self.live_instance(view, index);
        let order =
            routing::decide(&mut scratch, &question, live, |_, _, _| None::<Vec<f32>>);
        self.router.scratch = scratch;
        Some(Course { view: view.clone(), order: order.ok()?, cursor: 0 })
    }

    fn next_instance(&mut self, leg: &mut Leg) -> Option<Next> {
        let mut course = leg.instances.take()?;
        let next = loop {
            let question = self.question(&course.view, leg);
            let live = |index| self.live_instance(&course.view, index);
            let Some(index) = leg.trail.next(&course.order, &mut course.cursor, &question, live)
            else {
                break None;
            };
            let no = number(&course.view.candidates[index as usize].id);
            let flight = &mut self.router.flight;
            let begun = flight.begin(Place::Instance(no), self.now_ms, leg.panic, self.plan);
            if let Some(admission) = begun {
                break Some(Next::Instance { index, no, admission });
            }
        };
        leg.instances = Some(course);
        next
    }

    fn next_region(&mut self, leg: &mut Leg) -> Option<Region> {
        let mut course = leg.regions.take()?;
        let next = loop {
            let question = self.question(&course.view, leg);
            let live = |index| self.live_region(&course.view, index);
            let Some(index) = leg.trail.next(&course.order, &mut course.cursor, &question, live)
            else {
                break None;
            };
            if course.view.candidates[index as usize].region == self.snapshot.home {
                break Some(Region::Home);
            }
            let Place::Region(no) = self.region(&course.view, index) else { continue };
            let flight = &mut self.router.flight;
            let begun = flight.begin(Place::Region(no), self.now_ms, leg.panic, self.plan);
            if let Some(admission) = begun {
                break Some(Region::Other(Next::Region { index, no, admission }));
            }
        };
        leg.regions = Some(course);
        next
    }

    fn question<'q>(&'q self, view: &'q View, leg: &Leg) -> Question<'q> {
        Question {
            view,
            request: self.request,
            rules: &self.plan.rules,
            weights: &[],
            picker: Picker::Best,
            seed: leg.seed,
            attempts: routing::MAX_ATTEMPTS,
            panic: leg.panic,
        }
    }

    fn live_instance(&self, view: &View, index: u32) -> Live {
        let no = number(&view.candidates[index as usize].id);
        self.router.flight.live(Place::Instance(no), self.now_ms, self.plan)
    }

    fn live_region(&self, view: &View, index: u32) -> Live {
        let live = self.router.flight.live(self.region(view, index), self.now_ms, self.plan);
        let region = &view.candidates[index as usize].region;
        Live { masked: live.masked || self.router.monitor.is_unreachable(region), ..live }
    }

    fn region(&self, view: &View, index: u32) -> Place {
        let region = &view.candidates[index as usize].region;
        Place::Region(self.plan.region(region).unwrap_or_default())
    }
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
