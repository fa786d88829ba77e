//! All regions as one router judges them: evidence, orders and words in; transitions and failovers out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::Serialize;

use super::{
    Cause, Evidence, FailoverEvent, RegionOrder, RegionRecord, RegionState, RegionStatus, Strategy,
    Summary, Thresholds, Transition, Wish, history::History, watch::Watch,
};
use crate::model::{RegionId, Stamp, Timestamp};

/// See the module.
#[derive(Debug)]
pub struct Handler {
    home: RegionId,
    thresholds: Thresholds,
    regions: BTreeMap<RegionId, Watch>,
    history: History,
    /// Of the lease under which this router writes records, or wrote them last.
    epoch: Option<u64>,
    ticked_ms: Option<u64>,
    at: Timestamp,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Changed {
        region: RegionId,
        transition: Transition,
    },
    /// Something of a failover, with as much as is known of it by now.
    Event {
        phase: Phase,
        event: FailoverEvent,
    },
}

/// How far a failover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its traffic may have moved at once: then it has its duration, and that is not told again.
    Began,
    /// Its traffic has moved.
    Moved,
    Ended,
}

impl Output {
    fn ended(event: FailoverEvent) -> Self {
        Self::Event { phase: Phase::Ended, event }
    }
}

impl Handler {
    pub fn new(home: RegionId, thresholds: Thresholds, at: Timestamp) -> Self {
        Self {
            home,
            thresholds,
            regions: BTreeMap::new(),
            history: History::default(),
            epoch: None,
            ticked_ms: None,
            at,
        }
    }

