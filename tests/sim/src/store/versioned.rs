//! An item with its past, for readers that lag.

use std::collections::VecDeque;

/// Versions that are kept: at one report in two seconds more than any reader lags.
const VERSIONS: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Versioned<T> {
    /// With the time of each write, oldest first.
    versions: VecDeque<(u64, T)>,
}

impl<T> Default for Versioned<T> {
    fn default() -> Self {
        Self { versions: VecDeque::new() }
    }
}

impl<T> Versioned<T> {
    pub(super) fn write(&mut self, now_ms: u64, value: T) {
        if self.versions.len() == VERSIONS {
            self.versions.pop_front();
        }
        self.versions.push_back((now_ms, value));
    }

    /// As the writing region has it.
    pub(super) fn latest(&self) -> Option<&T> {
        self.versions.back().map(|(_, value)| value)
    }

    /// As a reader has it that knows what was written up to then. Of one whose past is not kept for so long,
    /// the oldest that is.
    pub(super) fn as_of(&self, at_ms: u64) -> Option<&T> {
        let seen = self.versions.iter().rev().find(|(written_ms, _)| *written_ms <= at_ms);
        let oldest = || self.versions.front().filter(|_| self.versions.len() == VERSIONS);
        seen.or_else(oldest).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_was_there_at_its_time() {
        let mut item = Versioned::default();
        item.write(10, 'a');
        item.write(20, 'b');
        let seen = [9, 10, 19, 20, 99].map(|at_ms| item.as_of(at_ms).copied());
        assert_eq!(seen, [None, Some('a'), Some('a'), Some('b'), Some('b')]);
        assert_eq!(item.latest(), Some(&'b'));
    }

    #[test]
    fn the_past_is_bounded() {
        let mut item = Versioned::default();
        (0..100u64).for_each(|n| item.write(n, n));
        assert_eq!(item.versions.len(), VERSIONS);
        assert_eq!(item.as_of(0), Some(&(100 - VERSIONS as u64)));
    }
}
