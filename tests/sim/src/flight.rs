//! What a router knows of each candidate from its own traffic: a breaker and a count for each instance and
//! each region. The real one is shared by threads; what it asks of the breakers is the same.

use std::collections::BTreeSet;

use mrgc_fleet::{
    health::{Admission, Breaker, BreakerState, Change, EjectionConfig, Outcome, Room},
    model::InstanceId,
    routing::Live,
    snapshot::{Candidate, Level, Snapshot},
};

use crate::plan::{Plan, number};

/// By the instances' numbers, and by the regions'.
#[derive(Debug)]
pub(crate) struct Flight {
    instances: Vec<Slot>,
    regions: Vec<Slot>,
    /// Instances of which something is held.
    unclean: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    breaker: Breaker,
    in_flight: u32,
    /// Since its last probe.
    has_answered: bool,
}

/// Which one of a router's candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Instance(usize),
    Region(usize),
}

impl Flight {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            instances: vec![Slot::default(); plan.instances.len()],
            regions: vec![Slot::default(); plan.regions.len()],
            unclean: BTreeSet::new(),
        }
    }

    fn slot(&mut self, place: Place) -> &mut Slot {
        match place {
            Place::Instance(no) => &mut self.instances[no],
            Place::Region(no) => &mut self.regions[no],
        }
    }

    fn get(&self, place: Place) -> &Slot {
        match place {
            Place::Instance(no) => &self.instances[no],
            Place::Region(no) => &self.regions[no],
        }
    }

    pub(crate) fn live(&self, place: Place, now_ms: u64, config: &EjectionConfig) -> Live {
        let slot = self.get(place);
        let live = Live { in_flight: slot.in_flight, ..Live::default() };
        if slot.breaker.is_clean() {
            return live;
        }
        let state = slot.breaker.state(now_ms, config);
        Live { masked: state.is_masked(), share: state.share(config), ..live }
    }

    pub(crate) fn in_flight(&self, place: Place) -> u32 {
        self.get(place).in_flight
    }

    /// Requests of a pool under way at home's instances.
    pub(crate) fn in_flight_of(&self, pool: usize, plan: &Plan) -> u32 {
        let slots = self.instances.iter().zip(&plan.instances);
        slots.filter(|(_, instance)| instance.pool == pool).map(|(slot, _)| slot.in_flight).sum()
    }

    pub(crate) fn is_ejected(&self, place: Place, now_ms: u64, config: &EjectionConfig) -> bool {
        let state = self.get(place).breaker.state(now_ms, config);
        matches!(state, BreakerState::Ejected { .. })
    }

    /// An attempt begins, if it may.
    pub(crate) fn begin(
        &mut self,
        place: Place,
        now_ms: u64,
        panic: bool,
        config: &EjectionConfig,
    ) -> Option<Admission> {
        let slot = self.slot(place);
        let admission = slot.breaker.admit(now_ms, config);
        if admission == Admission::No && !panic {
            return None;
        }
        slot.in_flight += 1;
        self.note(place);
        Some(admission)
    }

    /// An attempt ended; `outcome` is `None` where it is no evidence.
    pub(crate) fn end(
        &mut self,
        place: Place,
        admission: Admission,
        outcome: Option<Outcome>,
        room: Room,
        now_ms: u64,
        config: &EjectionConfig,
    ) -> Change {
        let slot = self.slot(place);
        slot.in_flight = slot.in_flight.saturating_sub(1);
        slot.has_answered |= outcome == Some(Outcome::Answered);
        let change = match outcome {
            Some(outcome) => slot.breaker.handle(outcome, admission, room, now_ms, config),
            None => {
                slot.breaker.abandon(admission);
                Change::None
            }
        };
        self.note(place);
        change
    }

    pub(crate) fn rejoin(&mut self, instance: usize, now_ms: u64, config: &EjectionConfig) {
        self.instances[instance].breaker.rejoin(now_ms, config);
        self.note(Place::Instance(instance));
    }

    /// Whether the instance has answered requests since this was last asked.
    pub(crate) fn take_answered(&mut self, instance: usize) -> bool {
        std::mem::take(&mut self.instances[instance].has_answered)
    }

    /// How many of a pool's instances are out for soft failures, and how many there are.
    pub(crate) fn room(&self, place: Place, snapshot: &Snapshot, plan: &Plan) -> Room {
        let Place::Instance(no) = place else {
            let taken = self.regions.iter().filter(|slot| slot.breaker.takes_room()).count();
            return Room { taken: taken as u32, instances: self.regions.len() as u32 };
        };
        let pool = plan.instances[no].pool;
        let is_out = |no: &&usize| {
            plan.instances[**no].pool == pool && self.instances[**no].breaker.takes_room()
        };
        let taken = self.unclean.iter().filter(is_out).count() as u32;
        let view = snapshot.instances_at_home(&plan.pools[pool]);
        Room { taken, instances: view.map_or(0, |view| view.candidates.len() as u32) }
    }

    /// Home's instances that are ejected.
    pub(crate) fn ejected(
        &self,
        snapshot: &Snapshot,
        now_ms: u64,
        plan: &Plan,
    ) -> BTreeSet<InstanceId> {
        if self.unclean.is_empty() {
            return BTreeSet::new();
        }
        let views = snapshot.views().filter(|view| {
            view.key.level == Level::Instance && view.key.region.as_ref() == Some(&snapshot.home)
        });
        let is_ejected = |candidate: &&Candidate| {
            let no = number(&candidate.id);
            self.unclean.contains(&no)
                && self.is_ejected(Place::Instance(no), now_ms, &plan.ejection)
        };
        let ejected = views.flat_map(|view| &view.candidates).filter(is_ejected);
        ejected.map(|candidate| InstanceId::from(&*candidate.id)).collect()
    }

    /// Instances of which something is held.
    pub(crate) fn unclean(&self) -> impl Iterator<Item = usize> {
        self.unclean.iter().copied()
    }

    /// Whether an instance counts among those that are out for soft failures.
    pub(crate) fn takes_room(&self, instance: usize) -> bool {
        self.instances[instance].breaker.takes_room()
    }

    fn note(&mut self, place: Place) {
        let Place::Instance(no) = place else { return };
        match self.instances[no].breaker.is_clean() {
            true => self.unclean.remove(&no),
            false => self.unclean.insert(no),
        };
    }
}
