//! Whether an instance's reports still come: by the reader's clock and the rise of their sequence, never
//! by comparing two machines' clocks.
//!
//! Only time in which the reader could look counts: while the store is away nobody grows stale, and when
//! it is back every instance has its whole time to be heard again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::model::{InstanceId, Report, Standing};

/// How much later than promised a report may be written, replicated and read.
const MARGIN_MS: u64 = 5_000;

/// What each instance said last, and when it was heard. Times are milliseconds of the reader's own
/// monotonic clock.
#[derive(Debug)]
pub struct Freshness {
    stale_after_ms: u64,
    looked_ms: Option<u64>,
    heard: HashMap<InstanceId, Heard>,
}

#[derive(Debug)]
struct Heard {
    /// With the highest report that was read.
    standing: Arc<Standing>,
    /// When that was news.
    at_ms: u64,
    /// When it was read last.
    read_ms: u64,
}

impl Freshness {
    /// With `u64::MAX` nobody who was heard ever grows stale.
    pub fn new(stale_after_ms: u64) -> Self {
        Self { stale_after_ms, looked_ms: None, heard: HashMap::new() }
    }

    /// The state was read, as it is every `interval_ms`: what follows is asked of it. More than twice that
    /// since the look before is time in which nothing could be seen.
    pub fn look(&mut self, standings: &[Arc<Standing>], interval_ms: u64, now_ms: u64) {
        let since_ms =
            self.looked_ms.replace(now_ms).map_or(0, |looked_ms| now_ms.saturating_sub(looked_ms));
        let blind_ms = since_ms.saturating_sub(interval_ms.saturating_mul(2));
        if blind_ms > 0 {
            for heard in self.heard.values_mut() {
                heard.at_ms += blind_ms;
                heard.read_ms += blind_ms;
            }
        }
        if self.heard.len() > 2 * standings.len() + 64 {
            let known: HashSet<_> = standings.iter().map(|s| &s.registration.id).collect();
            self.heard.retain(|id, _| known.contains(id));
        }
    }

    /// An instance as it was read; returns it with the newest report that was read of it, and whether
    /// reports still come. The first sight of one counts as fresh; a lower one than was heard, from a replica
    /// that lags or from a replay, changes nothing. Where nothing but lower ones is read for as long as makes
    /// an instance stale, the store has begun anew, and so do we.
    pub fn hear(&mut self, read: Arc<Standing>, now_ms: u64) -> (Arc<Standing>, bool) {
        let Some(report) = &read.report else { return (read, false) };
        let limit_ms = self.limit_ms(report);
        let news = || Heard { standing: read.clone(), at_ms: now_ms, read_ms: now_ms };
        let Some(heard) = self.heard.get_mut(&report.id) else {
            self.heard.insert(report.id.clone(), news());
            return (read, true);
        };
        let known = heard.standing.report.as_ref();
        if known.is_none_or(|known| report.supersedes(known)) {
            *heard = news();
            return (read, true);
        }
        let is_fresh = now_ms.saturating_sub(heard.at_ms) < limit_ms;
        if known.is_some_and(|known| !known.supersedes(report)) {
            *heard = Heard { at_ms: heard.at_ms, ..news() };
            return (read, is_fresh);
        }
        if now_ms.saturating_sub(heard.read_ms) >= limit_ms {
            *heard = news();
            return (read, true);
        }
        (heard.newest(&read), is_fresh)
    }

    /// For how long an instance's reports have brought nothing new; `None` of one that has never reported.
    pub fn silent_ms(&self, id: &InstanceId, now_ms: u64) -> Option<u64> {
        self.heard.get(id).map(|heard| now_ms.saturating_sub(heard.at_ms))
    }

    fn limit_ms(&self, report: &Report) -> u64 {
        let promised_ms = u64::from(report.next_within_ms.unwrap_or(0));
        self.stale_after_ms.max(promised_ms + MARGIN_MS)
    }
}

impl Heard {
    /// What was read, but for its report, which is a lower one: the same allocation as before where nothing
    /// else has changed.
    fn newest(&mut self, read: &Standing) -> Arc<Standing> {
        let Self { standing, .. } = self;
        if read.registration != standing.registration || read.desired != standing.desired {
            let report = standing.report.clone();
            *standing = Arc::new(Standing { report, ..read.clone() });
        }
        standing.clone()
    }
}

#[cfg(test)]
mod tests;
