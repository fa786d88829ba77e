//! One request's way through its attempts: who may be next, what is left, and what a failure says of whom.
//!
//! An order of attempts is a decision's, and may be old by the time of a retry. So each candidate is looked
//! at again before it is tried, guard included. Where the snapshot has changed meanwhile, a new decision is
//! made; who was tried is remembered by id, whichever view it came from.

use std::sync::Arc;

use super::{Attempts, Live, Question};
use crate::{
    guard,
    health::Outcome,
    model::RegionId,
    planted::{self, Fault},
    snapshot::{Candidate, Level},
};

/// Connections that may fail before they cost attempts: nothing was sent, so trying the next is safe, but
/// each takes time.
pub const MAX_CONNECTS: usize = 8;

/// Of a request's soft failures, those that count against whom it failed on. One that fails on two
/// instances is itself to blame.
const BLAMED_ON_INSTANCES: usize = 2;

#[derive(Clone, Debug)]
pub struct Trail {
    attempts: usize,
    attempts_left: usize,
    /// Connections that failed and cost no attempt.
    free_connects: usize,
    soft_failures: usize,
    /// Who failed.
    tried: Vec<(Level, Arc<str>)>,
    /// Regions that cannot be tried any more; with a hop's, those before this one.
    regions_tried: Vec<RegionId>,
    /// The last attempt is for another region.
    is_reserved: bool,
}

impl Trail {
    pub fn new(attempts: usize, regions_tried: Vec<RegionId>) -> Self {
        Self {
            attempts: 0,
            attempts_left: attempts,
            free_connects: 0,
            soft_failures: 0,
            tried: Vec::new(),
            regions_tried,
            is_reserved: false,
        }
    }

    /// The next candidate of an order, as an index into the question's view; `cursor` is the place in the
    /// order, 0 at first. Passes over who was tried, is masked by now, or is forbidden by the guard. `None`
    /// where the order is over, or no attempt is left for this level.
    pub fn next(
        &self,
        order: &Attempts,
        cursor: &mut usize,
        question: &Question<'_>,
        live: impl Fn(u32) -> Live,
    ) -> Option<u32> {
        let is_over = match question.view.key.level {
            Level::Region => self.is_spent(),
            Level::Instance => self.is_over_here(),
        };
        if is_over {
            return None;
        }
        if planted::is(Fault::RetryOnTried) {
            *cursor = 0;
        }
        while let Some(index) = order.as_slice().get(*cursor).copied() {
            *cursor += 1;
            let candidate = question.view.candidates.get(index as usize)?;
            let is_out = live(index).masked && !question.panic;
            if !is_out && !self.was_tried(candidate) && self.is_allowed(question, candidate) {
                return Some(index);
            }
        }
        None
    }

    /// An attempt begins.
    pub fn begin(&mut self) {
        self.attempts += 1;
        self.attempts_left = self.attempts_left.saturating_sub(1);
    }

    /// The attempt ended; returns what of it is evidence about the candidate. One that failed is not tried
    /// again.
    pub fn ended(&mut self, candidate: &Candidate, outcome: Outcome) -> Option<Outcome> {
        if !outcome.is_failure() {
            return Some(outcome);
        }
        self.tried.push((candidate.level, candidate.id.clone()));
        if outcome == Outcome::Unreachable && self.free_connects < MAX_CONNECTS {
            self.free_connects += 1;
            self.attempts_left += 1;
        }
        if outcome.is_soft() {
            self.soft_failures += 1;
        }
        let counts = !outcome.is_soft() || self.soft_failures <= BLAMED_ON_INSTANCES;
        counts.then_some(outcome)
    }

    /// The attempt asked another region's router, which had no room and attempted nothing.
    pub fn give_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.attempts_left += 1;
    }

    /// The attempt was another region's, which made so many of its own.
    pub fn count_elsewhere(&mut self, attempts: usize) {
        let more = attempts.saturating_sub(1);
        self.attempts += more;
        self.attempts_left = self.attempts_left.saturating_sub(more);
    }

    /// The request cannot be sent again: its body is gone.
    pub fn give_up(&mut self) {
        self.attempts_left = 0;
    }

    /// Whether another region could still be tried, so that the last attempt is kept for it.
    pub fn reserve(&mut self, elsewhere: bool) {
        self.is_reserved = elsewhere;
    }

    /// A region that cannot be tried any more.
    pub fn region_tried(&mut self, region: RegionId) {
        if !self.regions_tried.contains(&region) {
            self.regions_tried.push(region);
        }
    }

    pub fn regions_tried(&self) -> &[RegionId] {
        &self.regions_tried
    }

    /// Attempts begun so far, those that could not connect included.
    pub fn attempts(&self) -> usize {
        self.attempts
    }

    pub fn attempts_left(&self) -> usize {
        self.attempts_left
    }

    pub fn is_spent(&self) -> bool {
        self.attempts_left == 0
    }

    /// Whether this region's instances have had their attempts. The first is theirs in any case.
    pub fn is_over_here(&self) -> bool {
        let kept = usize::from(self.is_reserved && self.attempts > 0);
        self.attempts_left <= kept
    }

    /// Whether it failed this request. Who did is nobody to decide for again: a new decision is told so by
    /// [`Live::masked`], or who is left may be crowded out of its order.
    pub fn was_tried(&self, candidate: &Candidate) -> bool {
        !planted::is(Fault::RetryOnTried)
            && self.tried.iter().any(|(level, id)| *level == candidate.level && *id == candidate.id)
    }

    fn is_allowed(&self, question: &Question<'_>, candidate: &Candidate) -> bool {
        let is_asked = self.attempts == 0 || !planted::is(Fault::GuardSkippedOnRetry);
        !is_asked || guard::check(&question.request.needs, question.rules, candidate).is_ok()
    }
}

#[cfg(test)]
mod tests;
