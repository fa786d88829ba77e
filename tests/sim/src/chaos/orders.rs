//! What operators want, at the worst of times: of instances, and of regions.

use mrgc_fleet::{
    failover::{RegionOrder, RegionState, Strategy, Wish},
    model::{Desired, DesiredState, Stamp},
};

use super::{Aftermath, Lasting};
use crate::{faults::Fault, machine::ReportedHealth, store::Yields, world::World};

/// Instances of a region of which one may fail, and the region is well.
const MANY: usize = 8;

impl World {
    /// An instance is to drain, or to be kept away from everybody.
    pub(super) fn order_out(&mut self, fault: Fault) -> usize {
        let no = self.chaos.rng.usize(0..self.machines.len());
        let state = match fault {
            Fault::Drain => DesiredState::Draining,
            _ => DesiredState::Quarantined,
        };
        self.tally.add(fault);
        self.want(no, state);
        self.later(Aftermath::Lift(no));
        no
    }

    pub(super) fn lift(&mut self, no: usize) {
        self.want(no, DesiredState::Serving);
    }

    /// Some region's operator wants it.
    fn want(&mut self, no: usize, state: DesiredState) {
        let writer = self.chaos.rng.usize(0..self.plan.regions.len());
        let registration = &self.machines[no].registration;
        let wish = Desired {
            instance: registration.id.clone(),
            region: registration.region.clone(),
            state,
            reason: None,
            operator: Some("alice".to_owned()),
            automatic: false,
            at: self.machines[no].clock.wall(self.now_ms),
            writer_region: self.plan.regions[writer].id.clone(),
            stamp: Stamp::default(),
        };
        self.watch.interrupted(no);
        if state == DesiredState::Serving {
            self.store.autoscaling.call_off(no);
        }
        // A person's wish yields to none.
        let (Ok(()) | Err(Yields)) = self.store.wish(no, writer, wish, self.now_ms);
    }

    /// A region is failed over or pinned, or two operators disagree about it.
    pub(super) fn order_region(&mut self, fault: Fault) -> usize {
        let regions = self.plan.regions.len();
        let about = self.chaos.rng.usize(0..regions);
        self.tally.add(fault);
        let writer = self.chaos.rng.usize(0..regions);
        let wish = match fault {
            Fault::PinOrder => self.some_pin(),
            _ => self.some_failover(about),
        };
        self.give(about, writer, wish);
        if fault == Fault::OppositeOrders {
            let other = (writer + 1) % regions;
            let wish = match self.chaos.rng.bool() {
                true => Wish::Automatic,
                false => Wish::Pinned { state: RegionState::Normal },
            };
            self.give(about, other, wish);
        }
        self.later(Aftermath::LiftOrder(about));
        about
    }

    fn some_pin(&mut self) -> Wish {
        use RegionState::{Degraded, FailoverActive, Normal, Recovering};
        let states = [Normal, Degraded, FailoverActive, Recovering];
        Wish::Pinned { state: states[self.chaos.rng.usize(0..states.len())] }
    }

    fn some_failover(&mut self, about: usize) -> Wish {
        let rng = &mut self.chaos.rng;
        let others = self.plan.regions.len();
        let to = (about + rng.usize(1..others)) % others;
        Wish::FailOver {
            to: rng.bool().then(|| self.plan.regions[to].id.clone()),
            strategy: if rng.bool() { Strategy::Graceful } else { Strategy::Immediate },
        }
    }

    pub(super) fn lift_order(&mut self, about: usize) {
        let writer = self.chaos.rng.usize(0..self.plan.regions.len());
        self.give(about, writer, Wish::Automatic);
    }

    fn give(&mut self, about: usize, writer: usize, wish: Wish) {
        let order = RegionOrder {
            region: self.plan.regions[about].id.clone(),
            wish,
            reason: None,
            operator: Some("bob".to_owned()),
            at: self.routers[0].clock.wall(self.now_ms),
            writer_region: self.plan.regions[writer].id.clone(),
            stamp: Stamp::default(),
        };
        self.store.order(about, writer, order, self.now_ms);
    }

    /// Some orders are there to stay, and some failure.
    pub(super) fn leave_some(&mut self) {
        let rng = &mut self.chaos.rng;
        let (instances, regions) = (self.machines.len(), self.plan.regions.len());
        let instance = (rng.u8(0..3) == 0).then(|| rng.usize(0..instances));
        let region = (rng.u8(0..6) == 0).then(|| rng.usize(0..regions));
        let failing = (rng.u8(0..3) == 0).then(|| rng.usize(0..instances));
        // One among few would take its region down with it.
        let beside = |no: usize| {
            self.machines.iter().filter(|m| m.node.region == self.machines[no].node.region).count()
        };
        let failing = failing.filter(|no| Some(*no) != instance && beside(*no) >= MANY);
        if let Some(no) = failing {
            self.machines[no].reported = ReportedHealth::Garbage;
        }
        self.chaos.lasting = Lasting { instance, region, failing };
    }

    /// Everybody wants everything else to serve again.
    pub(super) fn settle_orders(&mut self) {
        let Lasting { instance, region, .. } = self.chaos.lasting;
        if let Some(no) = instance {
            self.want(no, DesiredState::Quarantined);
        }
        if let Some(about) = region {
            let (to, strategy) = (None, Strategy::Graceful);
            self.give(about, about, Wish::FailOver { to, strategy });
        }
        for no in (0..self.machines.len()).filter(|no| Some(*no) != instance) {
            let wanted = self.store.wanted_in_the_end(no);
            let is_out =
                wanted.is_some_and(|wish| wish.state != DesiredState::Serving && !wish.automatic);
            if is_out {
                self.lift(no);
            }
        }
        for about in (0..self.plan.regions.len()).filter(|about| Some(*about) != region) {
            let order = self.store.order_in_the_end(about);
            if order.is_some_and(|order| order.wish != Wish::Automatic) {
                self.lift_order(about);
            }
        }
    }
}
