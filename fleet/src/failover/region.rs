//! One region's state, and the share of its own traffic that it keeps.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Evidence, Thresholds,
    judge::{Judge, Rating, rounded},
};

/// How far a region can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionState {
    Normal,
    Degraded,
    FailoverActive,
    Recovering,
}

impl RegionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Degraded => "DEGRADED",
            Self::FailoverActive => "FAILOVER_ACTIVE",
            Self::Recovering => "RECOVERING",
        }
    }

    /// From 0, the best, to 3.
    pub fn severity(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Recovering => 1,
            Self::Degraded => 2,
            Self::FailoverActive => 3,
        }
    }
}

impl fmt::Display for RegionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change of a region's state or share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Transition {
    pub from: RegionState,
    pub to: RegionState,
    pub share_before: f64,
    /// Of its own traffic, what the region keeps from now on.
    pub share: f64,
    pub reason: String,
}

/// What others than the evidence say of a region.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Bound {
    #[default]
    Free,
    /// No better than this: an operator's failover, or the lease holder's word.
    AtMost { rating: Rating, reason: String },
    /// This and nothing else, as long as the region can be reached.
    Exactly { rating: Rating, reason: String },
}

impl Bound {
    /// Both together: an operator's pin counts alone, else the worse one.
    pub fn with(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Exactly { .. }, _) | (_, Self::Free) => self,
            (Self::AtMost { rating, .. }, Self::AtMost { rating: others, .. })
                if !others.is_worse_than(*rating) =>
            {
                self
            }
            _ => other,
        }
    }
}

/// Follows one region. The share falls at once and rises by steps, whoever lets it rise.
#[derive(Clone, Debug)]
pub struct RegionMachine {
    judge: Judge,
    evidence: Option<Evidence>,
    bound: Bound,
    state: RegionState,
    share: f64,
    since_ms: u64,
    /// Since when the present step has been held by good evidence.
    stepped_ms: Option<u64>,
}

/// A share this near to where it is going is there: three thirds are not quite a whole.
const NEAR: f64 = 1e-5;

impl RegionMachine {
    /// A region of which nothing is known, so nothing bad.
    pub fn new(now_ms: u64) -> Self {
        Self {
            judge: Judge::new(),
            evidence: None,
            bound: Bound::Free,
            state: RegionState::Normal,
            share: 1.0,
            since_ms: now_ms,
            stepped_ms: None,
        }
    }

    pub fn state(&self) -> RegionState {
        self.state
    }

    /// Of its own traffic, what the region keeps: 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Since when it has been in its state.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    /// Whether nothing can be sent there at all.
    pub fn is_unreachable(&self) -> bool {
        self.evidence.is_some_and(|evidence| evidence.all > 0 && !evidence.reachable)
    }

    /// New evidence, or, as time passes, the same again.
    pub fn handle(
        &mut self,
        evidence: &Evidence,
        now_ms: u64,
        thresholds: &Thresholds,
    ) -> Option<Transition> {
        self.evidence = Some(*evidence);
        self.tick(now_ms, thresholds)
    }

    /// What time alone brings: the end of a hold, the next step.
    pub fn tick(&mut self, now_ms: u64, thresholds: &Thresholds) -> Option<Transition> {
        if let Some(evidence) = self.evidence {
            self.judge.handle(&evidence, now_ms, thresholds);
            let has_recovered =
                evidence.ratio().is_some_and(|ratio| ratio >= thresholds.recovery_threshold);
            if self.state == RegionState::Recovering && !has_recovered {
                self.stepped_ms = Some(now_ms);
            }
        }
        self.settle(now_ms, thresholds)
    }

    /// The same under what others say of the region, in place of what they said before.
    pub(super) fn bind(
        &mut self,
        bound: Bound,
        now_ms: u64,
        thresholds: &Thresholds,
    ) -> Option<Transition> {
        self.bound = bound;
        self.tick(now_ms, thresholds)
    }

    /// Takes over what was known before a restart, where that is worse than what is known now. Its holds
    /// and steps begin anew.
    pub(super) fn adopt(
        &mut self,
        rating: Rating,
        reason: String,
        now_ms: u64,
    ) -> Option<Transition> {
        if !rating.is_worse_than(Rating { state: self.state, share: self.share }) {
            return None;
        }
        if rating.state == RegionState::Recovering {
            self.stepped_ms = Some(now_ms);
        } else {
            self.judge.adopt(rating);
        }
        Some(self.change(rating, reason, now_ms))
    }

