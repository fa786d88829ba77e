//! What the holder of a lease does about what the monitor sees.
//!
//! An action follows from the state alone, so a router that takes a lease over, or starts again, does what is
//! left to do and nothing twice.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Monitor,
    scale::{self, Scaling},
    tally,
};
use crate::{
    failover::{FailoverEvent, RegionRecord},
    health::Verdict,
    model::{Standing, Timestamp},
};

/// How often home's instances are looked through for some to drain or to release.
const REMEDIES_EVERY_MS: u64 = 1_000;

/// Something to be written, by the holder of a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Its probes fail: drain the instance, and ask for another in its place.
    Replace {
        instance: Arc<Standing>,
        reason: String,
    },
    /// An instance that a router drained passes its probes again: let it serve.
    Release {
        instance: Arc<Standing>,
    },
    /// Home takes other regions' traffic, or all of it is back: ask for so many instances.
    Scale(Scaling),
    Record(RegionRecord),
    Event(FailoverEvent),
}

/// The epochs of the leases that this router holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// To drain and replace instances.
    pub health: Option<u64>,
    /// To write what is found of the regions.
    pub failover: Option<u64>,
}

impl Monitor {
    /// What is stored of past failovers, to begin with and whenever a lease was taken, in its epoch. What
    /// this router saw before that is written as far as nothing stored tells of it, for the store may have
    /// been away from whoever held the lease; and so is what is still under way.
    pub fn restore(&mut self, mut stored: Vec<FailoverEvent>, epoch: Option<u64>) {
        let is_under_way = |event: &FailoverEvent| event.ended_at.is_none();
        let is_told = |event: &FailoverEvent| stored.iter().any(|other| other.overlaps(event));
        let mut events = self.handler.history();
        events.retain(|event| !is_under_way(event) && !is_told(event));
        if epoch.is_some() {
            stored.retain(is_under_way);
        }
        self.handler.restore(stored);
        events.extend(self.handler.history().into_iter().filter(is_under_way));
        self.events = events.into();
        self.restored = epoch;
    }

    /// What the holder of the leases is to do now.
    pub fn actions(&mut self, epochs: Epochs, now_ms: u64, at: Timestamp) -> Vec<Action> {
        self.turn(now_ms);
        self.handler.lead(epochs.failover, now_ms);
        let mut actions = Vec::new();
        if epochs.health.is_some() && now_ms >= self.remedies_ms {
            self.remedies_ms = now_ms + REMEDIES_EVERY_MS;
            actions = self.remedies(now_ms);
        }
        if let Some(epoch) = epochs.failover {
            let writer = (&self.settings.home, self.settings.router.as_str());
            let statuses = self.handler.status();
            actions.extend(self.issued.records(writer, statuses, epoch, (now_ms, at)));
            actions.extend(self.scalings(epoch, now_ms, at).into_iter().map(Action::Scale));
            if self.restored == Some(epoch) {
                actions.extend(self.events.drain(..).map(Action::Event));
            }
        }
        actions
    }

    /// Whom to drain and whom to release, of home's instances.
    fn remedies(&mut self, now_ms: u64) -> Vec<Action> {
        let mut issued = std::mem::take(&mut self.issued);
        let is_ours = |standing: &Arc<Standing>| {
            standing.registration.region == self.settings.home && tally::counts(standing)
        };
        let ids: BTreeSet<_> = self.impaired.keys().chain(self.probes.unhealthy()).collect();
        let failing =
            ids.into_iter().filter_map(|id| Some((self.standing(id)?, self.failure(id)?)));
        let failing: Vec<_> = failing.filter(|(standing, _)| is_ours(standing)).collect();
        let is_well = |id| self.failure(id).is_none() && *self.verdict(id) == Verdict::Healthy;
        let recovered = self.drained.iter().filter(|s| is_well(&s.registration.id));
        let limits = (self.tallies.pools(), self.settings.max_drained_share);
        let actions = issued.remedies(&failing, recovered, limits, now_ms);
        self.issued = issued;
        actions
    }

    fn scalings(&mut self, epoch: u64, now_ms: u64, at: Timestamp) -> Vec<Scaling> {
        let moves = scale::moves(&self.handler, &self.regions);
        let mut scaler = std::mem::take(&mut self.scaler);
        let home = &self.settings.home;
        let scalings = scaler.handle(home, &moves, self.members(), epoch, (now_ms, at));
        self.scaler = scaler;
        scalings
    }

    /// Failovers that wait to be written under a lease.
    pub fn events_waiting(&self) -> usize {
        self.events.len()
    }
}
