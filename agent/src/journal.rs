//! What changed lately: health, lifecycle, how a part answered, the configuration. Pure.

use std::{collections::VecDeque, sync::Arc};

use mrgc_fleet::model::Timestamp;
use serde::Serialize;

use crate::{signals::Check, state::Snapshot};

/// Older changes are forgotten; the log has them.
const MAX_CHANGES: usize = 32;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// By this machine's clock.
    pub at: Timestamp,
    /// As in `health`, `lifecycle`, `checks.gpu` or `config`.
    pub what: String,
    pub from: &'static str,
    pub to: &'static str,
    pub reason: Option<String>,
}

/// The latest changes, oldest first.
pub type Changes = Arc<VecDeque<Change>>;

/// Remembers the latest changes.
#[derive(Debug, Default)]
pub(crate) struct Journal(Changes);

impl Journal {
    /// Adds what differs between two snapshots, and gives all that is remembered.
    pub(crate) fn follow(&mut self, before: &Snapshot, after: &Snapshot) -> Changes {
        let mut add = |what: String, from: &'static str, to: &'static str, reason: Option<&str>| {
            if from != to {
                let changes = Arc::make_mut(&mut self.0);
                if changes.len() == MAX_CHANGES {
                    changes.pop_front();
                }
                let reason = reason.map(str::to_owned);
                changes.push_back(Change { at: after.at, what, from, to, reason });
            }
        };
        let (was, is) = (before.lifecycle.as_str(), after.lifecycle.as_str());
        add("lifecycle".to_owned(), was, is, after.course.life.reason().as_deref());
        let (was, is) = (&before.assessment, &after.assessment);
        add("health".to_owned(), was.health.as_str(), is.health.as_str(), is.reason.as_deref());
        for ((part, was), (_, is)) in was.checks.each().into_iter().zip(is.checks.each()) {
            // The first sample is no change.
            if *was != Check::unasked() {
                let what = format!("checks.{part}");
                add(what, was.status.as_str(), is.status.as_str(), is.reason.as_deref());
            }
        }
        let valid = |snapshot: &Snapshot| {
            if snapshot.config.error.is_some() { "refused" } else { "valid" }
        };
        let error = after.config.error.as_deref();
        add("config".to_owned(), valid(before), valid(after), error);
        Arc::clone(&self.0)
    }
}

#[cfg(test)]
mod tests;
