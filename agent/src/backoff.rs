//! Waits between attempts: full jitter, so that a fleet that failed together does not return together.

use std::time::Duration;

/// Exponential waits with full jitter: anywhere between nothing and `base · 2^attempt`, at most `cap`.
///
/// As in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), where full jitter makes the fewest calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
}

impl Backoff {
    /// The wait after `failures` in a row. `random` is uniform over 0 to 1.
    pub(crate) fn wait(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        self.base.saturating_mul(1 << doublings).min(self.cap).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_spread() {
        let backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(10) };
        for (failures, random, expected_ms) in [
            (1, 1.0, 500),
            (1, 0.5, 250),
            (1, 0.0, 0),
            (2, 1.0, 1_000),
            (5, 1.0, 8_000),
            (6, 1.0, 10_000),
            (u32::MAX, 1.0, 10_000),
            (0, 1.0, 500),
        ] {
            let wait = backoff.wait(failures, random).as_millis();
            assert_eq!(wait, expected_ms, "after {failures} failures, random {random}");
        }
    }
}
