//! An average out of counters that only grow: Δsum ÷ Δcount over a window of scrapes.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// Scrapes kept for one window; they are spread over it, however often one is made.
const MARKS: usize = 32;

/// A sum and a count, both of which only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) sum: f64,
    pub(super) count: f64,
}

impl Counters {
    fn fell_from(&self, before: &Self) -> bool {
        self.count < before.count || self.sum < before.sum
    }

    fn grow(&mut self, from: Self, to: Self) {
        self.sum += to.sum - from.sum;
        self.count += to.count - from.count;
    }
}

/// The average over many series, each of which may begin again: replicas restart one by one.
#[derive(Debug)]
pub(super) struct Latency {
    window: Duration,
    /// Of the last scrape, by series.
    last: HashMap<u64, Counters>,
    /// All that was seen of all series, restarts left out.
    total: Counters,
    average: Average,
}

impl Latency {
    pub(super) fn over(window: Duration) -> Self {
        let average = Average::over(window);
        Self { window, last: HashMap::new(), total: Counters::default(), average }
    }

    /// Takes a scrape and gives the average over the window, as [`Average::add`] does.
    ///
    /// A series that fell began again, and what it says now has happened since. Where all fell, or are gone, it
    /// is another server, about which nothing is known from before.
    pub(super) fn add(&mut self, at: Duration, now: HashMap<u64, Counters>) -> Option<f64> {
        let ended = |key: &u64, last: &Counters| now.get(key).is_none_or(|now| now.fell_from(last));
        let mut used = self.last.iter().filter(|(_, last)| last.count > 0.0).peekable();
        if used.peek().is_some() && used.all(|(key, last)| ended(key, last)) {
            *self = Self::over(self.window);
        }
        for (key, now) in &now {
            let last = self.last.get(key).copied().unwrap_or_default();
            let from = if now.fell_from(&last) { Counters::default() } else { last };
            self.total.grow(from, *now);
        }
        self.last = now;
        self.average.add(at, self.total)
    }
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    counters: Counters,
}

/// A sliding average. In its own unit: sums in seconds give an average in seconds.
#[derive(Debug)]
struct Average {
    window: Duration,
    marks: VecDeque<Mark>,
    known: Option<f64>,
}

impl Average {
    fn over(window: Duration) -> Self {
        Self { window, marks: VecDeque::new(), known: None }
    }

    /// Takes a scrape and gives the average over the window.
    ///
    /// The first scrape gives that over the server's life. Where nothing finished within the window,
    /// the last known average stays; where nothing ever did, there is none.
    fn add(&mut self, at: Duration, counters: Counters) -> Option<f64> {
        // The oldest mark is the last one from before the window, so that the window is always covered.
        while self.marks.get(1).is_some_and(|next| at.saturating_sub(next.at) >= self.window) {
            self.marks.pop_front();
        }
        let base = self.marks.front().map(|mark| mark.counters).unwrap_or_default();
        let finished = counters.count - base.count;
        if finished > 0.0 {
            self.known = Some((counters.sum - base.sum) / finished).filter(|a| a.is_finite());
        }
        let step = self.window / MARKS as u32;
        if self.marks.back().is_none_or(|last| at.saturating_sub(last.at) >= step) {
            self.marks.push_back(Mark { at, counters });
        }
        self.known
    }
}

#[cfg(test)]
mod tests;
