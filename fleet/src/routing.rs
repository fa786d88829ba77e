//! One decision: eligibility → scores → weighted sum → pick → ordered attempts.
//!
//! The policies' scores come from a function the caller passes in, so this module knows nothing of
//! WASM, and a replay or a simulation decides exactly as the router does.

mod pick;
mod trail;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    guard::{self, PlacementRule},
    model::{Health, Request},
    snapshot::{Candidate, View},
};

pub use pick::Picker;
pub(crate) use pick::chance;
pub use trail::{MAX_CONNECTS, Trail};

/// Attempts one request may make, over all hops, at most.
pub const MAX_ATTEMPTS: usize = 8;

/// The router's own counts of a candidate, fresher than any snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Live {
    pub in_flight: u32,
    pub in_flight_tokens: u64,
    /// Out by the router's own evidence: ejected, or tried out by as many requests as may be.
    pub masked: bool,
    /// Of the decisions that it could be part of, those that it is: 1 but for one that came back a moment
    /// ago.
    pub share: f32,
}

impl Default for Live {
    fn default() -> Self {
        Self { in_flight: 0, in_flight_tokens: 0, masked: false, share: 1.0 }
    }
}

/// Counts that run parallel to the picks of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Loads<'a> {
    pub in_flight: &'a [u32],
    pub in_flight_tokens: &'a [u64],
}

/// A policy's place in a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    pub weight: f32,
    /// Without its answer the request is refused rather than scored natively.
    pub required: bool,
}

/// What is to be decided.
#[derive(Debug)]
pub struct Question<'a> {
    pub view: &'a View,
    pub request: &'a Request,
    pub rules: &'a [PlacementRule],
    pub weights: &'a [Weight],
    pub picker: Picker,
    /// The only randomness of a decision.
    pub seed: u64,
    /// Attempts wanted, up to [`MAX_ATTEMPTS`].
    pub attempts: usize,
    /// Nobody is eligible, so that evidence is set aside: candidates that are masked or a last resort are
    /// taken, too. What an instance says of itself, what is wanted of it and the guard stand.
    pub panic: bool,
}

/// Why no candidate takes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NoRoute {
    #[error("no candidate is available")]
    NoneReady,
    #[error("no candidate that the request may use serves its model")]
    NoneServes,
    #[error("no available candidate satisfies the request's needs")]
    NonePermitted,
    #[error("the policies ruled out every candidate")]
    RuledOut,
    #[error("a required policy did not answer")]
    RequiredPolicy { policy: usize },
}

/// Buffers of a decision, kept from one to the next so that deciding does not allocate.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The eligible candidates' indices; empty where all of the view are.
    picks: Vec<u32>,
    in_flight: Vec<u32>,
    in_flight_tokens: Vec<u64>,
    /// Weighted sums, parallel to the picks; negative where ruled out.
    totals: Vec<f32>,
    /// Positions among the picks of those whose share this decision is not part of.
    waiting: Vec<u32>,
}

/// The candidates to try, best first, as indices into the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    order: [u32; MAX_ATTEMPTS],
    len: usize,
}

impl Attempts {
    /// One candidate, where there is nothing to decide.
    pub fn only(candidate: u32) -> Self {
        let mut order = [0; MAX_ATTEMPTS];
        order[0] = candidate;
        Self { order, len: 1 }
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.order[..self.len]
    }
}

impl FromIterator<u32> for Attempts {
    /// The first [`MAX_ATTEMPTS`] of them.
    fn from_iter<I: IntoIterator<Item = u32>>(candidates: I) -> Self {
        let mut attempts = Self::default();
        for (place, candidate) in attempts.order.iter_mut().zip(candidates) {
            *place = candidate;
            attempts.len += 1;
        }
        attempts
    }
}

