//! One region as one router has it: evidence, an operator's order and the lease holder's word together.

use super::{
    Evidence, NextStep, Rating, RegionMachine, RegionOrder, RegionRecord, RegionStatus, Thresholds,
    Transition, Wish, accepts, orders::Given, record::HeldRecord,
};
use crate::model::{RegionId, Stamp, Timestamp};

/// How finely a graceful failover's share falls.
const RAMP_STEP_MS: u64 = 100;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub machine: RegionMachine,
    given: Option<Given>,
    held: Option<HeldRecord>,
    /// When the first sign of the present evidence was seen.
    pub first_evidence_ms: u64,
    /// What changed since it was last asked for.
    pending: Option<Transition>,
    /// Since when it is in its state.
    since: Timestamp,
    /// Of its last change.
    pub reason: Option<String>,
}

impl Watch {
    pub fn new(now_ms: u64, at: Timestamp) -> Self {
        Self {
            machine: RegionMachine::new(now_ms),
            given: None,
            held: None,
            first_evidence_ms: now_ms,
            pending: None,
            since: at,
            reason: None,
        }
    }

    pub fn evidence(&mut self, evidence: &Evidence, now_ms: u64, thresholds: &Thresholds) {
        let transition = self.machine.handle(evidence, now_ms, thresholds);
        self.note(transition);
    }

    /// An order, to be merged with the one before. One that is not new is carried out by now.
    pub fn order(&mut self, order: RegionOrder, is_new: bool, now_ms: u64) {
        let before = self.given.as_ref().map(|given| &given.order);
        let merged = before.cloned().map_or(order.clone(), |before| before.merge(order));
        if before != Some(&merged) {
            let share = if is_new { self.machine.share() } else { 0.0 };
            self.given = Some(Given::new(merged, share, now_ms));
        }
    }

    /// The lease holder's word; `epoch` is that of the lease where this router holds or held it. Whether it was
    /// news.
    pub fn record(&mut self, record: RegionRecord, epoch: Option<u64>, now_ms: u64) -> bool {
        let seen = self.held.as_ref().map(|held| held.record.stamp);
        if !accepts(seen, record.stamp) {
            return false;
        }
        // What was ordered is no evidence, and may be over by now.
        if seen.is_none() && epoch.is_none() && !record.ordered {
            let transition = self.machine.adopt(record.rating(), record.told(), now_ms);
            self.note(transition);
        }
        self.held = Some(HeldRecord::new(record, now_ms));
        true
    }

    pub fn heard(&self) -> Option<Stamp> {
        self.held.as_ref().map(|held| held.record.stamp)
    }

    /// Holds, steps and the lease holder's word run out so much later. An operator's order runs on.
    pub fn postpone(&mut self, ms: u64) {
        self.machine.postpone(ms);
        if let Some(held) = &mut self.held {
            held.postpone(ms);
        }
    }

    /// Holds the region to what others say of it, and to what time brings.
    pub fn tick(&mut self, epoch: Option<u64>, now_ms: u64, thresholds: &Thresholds) {
        let order = self.given.as_ref().map(|given| given.bound(now_ms, thresholds));
        let word = self.held.as_ref().map(|held| held.bound(epoch, now_ms));
        let bound = order.unwrap_or_default().with(word.unwrap_or_default());
        let transition = self.machine.bind(bound, now_ms, thresholds);
        self.note(transition);
    }

    /// What has changed since this was last asked for, at whichever time of day.
    pub fn take_change(&mut self, at: Timestamp) -> Option<Transition> {
        let is_change = |it: &Transition| it.from != it.to || it.share_before != it.share;
        let transition = self.pending.take().filter(is_change)?;
        if transition.from != transition.to {
            self.since = at;
        }
        self.reason = Some(transition.reason.clone());
        Some(transition)
    }

    /// What operators want, by all that was heard of.
    pub fn ordered(&self) -> Option<&RegionOrder> {
        self.given.as_ref().map(|given| &given.order)
    }

    /// What operators want of the region, unless that is left to the evidence.
    pub fn wanted(&self) -> Option<&RegionOrder> {
        self.ordered().filter(|order| order.wish != Wish::Automatic)
    }

    /// The order by which it is failed over by hand.
    pub fn failover(&self) -> Option<&Given> {
        self.given.as_ref().filter(|given| given.is_failover())
    }

    /// When that began which makes it what it is: an operator's failover, or evidence that is bad. Another
    /// router's word begins when it is heard.
    pub fn began_ms(&self, now_ms: u64, thresholds: &Thresholds) -> u64 {
        let is_bad = |evidence| thresholds.rate(evidence).is_some_and(|r| r != Rating::NORMAL);
        let evidence = self.machine.evidence().filter(|evidence| is_bad(evidence));
        match (self.failover(), evidence) {
            (Some(given), _) => given.since_ms(),
            (None, Some(_)) => self.first_evidence_ms.min(now_ms),
            (None, None) => now_ms,
        }
    }

    /// Whether it takes nothing beyond its share.
    pub fn is_closed(&self) -> bool {
        self.machine.is_unreachable() || self.failover().is_some()
    }

    pub fn next_ms(&self, now_ms: u64, thresholds: &Thresholds) -> Option<u64> {
        let is_ramping = self.failover().is_some_and(|given| given.is_ramping(now_ms, thresholds));
        let ramp = is_ramping.then(|| now_ms.saturating_add(RAMP_STEP_MS));
        let word = self.held.as_ref().map(HeldRecord::ends_ms).filter(|end_ms| *end_ms > now_ms);
        [self.machine.next_ms(thresholds), ramp, word].into_iter().flatten().min()
    }

    /// `now_ms` is `at` by the wall's clock.
    pub fn status(
        &self,
        region: &RegionId,
        (now_ms, at): (u64, Timestamp),
        thresholds: &Thresholds,
    ) -> RegionStatus {
        // The lease holder's word rises with the evidence that this router sees, too.
        let order = self.given.as_ref().map(|given| given.bound(now_ms, thresholds));
        let next = self.machine.next_step(&order.unwrap_or_default(), thresholds);
        let wall = |ms: u64| Timestamp(at.0.saturating_add(ms.saturating_sub(now_ms)));
        RegionStatus {
            region: region.clone(),
            state: self.machine.state(),
            share: self.machine.share(),
            since: self.since,
            evidence: self.machine.evidence().copied(),
            reason: self.machine.why(),
            next: next.map(|(at_ms, share)| NextStep { at: wall(at_ms), share }),
            order: self.wanted().cloned(),
        }
    }

    /// Keeps a change, together with those before it that nobody has asked for.
    fn note(&mut self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        self.pending = Some(match self.pending.take() {
            Some(Transition { from, share_before, .. }) => {
                Transition { from, share_before, ..transition }
            }
            None => transition,
        });
    }
}
