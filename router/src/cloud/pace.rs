//! When to look at EC2's status of the instances, and how long what was seen counts.

/// How many intervals a look counts for.
const WORD_COUNTS_FOR: u64 = 3;

#[derive(Debug)]
pub(super) struct Pace {
    interval_ms: u64,
    due_ms: u64,
    is_under_way: bool,
    /// When the last look succeeded; `None` once that has expired.
    heard_ms: Option<u64>,
    /// Since when this router has held the lease.
    held_ms: Option<u64>,
    is_settled: bool,
}

impl Pace {
    pub fn new(interval_ms: u64) -> Self {
        Self {
            interval_ms,
            due_ms: 0,
            is_under_way: false,
            heard_ms: None,
            held_ms: None,
            is_settled: false,
        }
    }

    pub fn starts(&mut self, is_holder: bool, now_ms: u64) -> bool {
        if !is_holder {
            (self.held_ms, self.is_settled, self.due_ms) = (None, false, now_ms);
            return false;
        }
        let held_ms = *self.held_ms.get_or_insert(now_ms);
        self.is_settled |= now_ms >= held_ms + self.counts_for_ms();
        let starts = !self.is_under_way && now_ms >= self.due_ms;
        if starts {
            (self.is_under_way, self.due_ms) = (true, now_ms + self.interval_ms);
        }
        starts
    }

    pub fn ended(&mut self, succeeded: bool, now_ms: u64) {
        self.is_under_way = false;
        if succeeded {
            (self.heard_ms, self.is_settled) = (Some(now_ms), true);
        }
    }

    pub fn expires(&mut self, now_ms: u64) -> bool {
        let counts_for_ms = self.counts_for_ms();
        let expires = self.heard_ms.is_some_and(|heard_ms| now_ms >= heard_ms + counts_for_ms);
        if expires {
            self.heard_ms = None;
        }
        expires
    }

    pub fn is_held(&self) -> bool {
        self.held_ms.is_some()
    }

    /// Whether what EC2 says counts by now: it has answered since this router took the lease, or has failed
    /// to for as long as what it told the holder before counts.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    fn counts_for_ms(&self) -> u64 {
        WORD_COUNTS_FOR * self.interval_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_looks_at_once_and_then_every_interval() {
        let mut pace = Pace::new(1_000);
        assert!(!pace.starts(false, 5_000) && !pace.is_settled());
        assert!(pace.starts(true, 5_010));
        assert!(!pace.starts(true, 9_000), "one is under way");
        pace.ended(false, 9_010);
        assert!(pace.starts(true, 9_010));
        pace.ended(true, 9_020);
        assert!(!pace.starts(true, 10_009));
        assert!(pace.starts(true, 10_010));
        assert!(!pace.starts(false, 10_020) && !pace.is_settled(), "the lease is gone");
        pace.ended(true, 10_030);
        assert!(pace.starts(true, 10_040), "the next holder's first look does not wait");
    }

    #[test]
    fn a_new_holder_goes_by_an_answer_or_by_none_for_three_intervals() {
        let mut pace = Pace::new(1_000);
        assert!(pace.starts(true, 5_000));
        pace.ended(false, 5_010);
        assert!(pace.starts(true, 7_999) && !pace.is_settled(), "EC2 has said nothing yet");
        assert!(!pace.starts(true, 8_000) && pace.is_settled());

        let mut pace = Pace::new(1_000);
        assert!(pace.starts(true, 5_000) && !pace.is_settled());
        pace.ended(true, 5_010);
        assert!(pace.is_settled());
    }

    #[test]
    fn a_word_expires_once_after_three_intervals() {
        let mut pace = Pace::new(1_000);
        assert!(!pace.expires(u64::MAX), "nothing was said");
        pace.ended(true, 500);
        pace.ended(false, 1_500);
        assert!(!pace.expires(3_499));
        assert!(pace.expires(3_500) && !pace.expires(9_000));
        pace.ended(true, 10_000);
        assert!(!pace.expires(12_999) && pace.expires(13_000));
    }
}