    pub fn home(&self) -> &RegionId {
        &self.home
    }

    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// The regions that are registered; all others are forgotten.
    pub fn keep<'a>(&mut self, regions: impl IntoIterator<Item = &'a RegionId>) {
        let regions: BTreeSet<_> = regions.into_iter().collect();
        self.regions.retain(|region, _| regions.contains(region));
    }

    /// What is known of a region now, of which the first sign was seen at `first_evidence_ms`.
    pub fn evidence(
        &mut self,
        region: &RegionId,
        evidence: Evidence,
        first_evidence_ms: u64,
        now_ms: u64,
    ) {
        let thresholds = self.thresholds;
        let watch = self.watch(region, now_ms);
        watch.first_evidence_ms = first_evidence_ms;
        watch.evidence(&evidence, now_ms, &thresholds);
    }

    /// What an operator wants. Orders may come in any order, and again and again. One that is there before
    /// the first tick has been in force for a while: its ramp is over.
    pub fn order(&mut self, order: RegionOrder, now_ms: u64) {
        let (thresholds, epoch) = (self.thresholds, self.epoch);
        let is_new = self.ticked_ms.is_some();
        let watch = self.watch(&order.region, now_ms);
        watch.order(order, is_new, now_ms);
        watch.tick(epoch, now_ms, &thresholds);
    }

    /// What the lease holder of this router's region says. Whether it was news.
    pub fn record(&mut self, record: RegionRecord, now_ms: u64) -> bool {
        if record.writer_region != self.home {
            return false;
        }
        let (thresholds, epoch) = (self.thresholds, self.epoch);
        let watch = self.watch(&record.region, now_ms);
        let is_news = watch.record(record, epoch, now_ms);
        watch.tick(epoch, now_ms, &thresholds);
        is_news
    }

    /// Whether this router holds its region's lease, and since which epoch: then its own judgement counts
    /// and not the word of a holder before it. Nor its own old words once it has lost the lease: only a later
    /// holder's.
    pub fn lead(&mut self, epoch: Option<u64>, now_ms: u64) {
        self.epoch = epoch.or(self.epoch);
        for watch in self.regions.values_mut() {
            watch.tick(self.epoch, now_ms, &self.thresholds);
        }
    }

    /// Nobody looked for so long: what would have run out by then has as long to go as before.
    pub fn postpone(&mut self, ms: u64) {
        self.regions.values_mut().for_each(|watch| watch.postpone(ms));
    }

    /// What is stored of past failovers, after a start, or on becoming the one who writes them.
    pub fn restore(&mut self, events: Vec<FailoverEvent>) {
        self.history.restore(events, self.thresholds.failover_timeout_ms);
    }

    /// What time brings, and all that has happened since the last tick. To be called after each input, or
    /// several of one moment, and at [`next_ms`](Self::next_ms).
    pub fn tick(&mut self, now_ms: u64, at: Timestamp) -> Vec<Output> {
        (self.ticked_ms, self.at) = (Some(now_ms), at);
        let mut outputs = Vec::new();
        for (region, watch) in &mut self.regions {
            watch.tick(self.epoch, now_ms, &self.thresholds);
            let change = watch.take_change(at);
            outputs.extend(
                change.map(|transition| Output::Changed { region: region.clone(), transition }),
            );
        }
        let ids: Vec<_> = self.regions.keys().cloned().collect();
        outputs.extend(ids.iter().flat_map(|region| self.follow(region, now_ms)));
        for region in self.history.open_without(|region| self.regions.contains_key(region)) {
            outputs.extend(self.history.end(&region, at).map(Output::ended));
        }
        outputs
    }

    /// When to tick next though nothing comes in.
    pub fn next_ms(&self, now_ms: u64) -> u64 {
        let evaluation =
            self.ticked_ms.unwrap_or(now_ms).saturating_add(self.thresholds.evaluation_ms);
        let regions =
            self.regions.values().filter_map(|watch| watch.next_ms(now_ms, &self.thresholds));
        regions.fold(evaluation, u64::min).max(now_ms)
    }

    /// Of its own traffic, what a region keeps; all of it where nothing is known.
    pub fn share(&self, region: &RegionId) -> f64 {
        self.regions.get(region).map_or(1.0, |watch| watch.machine.share())
    }

    pub fn state(&self, region: &RegionId) -> RegionState {
        self.regions.get(region).map_or(RegionState::Normal, |watch| watch.machine.state())
    }

    /// What was seen of a region last.
    pub fn seen(&self, region: &RegionId) -> Option<&Evidence> {
        self.regions.get(region)?.machine.evidence()
    }

    /// All regions, as of the last tick.
    pub fn status(&self) -> Vec<RegionStatus> {
        let now = (self.ticked_ms.unwrap_or(0), self.at);
        let status =
            |(region, watch): (&RegionId, &Watch)| watch.status(region, now, &self.thresholds);
        self.regions.iter().map(status).collect()
    }

    /// What operators want of a region, by all that was heard of.
    pub fn ordered(&self, region: &RegionId) -> Option<&RegionOrder> {
        self.regions.get(region)?.ordered()
    }

    /// The stamp of the lease holder's last word on a region.
    pub fn heard(&self, region: &RegionId) -> Option<Stamp> {
        self.regions.get(region)?.heard()
    }

    /// The failovers that are kept, the oldest first.
    pub fn history(&self) -> Vec<FailoverEvent> {
        self.history.events()
    }

    /// How many failovers are kept.
    pub fn kept(&self) -> usize {
        self.history.len()
    }

    /// The regions that take traffic, the best first: by state, home first, by healthy instances.
    pub fn preference(&self) -> Vec<RegionId> {
        let takes = |watch: &Watch| watch.machine.share() > 0.0 && !watch.is_closed();
        let mut regions: Vec<_> = self.regions.iter().filter(|(_, watch)| takes(watch)).collect();
        regions.sort_by_key(|(region, watch)| {
            let healthy = watch.machine.evidence().map_or(0, |evidence| evidence.healthy);
            let is_elsewhere = **region != self.home;
            (watch.machine.state().severity(), is_elsewhere, Reverse(healthy), *region)
        });
        regions.into_iter().map(|(region, _)| region.clone()).collect()
    }

    pub fn summary(&self) -> Summary {
        let totals = self.history.totals();
        Summary {
            current_state: self.state(&self.home),
            routing_preference: self.preference(),
            total_failovers: totals.failovers,
            average_duration_ms: (totals.moved > 0)
                .then(|| totals.duration_ms as f64 / totals.moved as f64),
            late_failovers: totals.late,
        }
    }

    pub(super) fn watched(&self, region: &RegionId) -> Option<&Watch> {
        self.regions.get(region)
    }

    fn watch(&mut self, region: &RegionId, now_ms: u64) -> &mut Watch {
        let at = self.at;
        self.regions.entry(region.clone()).or_insert_with(|| Watch::new(now_ms, at))
    }

    /// The failovers that a region's state begins, moves on and ends.
    fn follow(&mut self, region: &RegionId, now_ms: u64) -> Vec<Output> {
        let Some(watch) = self.regions.get(region) else { return Vec::new() };
        let state = watch.machine.state();
        let failover = watch.failover();
        let open = self.history.open(region);
        let is_over = open.is_some_and(|open| match failover {
            Some(given) => !open.is_of(&given.order),
            None => state == RegionState::Normal,
        });
        let is_failed_over = match watch.wanted() {
            Some(_) => failover.is_some(),
            None => state == RegionState::FailoverActive,
        };
        let begins = is_failed_over && (is_over || open.is_none());
        let is_moving = failover.is_some_and(|given| given.is_ramping(now_ms, &self.thresholds));
        let began_ms = watch.began_ms(now_ms, &self.thresholds);
        let new = begins.then(|| self.event(region, watch));

        let ended = if is_over { self.history.end(region, self.at) } else { None };
        if let Some(event) = new {
            self.history.begin(event, began_ms);
        }
        let timeout_ms = self.thresholds.failover_timeout_ms;
        let has_moved = !is_moving && self.history.moved(region, now_ms, timeout_ms);
        let phase = match (begins, has_moved) {
            (true, _) => Some(Phase::Began),
            (false, true) => Some(Phase::Moved),
            (false, false) => None,
        };
        let open = self.history.open(region).cloned();
        let told = phase.zip(open).map(|(phase, event)| Output::Event { phase, event });
        ended.map(Output::ended).into_iter().chain(told).collect()
    }

    /// The failover that begins now.
    fn event(&self, region: &RegionId, watch: &Watch) -> FailoverEvent {
        let order = watch.failover().map(|given| &given.order);
        let named = order.and_then(|order| order.wish.target()).cloned();
        // Tells those of one millisecond apart.
        let number = self.history.totals().failovers;
        let others = self.preference();
        let others = others.into_iter().filter(|id| id != region && Some(id) != named.as_ref());
        FailoverEvent {
            id: format!("{:013}-{region}-{}-{number}", self.at.0, self.home),
            from: region.clone(),
            to: named.iter().cloned().chain(others).collect(),
            at: self.at,
            ended_at: None,
            duration_ms: None,
            cause: if order.is_some() { Cause::Manual } else { Cause::Automatic },
            strategy: match order.map(|order| &order.wish) {
                Some(Wish::FailOver { strategy, .. }) => *strategy,
                _ => Strategy::Immediate,
            },
            reason: order.map_or(watch.reason.clone(), |order| order.reason.clone()),
            operator: order.and_then(|order| order.operator.clone()),
            writer_region: self.home.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
