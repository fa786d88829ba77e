//! An average out of two counters that only grow: Δsum ÷ Δcount over a window of scrapes.

use std::{collections::VecDeque, time::Duration};

/// Scrapes kept for one window; they are spread over it, however often one is made.
const MARKS: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Duration,
    sum: f64,
    count: f64,
}

/// A sliding average. In its own unit: sums in seconds give an average in seconds.
#[derive(Debug)]
pub(super) struct Average {
    window: Duration,
    marks: VecDeque<Mark>,
    known: Option<f64>,
}

impl Average {
    pub(super) fn over(window: Duration) -> Self {
        Self { window, marks: VecDeque::new(), known: None }
    }

    /// Takes a scrape and gives the average over the window.
    ///
    /// The first scrape gives that over the server's life. Where nothing finished within the window,
    /// the last known average stays; where nothing ever did, there is none. A counter that fell
    /// belongs to a new server, which starts again.
    pub(super) fn add(&mut self, at: Duration, sum: f64, count: f64) -> Option<f64> {
        let mark = Mark { at, sum, count };
        if self.marks.back().is_some_and(|last| count < last.count || sum < last.sum) {
            self.marks.clear();
            self.known = None;
        }
        // The oldest mark is the last one from before the window, so that the window is always covered.
        while self.marks.get(1).is_some_and(|next| at.saturating_sub(next.at) >= self.window) {
            self.marks.pop_front();
        }
        let base = self.marks.front().copied().unwrap_or(Mark { at, sum: 0.0, count: 0.0 });
        let finished = count - base.count;
        if finished > 0.0 {
            self.known = Some((sum - base.sum) / finished);
        }
        let step = self.window / MARKS as u32;
        if self.marks.back().is_none_or(|last| at.saturating_sub(last.at) >= step) {
            self.marks.push_back(mark);
        }
        self.known
    }
}

#[cfg(test)]
mod tests;
