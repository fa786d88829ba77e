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

/// When each instance was last heard. Times are milliseconds of the reader's own monotonic clock.
#[derive(Debug)]
pub struct Freshness {
    stale_after_ms: u64,
    looked_ms: Option<u64>,
    heard: HashMap<InstanceId, Heard>,
}

#[derive(Debug)]
struct Heard {
    fence: (u64, u64),
    at_ms: u64,
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
            self.heard.values_mut().for_each(|heard| heard.at_ms += blind_ms);
        }
        if self.heard.len() > 2 * standings.len() + 64 {
            let known: HashSet<_> = standings.iter().map(|s| &s.registration.id).collect();
            self.heard.retain(|id, _| known.contains(id));
        }
    }

    /// Whether the instance's reports still come. The first sight of one counts as fresh; a lower one than
    /// was heard, from a replica that lags or from a replay, changes nothing.
    pub fn is_fresh(&mut self, standing: &Standing, now_ms: u64) -> bool {
        let Some(report) = &standing.report else { return false };
        let limit_ms = self.limit_ms(report);
        match self.heard.get_mut(&report.id) {
            Some(heard) if report.is_after(heard.fence) => {
                *heard = Heard { fence: report.fence(), at_ms: now_ms };
                true
            }
            Some(heard) => now_ms.saturating_sub(heard.at_ms) < limit_ms,
            None => {
                let heard = Heard { fence: report.fence(), at_ms: now_ms };
                self.heard.insert(report.id.clone(), heard);
                true
            }
        }
    }

    fn limit_ms(&self, report: &Report) -> u64 {
        let promised_ms = u64::from(report.next_within_ms.unwrap_or(0));
        self.stale_after_ms.max(promised_ms + MARGIN_MS)
    }
}

#[cfg(test)]
mod tests;
