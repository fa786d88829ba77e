//! How a region stands, for people and for other programs.

use serde::{Deserialize, Serialize};

use super::{Evidence, RegionOrder, RegionState};
use crate::model::{RegionId, Timestamp};

/// A region as one router has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    pub region: RegionId,
    pub state: RegionState,
    /// Of its own traffic, what it keeps: 0 to 1.
    pub share: f64,
    /// Since when it is in its state.
    pub since: Timestamp,
    /// `None` where nothing was said of it yet.
    pub evidence: Option<Evidence>,
    /// By what holds now; `None` where nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What comes back next; `None` where nothing does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStep>,
    /// What operators want of it, unless that is left to the evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<RegionOrder>,
}

/// Traffic that comes back if the evidence stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextStep {
    pub at: Timestamp,
    /// Of its own traffic, what the region keeps from then on: 0 to 1.
    pub share: f64,
}

impl RegionStatus {
    /// Whether it is something else than `other` says, so that others should hear of it at once. How many
    /// are healthy can wait.
    pub fn says_other(&self, other: &Self) -> bool {
        self.state != other.state || self.share != other.share
    }
}
