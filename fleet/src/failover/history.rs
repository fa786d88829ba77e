//! The failovers that there were, and what they come to.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{RegionOrder, RegionState, Strategy, Wish};
use crate::model::{RegionId, Timestamp};

/// Failovers that are kept, the latest ones; what they come to counts all.
pub const MAX_EVENTS: usize = 256;

/// A region's traffic moved elsewhere, for a while. Stored in `control`, again whenever it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailoverEvent {
    /// Sorts by time.
    pub id: String,
    #[serde(rename = "from_region")]
    pub from: RegionId,
    /// Who takes the traffic, first ones first; empty where nobody is left.
    #[serde(rename = "to_regions")]
    pub to: Vec<RegionId>,
    pub at: Timestamp,
    /// When all of the region's traffic was back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// From the first evidence, or the order, until the traffic had moved; `None` while it moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    pub cause: Cause,
    pub strategy: Strategy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Whose routers saw it: each region judges the others for itself, and tells of it.
    pub writer_region: RegionId,
}

impl FailoverEvent {
    /// Whether it took longer than it may. One that was asked for takes the time that was asked for.
    pub fn is_late(&self, timeout_ms: u64) -> bool {
        self.cause == Cause::Automatic && self.duration_ms.is_some_and(|took| took > timeout_ms)
    }

    /// Whether both can be of one failover: of one region, and at one time.
    pub fn overlaps(&self, other: &Self) -> bool {
        let until = |event: &Self| event.ended_at.unwrap_or(Timestamp(u64::MAX));
        self.from == other.from && self.at <= until(other) && other.at <= until(self)
    }

    /// Whether it is the one that an order began.
    pub(super) fn is_of(&self, order: &RegionOrder) -> bool {
        let strategy = match order.wish {
            Wish::FailOver { strategy, .. } => strategy,
            Wish::Automatic | Wish::Pinned { .. } => return false,
        };
        self.cause == Cause::Manual
            && self.strategy == strategy
            && self.operator == order.operator
            && self.reason == order.reason
            && order.wish.target().is_none_or(|to| self.to.first() == Some(to))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Automatic,
    Manual,
}

/// What `GET /failover` begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Home's.
    pub current_state: RegionState,
    /// Regions that take traffic, the best first.
    pub routing_preference: Vec<RegionId>,
    pub total_failovers: u64,
    /// Over all failovers that have moved their traffic; `None` where there was none.
    pub average_duration_ms: Option<f64>,
    /// Automatic failovers that took longer than the failover timeout.
    pub late_failovers: u64,
}

/// What was counted, whether or not its events are still kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub failovers: u64,
    pub moved: u64,
    pub duration_ms: u64,
    pub late: u64,
}

impl Totals {
    fn count_duration(&mut self, event: &FailoverEvent, timeout_ms: u64) {
        let Some(duration_ms) = event.duration_ms else { return };
        self.moved += 1;
        self.duration_ms = self.duration_ms.saturating_add(duration_ms);
        self.late += u64::from(event.is_late(timeout_ms));
    }
}

/// The latest failovers, and which of them are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    ended: VecDeque<FailoverEvent>,
    /// One for each region at most.
    open: BTreeMap<RegionId, Open>,
    totals: Totals,
}

/// A failover under way.
#[derive(Clone, Debug)]
struct Open {
    event: FailoverEvent,
    /// What its duration is counted from, by this process's clock; `None` where another process saw it.
    began_ms: Option<u64>,
}

impl History {
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// All that are kept, the oldest first.
    pub fn events(&self) -> Vec<FailoverEvent> {
        let mut events: Vec<_> =
            self.ended.iter().chain(self.open.values().map(|open| &open.event)).cloned().collect();
        events.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        events
    }

    pub fn len(&self) -> usize {
        self.ended.len() + self.open.len()
    }

    pub fn open(&self, region: &RegionId) -> Option<&FailoverEvent> {
        self.open.get(region).map(|open| &open.event)
    }

    /// Regions that are not there any more, with a failover under way.
    pub fn open_without(&self, is_there: impl Fn(&RegionId) -> bool) -> Vec<RegionId> {
        self.open.keys().filter(|region| !is_there(region)).cloned().collect()
    }

    /// One begins, in place of any that is under way in its region, which was ended before.
    pub fn begin(&mut self, event: FailoverEvent, began_ms: u64) {
        self.totals.failovers += 1;
        self.open.insert(event.from.clone(), Open { event, began_ms: Some(began_ms) });
    }

    /// Its traffic has moved. Whether that is new.
    pub fn moved(&mut self, region: &RegionId, now_ms: u64, timeout_ms: u64) -> bool {
        let open = self.open.get_mut(region).filter(|open| open.event.duration_ms.is_none());
        let Some(Open { event, began_ms: Some(began_ms) }) = open else { return false };
        event.duration_ms = Some(now_ms.saturating_sub(*began_ms));
        self.totals.count_duration(event, timeout_ms);
        true
    }

    pub fn end(&mut self, region: &RegionId, at: Timestamp) -> Option<FailoverEvent> {
        let Open { mut event, .. } = self.open.remove(region)?;
        event.ended_at = Some(at);
        self.keep(event.clone());
        Some(event)
    }

    /// Takes in what was stored. What is stored as under way is, until its region says otherwise; where one
    /// is under way here, because this router saw it, too, that is the same one.
    pub fn restore(&mut self, events: Vec<FailoverEvent>, timeout_ms: u64) {
        for event in events {
            let is_known = self.ended.iter().any(|known| known.id == event.id)
                || self.open.values().any(|open| open.event.id == event.id);
            if is_known {
                continue;
            }
            if event.ended_at.is_none()
                && let Some(Open { event: seen, .. }) = self.open.get_mut(&event.from)
            {
                *seen =
                    FailoverEvent { duration_ms: event.duration_ms.or(seen.duration_ms), ..event };
                continue;
            }
            self.totals.failovers += 1;
            self.totals.count_duration(&event, timeout_ms);
            match event.ended_at {
                Some(_) => self.keep(event),
                None => {
                    self.open.insert(event.from.clone(), Open { event, began_ms: None });
                }
            }
        }
    }

    fn keep(&mut self, event: FailoverEvent) {
        let at = self.ended.partition_point(|kept| (kept.at, &kept.id) <= (event.at, &event.id));
        self.ended.insert(at, event);
        if self.ended.len() > MAX_EVENTS {
            self.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
