//! Whether an instance's reports still come: by this router's clock and the change of their sequence, never
//! by comparing two machines' clocks.
//!
//! Only time in which the router could look counts: while the store is away nobody grows stale, and when
//! it is back every instance has its whole time to be heard again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mrgc_fleet::model::{InstanceId, Report, Standing};

use crate::config::Follow;

/// How much later than promised a report may be written, replicated and read.
const MARGIN: Duration = Duration::from_secs(5);

/// When each instance was last heard.
#[derive(Debug)]
pub(super) struct Freshness {
    stale_after: Duration,
    /// More than twice its interval between two looks is time in which nothing could be seen.
    follow: Follow,
    looked: Option<Instant>,
    heard: HashMap<InstanceId, Heard>,
}

#[derive(Debug)]
struct Heard {
    generation: u64,
    sequence: u64,
    at: Instant,
}

impl Freshness {
    pub(super) fn new(stale_after: Duration, follow: Follow) -> Self {
        Self { stale_after, follow, looked: None, heard: HashMap::new() }
    }

    /// The state was read: what follows is asked of it.
    pub(super) fn look(&mut self, standings: &[Arc<Standing>], now: Instant) {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now - looked);
        let blind = since.saturating_sub(2 * self.follow.interval(standings.len()));
        if !blind.is_zero() {
            self.heard.values_mut().for_each(|heard| heard.at += blind);
        }
        if self.heard.len() > 2 * standings.len() + 64 {
            let known: HashSet<_> = standings.iter().map(|s| &s.registration.id).collect();
            self.heard.retain(|id, _| known.contains(id));
        }
    }

    /// Whether the instance's reports still come. The first sight of one counts as fresh.
    pub(super) fn is_fresh(&mut self, standing: &Standing, now: Instant) -> bool {
        let Some(report) = &standing.report else { return false };
        let Report { generation, sequence, .. } = *report;
        match self.heard.get_mut(&report.id) {
            Some(heard) if (heard.generation, heard.sequence) == (generation, sequence) => {
                now.saturating_duration_since(heard.at) < self.limit(report)
            }
            Some(heard) => {
                *heard = Heard { generation, sequence, at: now };
                true
            }
            None => {
                self.heard.insert(report.id.clone(), Heard { generation, sequence, at: now });
                true
            }
        }
    }

    fn limit(&self, report: &Report) -> Duration {
        let promised = Duration::from_millis(report.next_within_ms.unwrap_or(0).into());
        self.stale_after.max(promised + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::model::Registration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reported(sequence: u64, next_within_ms: Option<u32>) -> Arc<Standing> {
        let report = Report { next_within_ms, ..Report::new("i-1", "us", 1, sequence) };
        Standing::new(Registration::new("i-1", "us", "p", "a:1"), Some(report)).into()
    }

    /// Looks every second, and says after how many the instance is stale.
    fn stale_after(freshness: &mut Freshness, standing: &Arc<Standing>, from: Instant) -> u32 {
        let stale = (0..1000).find(|second| {
            let now = from + SECOND * *second;
            freshness.look(std::slice::from_ref(standing), now);
            !freshness.is_fresh(standing, now)
        });
        stale.unwrap()
    }

    #[test]
    fn an_instance_is_stale_once_its_sequence_stands_still() {
        let mut freshness = Freshness::new(30 * SECOND, Follow::default());
        let start = Instant::now();
        assert_eq!(stale_after(&mut freshness, &reported(1, None), start), 30);
        assert_eq!(stale_after(&mut freshness, &reported(2, None), start + 60 * SECOND), 30);
    }

    #[test]
    fn one_that_promised_to_be_slow_has_that_time() {
        let mut freshness = Freshness::new(30 * SECOND, Follow::default());
        assert_eq!(stale_after(&mut freshness, &reported(1, Some(40_000)), Instant::now()), 45);
        assert_eq!(stale_after(&mut freshness, &reported(2, Some(1_000)), Instant::now()), 30);
    }

    #[test]
    fn while_nothing_can_be_seen_nobody_grows_stale() {
        let mut freshness = Freshness::new(30 * SECOND, Follow::default());
        let (start, standing) = (Instant::now(), reported(1, None));
        freshness.look(std::slice::from_ref(&standing), start);
        assert!(freshness.is_fresh(&standing, start));
        // An hour's outage; then the instance has what was left of its time.
        assert_eq!(stale_after(&mut freshness, &standing, start + 3600 * SECOND), 28);
    }

    #[test]
    fn the_gone_are_forgotten() {
        let mut freshness = Freshness::new(30 * SECOND, Follow::default());
        let now = Instant::now();
        for n in 0..1000 {
            let id = format!("i-{n}");
            let registration = Registration::new(id.as_str(), "us", "p", "a:1");
            let report = Report::new(id.as_str(), "us", 1, 1);
            freshness.is_fresh(&Standing::new(registration, Some(report)), now);
        }
        freshness.look(&[reported(1, None)], now);
        assert_eq!(freshness.heard.len(), 1);
    }
}