/// Decides. `live` gives the counts of a candidate; `score` asks the policy at an index of the weights
/// for one score for each pick, or says that it faulted, and is then answered for by [`native_score`].
///
/// # Errors
///
/// Why there is nowhere to go.
pub fn decide<S: AsRef<[f32]>>(
    scratch: &mut Scratch,
    question: &Question<'_>,
    live: impl Fn(u32) -> Live,
    mut score: impl FnMut(usize, &[u32], Loads<'_>) -> Option<S>,
) -> Result<Attempts, NoRoute> {
    scratch.keep_eligible(question, live)?;
    scratch.totals.resize(scratch.in_flight.len(), 0.0);
    let sum: f32 = question.weights.iter().map(|w| w.weight).sum();
    for (policy, weight) in question.weights.iter().enumerate() {
        let share = if sum > 0.0 { weight.weight / sum } else { 0.0 };
        match score(policy, &scratch.picks, scratch.loads()) {
            Some(points) => scratch.add(share, points.as_ref().iter().copied()),
            None if weight.required => return Err(NoRoute::RequiredPolicy { policy }),
            None => scratch.add_native(question.view, share),
        }
    }
    if question.weights.is_empty() {
        scratch.add_native(question.view, 1.0);
    }
    let order = pick::order(question.picker, &scratch.totals, question.seed, question.attempts);
    if order.as_slice().is_empty() {
        return Err(NoRoute::RuledOut);
    }
    Ok(scratch.to_view(order))
}

impl Scratch {
    /// The eligible candidates of the last decision; empty where all of the view were.
    pub fn picks(&self) -> &[u32] {
        &self.picks
    }

    /// The weighted sums of the last decision, parallel to its picks; negative where ruled out.
    pub fn totals(&self) -> &[f32] {
        &self.totals
    }

    pub fn loads(&self) -> Loads<'_> {
        Loads { in_flight: &self.in_flight, in_flight_tokens: &self.in_flight_tokens }
    }

    fn keep_eligible(
        &mut self,
        question: &Question<'_>,
        live: impl Fn(u32) -> Live,
    ) -> Result<(), NoRoute> {
        self.picks.clear();
        self.in_flight.clear();
        self.in_flight_tokens.clear();
        self.totals.clear();
        self.waiting.clear();
        let mut failure = NoRoute::NoneReady;
        let mut serving = Serving::default();
        for (index, candidate) in (0u32..).zip(&question.view.candidates) {
            let live = live(index);
            match eligible(question, candidate, live, &mut serving) {
                Ok(()) => {
                    if live.share < 1.0 && !pick::is_within(live.share, question.seed, index) {
                        self.waiting.push(self.picks.len() as u32);
                    }
                    self.picks.push(index);
                    self.in_flight.push(live.in_flight);
                    self.in_flight_tokens.push(live.in_flight_tokens);
                }
                // The failure of the candidate that came nearest to being taken.
                Err(reason) if rank(&reason) > rank(&failure) => failure = reason,
                Err(_) => {}
            }
        }
        if self.picks.is_empty() {
            return Err(failure);
        }
        // Where there is nobody else, they take it all.
        if !self.waiting.is_empty() && self.waiting.len() < self.picks.len() {
            self.leave_out_waiting();
        }
        if self.picks.len() == question.view.candidates.len() {
            self.picks.clear();
        }
        Ok(())
    }

    fn leave_out_waiting(&mut self) {
        let mut waiting = self.waiting.iter().map(|position| *position as usize).peekable();
        let mut kept = 0;
        for position in 0..self.picks.len() {
            if waiting.next_if_eq(&position).is_some() {
                continue;
            }
            self.picks[kept] = self.picks[position];
            self.in_flight[kept] = self.in_flight[position];
            self.in_flight_tokens[kept] = self.in_flight_tokens[position];
            kept += 1;
        }
        self.picks.truncate(kept);
        self.in_flight.truncate(kept);
        self.in_flight_tokens.truncate(kept);
    }

    fn add(&mut self, share: f32, points: impl Iterator<Item = f32>) {
        for (total, points) in self.totals.iter_mut().zip(points) {
            // Ruled out once is ruled out.
            *total = if points < 0.0 || *total < 0.0 { -1.0 } else { *total + share * points };
        }
    }

    fn add_native(&mut self, view: &View, share: f32) {
        for (position, total) in self.totals.iter_mut().enumerate() {
            let index = self.picks.get(position).map_or(position, |pick| *pick as usize);
            if *total >= 0.0 {
                *total += share * native_score(&view.candidates[index], self.in_flight[position]);
            }
        }
    }

    /// From positions among the picks to indices into the view.
    fn to_view(&self, mut order: Attempts) -> Attempts {
        if !self.picks.is_empty() {
            for position in &mut order.order[..order.len] {
                *position = self.picks[*position as usize];
            }
        }
        order
    }
}

fn eligible<'a>(
    question: &Question<'_>,
    candidate: &'a Candidate,
    live: Live,
    serving: &mut Serving<'a>,
) -> Result<(), NoRoute> {
    let is_in = match question.panic {
        false => candidate.ready && !live.masked,
        true => candidate.ready || candidate.last_resort,
    };
    if !is_in {
        return Err(NoRoute::NoneReady);
    }
    if let Some(model) = &question.request.model
        && !serving.serves(&candidate.models, model)
    {
        return Err(NoRoute::NoneServes);
    }
    guard::check(&question.request.needs, question.rules, candidate)
        .map_err(|_| NoRoute::NonePermitted)
}

/// What was found in the last list of models: most candidates of a view share one.
#[derive(Default)]
struct Serving<'a>(Option<(&'a Arc<[String]>, bool)>);

impl<'a> Serving<'a> {
    fn serves(&mut self, models: &'a Arc<[String]>, model: &String) -> bool {
        if let Some((known, serves)) = self.0
            && Arc::ptr_eq(known, models)
        {
            return serves;
        }
        // An instance whose models nobody could ask for is taken at its pool's word.
        let serves = models.is_empty() || models.contains(model);
        self.0 = Some((models, serves));
        serves
    }
}

fn rank(reason: &NoRoute) -> u8 {
    match reason {
        NoRoute::NoneReady => 0,
        NoRoute::NoneServes => 1,
        _ => 2,
    }
}

/// The routing score, 0 to 100: half by the queue, 0.30 by latency, 0.20 by health.
pub fn routing_score(queue_depth: f64, latency_ms: f64, health: Health) -> f64 {
    let queue = on_scale(100.0 - queue_depth * 10.0);
    let latency = on_scale(100.0 - latency_ms / 10.0);
    0.50 * queue + 0.30 * latency + 0.20 * health.score()
}

/// From 0 to 100, whatever an instance reported: what is no number earns nothing.
fn on_scale(points: f64) -> f64 {
    if points > 0.0 { points.min(100.0) } else { 0.0 }
}

/// What answers for a policy that faulted: the routing score, with the router's own counts where no
/// queue was reported, and a latency of half its scale where none was measured. Who is unhealthy earns
/// nothing, however short its queue: it is tried last.
pub fn native_score(candidate: &Candidate, in_flight: u32) -> f32 {
    if candidate.health == Health::Unhealthy {
        return 0.0;
    }
    let queue = candidate.queue_depth.unwrap_or(f64::from(in_flight));
    let latency_ms = candidate.avg_latency_ms.unwrap_or(500.0);
    routing_score(queue, latency_ms, candidate.health) as f32
}

#[cfg(test)]
mod tests;
