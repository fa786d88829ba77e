//! What operators want of a region's traffic, apart from what the evidence says.
//!
//! As with what is wanted of an instance, each region writes an opinion of its own: the one with the highest
//! stamp counts, and of two with the same stamp the stricter.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{RegionState, Thresholds, judge::Rating, region::Bound};
use crate::model::{RegionId, Stamp, Timestamp};

/// What is wanted of a region. Stored once for each region that wants something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionOrder {
    pub region: RegionId,
    #[serde(flatten)]
    pub wish: Wish,
    /// For people, as in `planned maintenance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// By the writer's clock; for people, never to decide which counts.
    pub at: Timestamp,
    /// Where it was written.
    pub writer_region: RegionId,
    #[serde(flatten)]
    pub stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "wish", rename_all = "snake_case")]
pub enum Wish {
    /// The evidence decides. After a failover by hand, traffic comes back by steps.
    Automatic,
    /// The state and its share, whatever the evidence says; only what cannot be reached gets nothing.
    Pinned { state: RegionState },
    /// All of the region's traffic goes elsewhere, and it takes none of others'.
    FailOver {
        /// Who takes it as long as there is room; the others' share by their spare capacity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<RegionId>,
        strategy: Strategy,
    },
}

/// How fast traffic leaves. Requests that are under way finish in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// In a line over [`Thresholds::graceful_ms`], so that those who take it warm up.
    Graceful,
    /// All new requests, at once.
    Immediate,
}

impl RegionOrder {
    /// Which of two opinions on one region counts. It does not matter in which order, or how often,
    /// opinions are merged.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.order(&other) == Ordering::Less { other } else { self }
    }

    /// By stamp, then by strictness; what follows only makes the order total.
    fn order(&self, other: &Self) -> Ordering {
        self.stamp
            .cmp(&other.stamp)
            .then(self.wish.strictness().cmp(&other.wish.strictness()))
            .then_with(|| self.wish.target().cmp(&other.wish.target()))
            .then_with(|| self.writer_region.cmp(&other.writer_region))
            .then(self.at.cmp(&other.at))
            .then_with(|| self.reason.cmp(&other.reason))
            .then_with(|| self.operator.cmp(&other.operator))
    }

    /// As in `failed over by alice: planned maintenance`.
    fn describe(&self) -> String {
        let what = match self.wish {
            Wish::Automatic => "left to the evidence",
            Wish::Pinned { .. } => "pinned",
            Wish::FailOver { .. } => "failed over",
        };
        let operator = self.operator.as_deref().unwrap_or("an operator");
        match &self.reason {
            Some(reason) => format!("{what} by {operator}: {reason}"),
            None => format!("{what} by {operator}"),
        }
    }
}

impl Wish {
    /// How much it takes from the region.
    fn strictness(&self) -> (u8, u8) {
        match self {
            Self::Automatic => (0, 0),
            Self::Pinned { state } => (1, state.severity()),
            Self::FailOver { strategy: Strategy::Graceful, .. } => (2, 0),
            Self::FailOver { strategy: Strategy::Immediate, .. } => (2, 1),
        }
    }

    /// Who is to take the region's traffic first.
    pub fn target(&self) -> Option<&RegionId> {
        match self {
            Self::FailOver { to, .. } => to.as_ref(),
            Self::Automatic | Self::Pinned { .. } => None,
        }
    }
}

/// An order that was given, as one router carries it out.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub order: RegionOrder,
    since_ms: u64,
    /// The region's share when it was given.
    share: f64,
}

impl Given {
    pub fn new(order: RegionOrder, share: f64, now_ms: u64) -> Self {
        Self { order, since_ms: now_ms, share }
    }

    /// What it makes of the region now.
    pub fn bound(&self, now_ms: u64, thresholds: &Thresholds) -> Bound {
        let reason = || self.order.describe();
        match self.order.wish {
            Wish::Automatic => Bound::Free,
            Wish::Pinned { state } => {
                Bound::Exactly { rating: thresholds.pinned(state), reason: reason() }
            }
            Wish::FailOver { .. } => {
                let share = self.share * (1.0 - self.progress(now_ms, thresholds));
                let rating = Rating::new(RegionState::FailoverActive, share);
                Bound::AtMost { rating, reason: reason() }
            }
        }
    }

    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Whether the region is being failed over, or has been, by hand.
    pub fn is_failover(&self) -> bool {
        matches!(self.order.wish, Wish::FailOver { .. })
    }

    /// Whether the share still falls.
    pub fn is_ramping(&self, now_ms: u64, thresholds: &Thresholds) -> bool {
        self.is_failover() && self.progress(now_ms, thresholds) < 1.0
    }

    fn progress(&self, now_ms: u64, thresholds: &Thresholds) -> f64 {
        match self.order.wish {
            Wish::FailOver { strategy: Strategy::Graceful, .. } => {
                let passed_ms = now_ms.saturating_sub(self.since_ms);
                (passed_ms as f64 / thresholds.graceful_ms as f64).min(1.0)
            }
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests;
