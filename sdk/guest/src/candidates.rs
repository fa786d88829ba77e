//! The candidates of one decision: a view's facts, joined with the router's live counts.

use std::ops::Deref;

use crate::{Facts, Loads};

/// One candidate. Dereferences to its [`Facts`].
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub facts: &'a Facts,
    /// Requests this router has sent there that have not ended.
    pub in_flight: u32,
    /// Tokens of those requests, prompt and answer, estimated.
    pub in_flight_tokens: u64,
}

impl Deref for Candidate<'_> {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        self.facts
    }
}

/// The candidates of one decision, in the order in which their scores are expected.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    facts: &'a [Facts],
    /// Indices into `facts`; empty for all of them.
    picks: &'a [u32],
    loads: &'a Loads,
}

impl<'a> Candidates<'a> {
    pub fn new(facts: &'a [Facts], picks: &'a [u32], loads: &'a Loads) -> Self {
        Self { facts, picks, loads }
    }

    pub fn len(&self) -> usize {
        if self.picks.is_empty() { self.facts.len() } else { self.picks.len() }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The candidate at a position of this decision.
    pub fn get(&self, position: usize) -> Option<Candidate<'a>> {
        (position < self.len()).then(|| self.at(position))
    }

    /// Knows its length, so that what is collected from it is allocated once.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Candidate<'a>> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |position| this.at(position))
    }

    /// # Panics
    ///
    /// There is no such position, or the host picked a candidate that the view does not have: its error,
    /// and a trap tells it so.
    #[inline]
    fn at(&self, position: usize) -> Candidate<'a> {
        let index = match self.picks {
            [] => position,
            picks => picks[position] as usize,
        };
        Candidate {
            facts: &self.facts[index],
            in_flight: self.loads.in_flight.get(position).copied().unwrap_or(0),
            in_flight_tokens: self.loads.in_flight_tokens.get(position).copied().unwrap_or(0),
        }
    }
}
