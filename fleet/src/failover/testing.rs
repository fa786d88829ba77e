//! A world of regions for tests: ten instances of ten slots each, all healthy until said otherwise.

use std::collections::BTreeMap;

use super::{
    Evidence, FailoverEvent, Handler, Output, RegionOrder, RegionState, Steered, Strategy,
    Thresholds, Wish, steer,
};
use crate::{
    model::{RegionId, Stamp, Timestamp},
    routing::Attempts,
    snapshot::{Seen, Snapshot},
    testing::{POOL, region, registered, snapshot},
};

/// When the world begins, by the clock on the wall.
pub(crate) const BEGIN: Timestamp = Timestamp(1_800_000_000_000);
pub(crate) const SECOND_MS: u64 = 1_000;
const INSTANCES: u32 = 10;
const SLOTS: u32 = 10;

pub(crate) struct World {
    pub handler: Handler,
    pub now_ms: u64,
    regions: Vec<Place>,
    pub outputs: Vec<Output>,
    orders: u64,
}

struct Place {
    id: &'static str,
    evidence: Evidence,
    /// Since when it has been so.
    sign_ms: u64,
    running: u32,
}

/// All that is healthy.
pub(crate) fn healthy(healthy: u32) -> Evidence {
    Evidence { healthy, all: INSTANCES, reachable: true }
}

pub(crate) const CUT_OFF: Evidence =
    Evidence { healthy: INSTANCES, all: INSTANCES, reachable: false };

impl World {
    /// As a router in the first of them has it.
    pub fn new(regions: &[&'static str]) -> Self {
        let place =
            |id: &&'static str| Place { id, evidence: healthy(INSTANCES), sign_ms: 0, running: 0 };
        let mut world = Self {
            handler: Handler::new(regions[0].into(), Thresholds::default(), BEGIN),
            now_ms: 0,
            regions: regions.iter().map(place).collect(),
            outputs: Vec::new(),
            orders: 0,
        };
        world.look();
        world
    }

    /// What is seen of a region from now on; it is looked at when time passes.
    pub fn see(&mut self, id: &str, evidence: Evidence) {
        let now_ms = self.now_ms;
        let place = self.regions.iter_mut().find(|place| place.id == id);
        if let Some(place) = place.filter(|place| place.evidence != evidence) {
            (place.evidence, place.sign_ms) = (evidence, now_ms);
        }
    }

    /// How many requests it serves.
    pub fn load(&mut self, id: &str, running: u32) {
        if let Some(place) = self.regions.iter_mut().find(|place| place.id == id) {
            place.running = running;
        }
    }

    /// So much time, in which the world is looked at each second.
    pub fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = (self.now_ms + SECOND_MS).min(end_ms);
            self.look();
        }
    }

    pub fn look(&mut self) {
        for place in &self.regions {
            self.handler.evidence(&place.id.into(), place.evidence, place.sign_ms, self.now_ms);
        }
        self.outputs.extend(self.handler.tick(self.now_ms, self.at()));
    }

    /// An order by alice, later than those before it.
    pub fn order(&mut self, region: &str, wish: Wish) -> RegionOrder {
        self.orders += 1;
        let order = RegionOrder {
            region: region.into(),
            wish,
            reason: Some("maintenance".to_owned()),
            operator: Some("alice".to_owned()),
            at: self.at(),
            writer_region: "us".into(),
            stamp: Stamp { epoch: 0, sequence: self.orders },
        };
        self.handler.order(order.clone(), self.now_ms);
        self.look();
        order
    }

    pub fn at(&self) -> Timestamp {
        Timestamp(BEGIN.0 + self.now_ms)
    }

    pub fn now(&self, id: &str) -> (RegionState, f64) {
        (self.handler.state(&id.into()), self.handler.share(&id.into()))
    }

    /// The failovers that were told of, each as it was told last.
    pub fn events(&self) -> Vec<FailoverEvent> {
        let mut events: Vec<FailoverEvent> = Vec::new();
        for output in &self.outputs {
            let Output::Event { event, .. } = output else { continue };
            match events.iter_mut().find(|known| known.id == event.id) {
                Some(known) => known.clone_from(event),
                None => events.push(event.clone()),
            }
        }
        events
    }

    pub fn snapshot(&self) -> Snapshot {
        let members = self.regions.iter().flat_map(|place| {
            (0..place.evidence.all).map(|number| {
                let id = format!("{}-{number}", place.id);
                let mut member = registered(&id, place.id, |it| it.slots = Some(SLOTS));
                if let Some(report) = &mut member.standing_mut().report {
                    // It makes no difference which instance serves them.
                    report.running = Some(if number == 0 { place.running } else { 0 });
                }
                if number >= place.evidence.healthy {
                    member.seen = Seen::Stale;
                }
                member
            })
        });
        let regions = self.regions.iter().map(|place| region(place.id)).collect();
        snapshot(regions, members.collect())
    }

    /// Where a region's own requests go that prefer it, and then the others in the world's order, as shares
    /// of all; what is shed goes to `503`.
    pub fn traffic(&self, from: &str, priority: i32) -> BTreeMap<String, f64> {
        const REQUESTS: u64 = 8_000;
        let snapshot = self.snapshot();
        let steering = self.handler.steering(&snapshot);
        let Some(view) = snapshot.regions_with(&POOL.into()) else { return BTreeMap::new() };
        let place = |id: &str| {
            (0..).zip(&view.candidates).find(|(_, c)| c.ready && *c.id == *id).map(|(at, _)| at)
        };
        let others = self.regions.iter().map(|place| place.id).filter(|id| *id != from);
        let order: Attempts = [from].into_iter().chain(others).filter_map(place).collect();
        let mut lanes = steering.lanes(&POOL.into()).to_vec();
        for (lane, candidate) in lanes.iter_mut().zip(&view.candidates) {
            lane.home = *candidate.id == *from;
        }
        let mut traffic = BTreeMap::new();
        for seed in 0..REQUESTS {
            let steered = match steering.is_normal() {
                true => Steered::Stay(order),
                false => steer(&order, &lanes, |_| 0, steering.limit(priority), seed),
            };
            let to = match steered {
                Steered::Stay(order) | Steered::Moved(order) => {
                    let first = order.as_slice()[0] as usize;
                    view.candidates[first].id.to_string()
                }
                Steered::Shed => "503".to_owned(),
            };
            *traffic.entry(to).or_insert(0.0) += 1.0 / REQUESTS as f64;
        }
        traffic
    }
}

pub(crate) fn fail_over(to: Option<&str>, strategy: Strategy) -> Wish {
    Wish::FailOver { to: to.map(RegionId::from), strategy }
}
