//! What the evidence says of a region, with hysteresis: worse at once, better after a while.

use serde::{Deserialize, Serialize};

use super::{RegionState, Thresholds};
use crate::planted::{self, Fault};

/// What is known of a region at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Instances that take requests: ready, and not ejected.
    pub healthy: u32,
    /// All but those whose drain is planned.
    pub all: u32,
    /// Whether a router there answers; home always does.
    pub reachable: bool,
}

impl Evidence {
    /// The healthy ones' share; `None` where there is no instance to judge by.
    pub fn ratio(&self) -> Option<f64> {
        (self.all > 0).then(|| f64::from(self.healthy.min(self.all)) / f64::from(self.all))
    }

    /// As in `3 of 10 instances take requests`.
    pub(super) fn describe(&self) -> String {
        match self.reachable {
            true => format!("{} of {} instances take requests", self.healthy, self.all),
            false => "its routers do not answer".to_owned(),
        }
    }
}

/// A state, and the share of its own traffic that a region in it keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rating {
    pub state: RegionState,
    pub share: f64,
}

impl Rating {
    pub const NORMAL: Self = Self { state: RegionState::Normal, share: 1.0 };

    pub fn new(state: RegionState, share: f64) -> Self {
        Self { state, share: rounded(share) }
    }

    pub fn is_worse_than(self, other: Self) -> bool {
        self.share < other.share
            || (self.share == other.share && self.state.severity() > other.state.severity())
    }

    pub fn worse(self, other: Self) -> Self {
        if other.is_worse_than(self) { other } else { self }
    }
}

/// Follows one region's evidence. It knows three states: [`RegionState::Recovering`] is about traffic, not
/// about evidence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    rating: Rating,
    better: Option<Better>,
}

/// Evidence for something better: since when without a break, and the worst of it since.
#[derive(Clone, Copy, Debug)]
struct Better {
    since_ms: u64,
    rating: Rating,
}

impl Judge {
    pub fn new() -> Self {
        Self { rating: Rating::NORMAL, better: None }
    }

    pub fn rating(&self) -> Rating {
        self.rating
    }

    /// Takes over what was known before a restart, where that is worse.
    pub fn adopt(&mut self, rating: Rating) {
        if rating.is_worse_than(self.rating) {
            *self = Self { rating, better: None };
        }
    }

    pub fn handle(&mut self, evidence: &Evidence, now_ms: u64, thresholds: &Thresholds) {
        let Some(rating) = self.rate(evidence, thresholds) else {
            self.better = None;
            return;
        };
        if rating.is_worse_than(self.rating) {
            *self = Self { rating, better: None };
            return;
        }
        if rating == self.rating {
            self.better = None;
            return;
        }
        let before = self.better.unwrap_or(Better { since_ms: now_ms, rating });
        let better = Better { rating: before.rating.worse(rating), ..before };
        self.better = Some(better);
        if now_ms >= better.since_ms.saturating_add(hold_ms(thresholds)) {
            self.rating = better.rating;
            let is_better_still = self.rating.is_worse_than(rating);
            self.better = is_better_still.then_some(Better { since_ms: now_ms, rating });
        }
    }

    /// The hold that is under way ends so much later.
    pub fn postpone(&mut self, ms: u64) {
        if let Some(better) = &mut self.better {
            better.since_ms = better.since_ms.saturating_add(ms);
        }
    }

    /// When the state improves if the evidence stays.
    pub fn next_ms(&self, thresholds: &Thresholds) -> Option<u64> {
        self.better.map(|better| better.since_ms.saturating_add(hold_ms(thresholds)))
    }

    /// What it improves to then.
    pub fn next_rating(&self) -> Option<Rating> {
        self.better.map(|better| better.rating)
    }

    /// What the evidence says in the present state: only a region that reaches the recovery threshold
    /// leaves its state for a normal one, and nothing else ends a failover.
    fn rate(&self, evidence: &Evidence, thresholds: &Thresholds) -> Option<Rating> {
        let rating = thresholds.rate(evidence)?;
        let has_recovered = evidence.ratio()? >= thresholds.recovery_threshold;
        let at_most = match self.rating.state {
            _ if has_recovered => return Some(rating),
            RegionState::Normal | RegionState::Recovering => return Some(rating),
            state => thresholds.pinned(state),
        };
        Some(rating.worse(at_most))
    }
}

/// To a millionth: shares are sums and differences of what is written as 0.95, and people read them.
pub(super) fn rounded(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

pub(super) fn hold_ms(thresholds: &Thresholds) -> u64 {
    if planted::is(Fault::NoHysteresis) { 0 } else { thresholds.hold_ms }
}
