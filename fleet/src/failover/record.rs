//! What the holder of a region's lease says of each region, and for how long that counts.
//!
//! Every router judges every region by its own evidence. The routers of one region take the worse of that
//! and of their lease holder's word, so that they agree, and lose nothing when the holder falls silent.

use serde::{Deserialize, Serialize};

use super::{RegionState, RegionStatus, judge::Rating, region::Bound};
use crate::{
    model::{RegionId, Stamp, Timestamp},
    planted::{self, Fault},
};

/// How long a word counts whose stamp stands still: a few times as long as its writer takes to write it
/// again, and longer than another takes to become the writer.
pub const RECORD_TTL_MS: u64 = 15_000;

/// One region, as the holder of `writer_region`'s lease judges it. Stored in `routing-state`, one for each
/// writing region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionRecord {
    pub region: RegionId,
    pub state: RegionState,
    /// Of its own traffic, what it keeps: 0 to 1.
    pub share: f64,
    pub healthy: u32,
    pub all: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether operators want it so, whatever the evidence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
    /// Since when it is in its state, by the writer's clock.
    pub since: Timestamp,
    /// By the writer's clock; for people, never for judging whether it still counts.
    pub at: Timestamp,
    pub writer_region: RegionId,
    /// The router that wrote it.
    pub by: String,
    /// The epoch is the lease's.
    #[serde(flatten)]
    pub stamp: Stamp,
}

impl RegionRecord {
    /// What the lease holder `by` of `writer_region` says.
    pub fn new(
        status: &RegionStatus,
        (writer_region, by): (&RegionId, &str),
        stamp: Stamp,
        at: Timestamp,
    ) -> Self {
        let evidence = status.evidence;
        Self {
            region: status.region.clone(),
            state: status.state,
            share: status.share,
            healthy: evidence.map_or(0, |evidence| evidence.healthy),
            all: evidence.map_or(0, |evidence| evidence.all),
            reason: status.reason.clone(),
            ordered: status.order.is_some(),
            since: status.since,
            at,
            writer_region: writer_region.clone(),
            by: by.to_owned(),
            stamp,
        }
    }

    /// The reason, and whose it is.
    pub(super) fn told(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{reason}, says {}", self.by),
            None => format!("as {} has it", self.by),
        }
    }

    pub(super) fn rating(&self) -> Rating {
        let rating = Rating::new(self.state, self.share.clamp(0.0, 1.0));
        match rating {
            Rating { state: RegionState::Normal, share } if share < 1.0 => {
                Rating { state: RegionState::Recovering, share }
            }
            rating => rating,
        }
    }
}

/// Whether a word is news after what was seen: a writer that was superseded, as one is that was paused
/// while another took its lease, says nothing any more.
pub fn accepts(seen: Option<Stamp>, new: Stamp) -> bool {
    planted::is(Fault::StaleLeaseAccepted) || seen.is_none_or(|seen| seen < new)
}

/// The last word on a region, as its reader got it.
#[derive(Clone, Debug)]
pub(super) struct HeldRecord {
    pub record: RegionRecord,
    got_ms: u64,
}

impl HeldRecord {
    pub fn new(record: RegionRecord, now_ms: u64) -> Self {
        Self { record, got_ms: now_ms }
    }

    /// What it makes of the region, for a reader that holds the lease itself since `epoch`, or not at all.
    pub fn bound(&self, epoch: Option<u64>, now_ms: u64) -> Bound {
        let is_superseded = epoch.is_some_and(|epoch| self.record.stamp.epoch <= epoch);
        if is_superseded || now_ms >= self.ends_ms() {
            return Bound::Free;
        }
        Bound::AtMost { rating: self.record.rating(), reason: self.record.told() }
    }

    /// It counts for so much longer.
    pub fn postpone(&mut self, ms: u64) {
        self.got_ms = self.got_ms.saturating_add(ms);
    }

    /// When it counts no more.
    pub fn ends_ms(&self) -> u64 {
        self.got_ms.saturating_add(RECORD_TTL_MS)
    }
}

#[cfg(test)]
mod tests;
