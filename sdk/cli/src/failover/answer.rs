//! What a router answers, and how that is worded for people.

use mrgc_fleet::{
    failover::{FailoverEvent, RegionOrder, RegionState, RegionStatus, Strategy, Summary, Wish},
    model::RegionId,
};
use serde::{Deserialize, Serialize};

use crate::table::{BAD, Cell, DOUBTFUL, GOOD};

/// `GET /failover`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Overview {
    pub(crate) region: RegionId,
    pub(crate) router: String,
    pub(crate) lease_holder: Option<String>,
    #[serde(flatten)]
    pub(crate) summary: Summary,
    pub(crate) regions: Vec<RegionStatus>,
    pub(crate) events: Vec<FailoverEvent>,
    pub(crate) unstored_orders: usize,
}

impl Overview {
    pub(crate) fn status(&self, region: &RegionId) -> Option<&RegionStatus> {
        self.regions.iter().find(|status| status.region == *region)
    }
}

/// What came of an order.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Given {
    pub(super) order: RegionOrder,
    pub(super) replaced: Option<RegionOrder>,
    pub(super) stored: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_stored_because: Option<String>,
    pub(super) status: Option<RegionStatus>,
}

pub(crate) fn state_cell(state: RegionState) -> Cell {
    let style = match state {
        RegionState::Normal => GOOD,
        RegionState::Degraded | RegionState::Recovering => DOUBTFUL,
        RegionState::FailoverActive => BAD,
    };
    Cell::styled(state.as_str(), style)
}

/// Of its own traffic, as in `70 %`.
pub(crate) fn keeps(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// As in `8 of 10`, with what stands against it.
pub(super) fn healthy(status: &RegionStatus) -> String {
    match &status.evidence {
        Some(evidence) if !evidence.reachable => "unreachable".to_owned(),
        Some(evidence) => format!("{} of {}", evidence.healthy, evidence.all),
        None => "unknown".to_owned(),
    }
}

/// As in `failed over to us-west-2 by ada (ticket 4711)`.
pub(super) fn describe(order: &RegionOrder) -> String {
    let what = match &order.wish {
        Wish::Automatic => "left to the evidence".to_owned(),
        Wish::Pinned { state } => format!("pinned in {state}"),
        Wish::FailOver { to, strategy } => {
            let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
            let how = match strategy {
                Strategy::Graceful => " gracefully",
                Strategy::Immediate => "",
            };
            format!("failed over{to}{how}")
        }
    };
    let by = order.operator.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    let why = order.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    format!("{what}{by}{why}")
}

/// As in `a, b, c`; a dash where there is none.
pub(super) fn names(regions: &[RegionId]) -> String {
    if regions.is_empty() {
        return "-".to_owned();
    }
    regions.iter().map(RegionId::as_str).collect::<Vec<_>>().join(", ")
}
