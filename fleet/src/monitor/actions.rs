//! What the holder of a lease does about what the monitor sees.
//!
//! An action follows from the state alone, so a router that takes a lease over, or starts again, does what is
//! left to do and nothing twice. Of an action that takes several writes, the order is such that one which
//! broke off half-way leaves a state from which the same action follows again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Monitor,
    issued::{Found, Limits},
    reading::Heard,
    scale::{self, Scaling},
};
use crate::{
    failover::{FailoverEvent, MAX_EVENTS, RegionRecord},
    health::Verdict,
    model::{DesiredState, InstanceId, Standing, Timestamp},
};

/// How often home's instances are looked through for some to drain, to release or to forget.
const REMEDIES_EVERY_MS: u64 = 1_000;

/// Something to be written, by the holder of a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Its probes fail, or EC2 calls it impaired: drain the instance, then ask for another in its place. Of one
    /// that a router drains already only the latter, which comes again and again while it fails: it may have
    /// been left undone.
    Replace {
        instance: Arc<Standing>,
        reason: String,
    },
    /// An instance that a router drained is well again: call its replacement off, then let it serve.
    Release {
        instance: Arc<Standing>,
    },
    /// Its machine is no more: forget what is wanted of it, then the instance, unless a person holds it by then.
    Forget {
        instance: Arc<Standing>,
        gone: Gone,
    },
    /// Home takes other regions' traffic, or all of it is back: ask for so many instances.
    Scale(Scaling),
    Record(RegionRecord),
    Event(FailoverEvent),
}

