//! What the cloud says of this instance's future, as IMDS shows it. Pure: pages in, notices out.
//!
//! | page | says | drains |
//! |---|---|---|
//! | `spot/instance-action` | when it is terminated, stopped or hibernated, two minutes ahead | at once, for good |
//! | `autoscaling/target-lifecycle-state` | `Terminated`: its group removes it | at once, for good |
//! | `events/recommendations/rebalance` | an interruption is likelier than usual | where configured |
//! | `events/maintenance/scheduled` | a reboot, a retirement, a stop, days ahead | a while before |
//!
//! A page that is not there says nothing, and that is what is normal. A notice is told from another by what
//! it says: the same one, seen again, is not news. How near maintenance is follows from the `Date` that IMDS
//! puts on the page; this machine's clock counts only where there is none.

mod auto_scaling;
mod watch;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, macros};

pub(crate) use self::{auto_scaling::Farewell, watch::watch};
use crate::{
    config::{self, OnRebalance},
    lifecycle::Cause,
};

/// What the cloud says, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// For people, as in `spot interruption: terminate at 2026-05-04T08:22:00Z`.
    pub text: String,
    /// What it drains for; `None`: nothing, or nothing yet.
    pub cause: Option<Cause>,
}

/// The pages that say something of the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Spot,
    AutoScaling,
    Rebalance,
    Maintenance,
}

impl Source {
    pub(crate) const ALL: [Self; 4] =
        [Self::Spot, Self::AutoScaling, Self::Rebalance, Self::Maintenance];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Spot => "/latest/meta-data/spot/instance-action",
            Self::AutoScaling => "/latest/meta-data/autoscaling/target-lifecycle-state",
            Self::Rebalance => "/latest/meta-data/events/recommendations/rebalance",
            Self::Maintenance => "/latest/meta-data/events/maintenance/scheduled",
        }
    }

    /// The notices on its page. `now` is the time that the page was served at.
    pub(crate) fn read(
        self,
        text: &str,
        now: OffsetDateTime,
        config: &config::Notices,
    ) -> Result<Vec<Notice>, serde_json::Error> {
        match self {
            Self::Spot => {
                let SpotAction { action, time } = serde_json::from_str(text)?;
                let text = format!("spot interruption: {action} at {time}");
                Ok(vec![Notice { text, cause: Some(Cause::SpotInterruption) }])
            }
            Self::AutoScaling => Ok(target_state(text.trim()).into_iter().collect()),
            Self::Rebalance => {
                let Rebalance { notice_time } = serde_json::from_str(text)?;
                let cause = (config.rebalance == OnRebalance::Drain).then_some(Cause::Rebalance);
                Ok(vec![Notice { text: format!("rebalance recommended at {notice_time}"), cause }])
            }
            Self::Maintenance => {
                let events: Vec<Event> = serde_json::from_str(text)?;
                let active = events.iter().filter(|event| event.state == "active");
                Ok(active.map(|event| event.notice(now, config.maintenance_lead)).collect())
            }
        }
    }
}

#[derive(Deserialize)]
struct SpotAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rebalance {
    notice_time: String,
}

/// The group wants it in service, standing by, warmed, or gone; only the last is news.
fn target_state(state: &str) -> Option<Notice> {
    let is_gone = state.rsplit(':').next() == Some("Terminated");
    let text = format!("Auto Scaling wants it {state}");
    is_gone.then_some(Notice { text, cause: Some(Cause::AutoScaling) })
}

/// A scheduled event of EC2.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_id: String,
    code: String,
    state: String,
    not_before: String,
}

impl Event {
    fn notice(&self, now: OffsetDateTime, lead: Duration) -> Notice {
        let Self { event_id, code, not_before, .. } = self;
        // What has no date that can be read may begin at any time.
        let is_near = parse_date(not_before).is_none_or(|begin| now + lead >= begin);
        Notice {
            text: format!("scheduled maintenance: {code} from {not_before} ({event_id})"),
            cause: is_near.then_some(Cause::Maintenance),
        }
    }
}

const DATE: &[BorrowedFormatItem<'_>] = macros::format_description!(
    "[day padding:none] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// As in `21 Jan 2019 09:00:43 GMT`, or with the weekday before it, as in a `Date` header.
pub(crate) fn parse_date(text: &str) -> Option<OffsetDateTime> {
    let date = text.split_once(", ").map_or(text, |(_weekday, date)| date);
    Some(PrimitiveDateTime::parse(date.trim(), DATE).ok()?.assume_utc())
}

#[cfg(test)]
mod tests;