    /// The hold and the step that are under way end so much later.
    pub(super) fn postpone(&mut self, ms: u64) {
        self.judge.postpone(ms);
        self.stepped_ms = self.stepped_ms.map(|at_ms| at_ms.saturating_add(ms));
    }

    /// When something changes by itself.
    pub fn next_ms(&self, thresholds: &Thresholds) -> Option<u64> {
        let step = (self.share < self.aim().share)
            .then_some(self.stepped_ms)
            .flatten()
            .map(|at_ms| at_ms.saturating_add(thresholds.step_ms));
        [step, self.judge.next_ms(thresholds)].into_iter().flatten().min()
    }

    /// When traffic comes back next, and up to which share, if the evidence stays and nobody holds the region
    /// to more than `bound`.
    pub(super) fn next_step(&self, bound: &Bound, thresholds: &Thresholds) -> Option<(u64, f64)> {
        let stepped_ms =
            self.stepped_ms.map_or(0, |at_ms| at_ms.saturating_add(thresholds.step_ms));
        let better = || Some((self.judge.next_ms(thresholds)?, self.judge.next_rating()?));
        let (at_ms, aim) = match self.limited(self.judge.rating(), bound).share {
            share if share > self.share => (stepped_ms, share),
            _ => {
                let (held_ms, rating) = better()?;
                (held_ms.max(stepped_ms), self.limited(rating, bound).share)
            }
        };
        let ratio = self.evidence.and_then(|evidence| evidence.ratio());
        let is_good = ratio.is_some_and(|ratio| ratio >= thresholds.recovery_threshold);
        let waits = self.state == RegionState::Recovering && !is_good;
        (aim > self.share && !waits).then(|| (at_ms, self.stepped(aim, thresholds)))
    }

    /// Why the region is where it is, by what holds now; `None` where nothing is known of it.
    pub(super) fn why(&self) -> Option<String> {
        let is_known = self.evidence.is_some() || self.bound != Bound::Free;
        is_known.then(|| self.reason(self.aim()))
    }

    /// Where the region is to be as soon as steps allow.
    fn aim(&self) -> Rating {
        self.limited(self.judge.rating(), &self.bound)
    }

    /// What a bound, and the network, leave of a rating.
    fn limited(&self, judged: Rating, bound: &Bound) -> Rating {
        match bound {
            _ if self.is_unreachable() => Rating::new(RegionState::FailoverActive, 0.0),
            Bound::Free => judged,
            Bound::AtMost { rating, .. } => judged.worse(*rating),
            Bound::Exactly { rating, .. } => *rating,
        }
    }

    /// The share after one step towards another.
    fn stepped(&self, aim: f64, thresholds: &Thresholds) -> f64 {
        let next = rounded(self.share + thresholds.recovery_step);
        if next > aim - NEAR { aim } else { next }
    }

    fn settle(&mut self, now_ms: u64, thresholds: &Thresholds) -> Option<Transition> {
        let aim = self.aim();
        let is_pinned = matches!(self.bound, Bound::Exactly { .. });
        let has_held =
            self.stepped_ms.is_none_or(|at_ms| now_ms >= at_ms.saturating_add(thresholds.step_ms));
        let share = if aim.share <= self.share || is_pinned {
            aim.share
        } else if has_held {
            self.stepped(aim.share, thresholds)
        } else {
            self.share
        };
        if share > self.share {
            self.stepped_ms = Some(now_ms);
        }
        let is_on_its_way = share < aim.share && aim.state == RegionState::Normal;
        let state = if is_on_its_way { RegionState::Recovering } else { aim.state };
        if state == self.state && share == self.share {
            return None;
        }
        let reason = self.reason(aim);
        Some(self.change(Rating { state, share }, reason, now_ms))
    }

    fn change(&mut self, to: Rating, reason: String, now_ms: u64) -> Transition {
        let Rating { state, share } = to;
        let (from, share_before) = (self.state, self.share);
        if state != from {
            self.since_ms = now_ms;
        }
        (self.state, self.share) = (state, share);
        Transition { from, to: state, share_before, share, reason }
    }

    /// Why the region is to be where `aim` says.
    fn reason(&self, aim: Rating) -> String {
        match &self.bound {
            Bound::Exactly { reason, .. } if !self.is_unreachable() => reason.clone(),
            // Who holds a region to what is normal does not hold it to anything.
            Bound::AtMost { rating, reason }
                if *rating == aim && aim != Rating::NORMAL && !self.is_unreachable() =>
            {
                reason.clone()
            }
            _ => {
                self.evidence.map_or_else(|| "nothing is known of it".to_owned(), |e| e.describe())
            }
        }
    }
}

#[cfg(test)]
mod tests;