/// The cloud's word on a machine that is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    Terminated,
    /// As one is an hour after its end, but also another account's.
    Unknown,
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
    /// The instances whose machines are no more by the cloud's word, in place of those that were before.
    pub fn gone(&mut self, gone: BTreeMap<InstanceId, Gone>) {
        self.gone = gone;
    }

    /// Whether nobody is released for now, as what the cloud says is not known: it may be why one was drained.
    pub fn hold_releases(&mut self, holds: bool) {
        self.holds_releases = holds;
    }

    /// What is stored of past failovers, to begin with and whenever a lease was taken, in its epoch; of an
    /// earlier one it comes too late. What this router saw before that is written as far as nothing stored
    /// tells of it, for the store may have been away from whoever held the lease; and so is what is still
    /// under way.
    pub fn restore(&mut self, mut stored: Vec<FailoverEvent>, epoch: Option<u64>) {
        if epoch < self.restored {
            return;
        }
        let is_under_way = |event: &FailoverEvent| event.ended_at.is_none();
        // Of one that is stored as under way, its end is not told.
        let is_told = |event: &FailoverEvent| match stored.iter().find(|it| it.id == event.id) {
            Some(stored) => !is_under_way(stored),
            None => stored.iter().any(|other| other.overlaps(event)),
        };
        let mut events = self.handler.history();
        events.retain(|event| !is_under_way(event) && !is_told(event));
        if epoch.is_some() {
            stored.retain(is_under_way);
            events.extend(end_superseded(&mut stored));
        }
        self.handler.restore(stored);
        events.extend(self.handler.history().into_iter().filter(is_under_way));
        events.drain(..events.len().saturating_sub(MAX_EVENTS));
        self.events = events.into();
        self.restored = epoch;
    }

    /// What the holder of the leases is to do now: as much as there is `room` for. The rest comes later.
    pub fn actions(
        &mut self,
        epochs: Epochs,
        room: usize,
        now_ms: u64,
        at: Timestamp,
    ) -> Vec<Action> {
        self.turn(now_ms);
        self.handler.lead(epochs.failover, now_ms);
        let mut actions = Vec::new();
        if epochs.health.is_some() && now_ms >= self.remedies_ms {
            self.remedies_ms = now_ms + REMEDIES_EVERY_MS;
            actions = self.remedies(room, now_ms);
        }
        let Some(epoch) = epochs.failover else { return actions };
        let (writer, statuses) =
            ((&self.settings.home, &*self.settings.router), self.handler.status());
        let records = self.issued.records(writer, statuses, epoch, (now_ms, at));
        actions.extend(records.take(room - actions.len()));
        let scalings = self.scalings(epoch, room - actions.len(), (now_ms, at));
        actions.extend(scalings.into_iter().map(Action::Scale));
        if self.restored == Some(epoch) {
            let fit = self.events.len().min(room - actions.len());
            actions.extend(self.events.drain(..fit).map(Action::Event));
        }
        actions
    }

    /// What to do about home's instances.
    fn remedies(&mut self, room: usize, now_ms: u64) -> Vec<Action> {
        let mut issued = std::mem::take(&mut self.issued);
        let gone: Vec<_> = self.gone.iter().filter_map(|(id, gone)| self.lost(id, *gone)).collect();
        let ids: BTreeSet<_> = self.impaired.keys().chain(self.probes.unhealthy()).collect();
        let failing = ids.into_iter().filter_map(|id| Some((self.heard(id)?, self.failure(id)?)));
        let failing = failing.filter(|(heard, _)| self.is_at_home(heard) && heard.counts());
        let failing = failing.map(|(heard, reason)| (&heard.standing, reason));
        let is_well = |id| self.failure(id).is_none() && *self.verdict(id) == Verdict::Healthy;
        let recovered = self.drained.iter().filter(|s| is_well(&s.registration.id));
        let found = Found {
            failing: failing.filter(|(failing, _)| !holds(&gone, failing)).collect(),
            recovered: recovered.filter(|_| !self.holds_releases).collect(),
            gone,
        };
        let limits = Limits {
            room,
            pools: self.tallies.pools(),
            max_drained_share: self.settings.max_drained_share,
        };
        let actions = issued.remedies(found, limits, now_ms);
        self.issued = issued;
        actions
    }

    /// An instance that is to be forgotten: the cloud says that its machine is gone, and no report says
    /// otherwise. What a person keeps out of service no router touches.
    fn lost(&self, id: &InstanceId, gone: Gone) -> Option<(&Arc<Standing>, Gone)> {
        let heard = self.heard(id).filter(|heard| self.is_at_home(heard))?;
        let is_held =
            heard.standing.desired.as_ref().is_some_and(|desired| {
                !desired.automatic && desired.state != DesiredState::Serving
            });
        let is_silent = match gone {
            Gone::Terminated => !heard.is_fresh,
            Gone::Unknown => heard.is_silent,
        };
        (is_silent && !is_held).then_some((&heard.standing, gone))
    }

    fn is_at_home(&self, heard: &Heard) -> bool {
        heard.standing.registration.region == self.settings.home
    }

    fn scalings(&mut self, epoch: u64, room: usize, now: (u64, Timestamp)) -> Vec<Scaling> {
        let moves = scale::moves(&self.handler, &self.regions);
        let mut scaler = std::mem::take(&mut self.scaler);
        let home = &self.settings.home;
        let scalings = scaler.handle(home, &moves, self.counted(), (epoch, room), now);
        self.scaler = scaler;
        scalings
    }

    /// Failovers that wait to be written under a lease.
    pub fn events_waiting(&self) -> usize {
        self.events.len()
    }
}

/// Of several failovers of a region that are stored as under way, as holders write that knew nothing of each
/// other, all but the latest end.
fn end_superseded(stored: &mut Vec<FailoverEvent>) -> Vec<FailoverEvent> {
    stored.sort_by(|a, b| (&a.from, b.at, &b.id).cmp(&(&b.from, a.at, &a.id)));
    let mut ended: Vec<FailoverEvent> = Vec::new();
    stored.dedup_by(|event, later| {
        let is_superseded = event.from == later.from;
        if is_superseded {
            ended.push(FailoverEvent { ended_at: Some(later.at), ..event.clone() });
        }
        is_superseded
    });
    ended
}

fn holds(gone: &[(&Arc<Standing>, Gone)], standing: &Arc<Standing>) -> bool {
    gone.iter().any(|(gone, _)| Arc::ptr_eq(gone, standing))
}
