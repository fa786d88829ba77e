//! Durations counted in buckets, so that many writers' counts add up to one distribution.
//!
//! Percentiles cannot be averaged; bucket counts can be added. Every histogram has the same buckets, so any
//! two merge, in any order and grouping, into what one would be that had recorded it all.
//!
//! The buckets are log-linear over whole microseconds: below 16 µs one for each, above that 16 equal ones
//! in each octave from 2^e to 2^(e+1).
//!
//! ```text
//!  µs    0 1 2 … 15 │16 17 … 31│32 34 … 62│64 68 … 124│ … │2^35 … 2^36
//!  wide      1      │    1     │    2     │     4     │   │   2^31
//! ```
//!
//! A quantile is given as the middle of its bucket, which is at most [`RELATIVE_ERROR`] from the recorded
//! value, for half of a bucket is 2^(e-5) where the value is 2^e or more. Above [`MAX_MS`] values are
//! counted in the last bucket; sum, least and largest stay exact.
//!
//! Only the buckets in use are kept and serialised: `{"buckets": [index, count, index, count, …], …}`.
//! `hdrhistogram` has the same idea of buckets, but keeps all of them, tens of KB for this range, and its
//! compact form is compressed binary, which neither an item nor a person can read.

mod recorder;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use recorder::Recorder;

/// How far a quantile is from the recorded value, as a share of that value; half a microsecond comes on
/// top, since values are rounded to whole ones.
pub const RELATIVE_ERROR: f64 = 1.0 / 32.0;
/// About 19 hours. What is longer is counted in the last bucket.
pub const MAX_MS: f64 = (1_u64 << MAX_EXPONENT) as f64 / MICROSECONDS_PER_MS;
/// Buckets that a histogram can have at most.
pub const MAX_BUCKETS: usize = (MAX_EXPONENT - SUB_BUCKET_BITS + 1) as usize * SUB_BUCKETS as usize;

const SUB_BUCKET_BITS: u32 = 4;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKET_BITS;
const MAX_EXPONENT: u32 = 36;
const MICROSECONDS_PER_MS: f64 = 1_000.0;

/// A distribution of durations. Counts and the sum stop at `u64::MAX` rather than overflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Histogram {
    /// How many values each bucket in use has, by its index.
    buckets: BTreeMap<u16, u64>,
    sum_us: u64,
    /// Meaningful where there are buckets only, as `max_us`.
    min_us: u64,
    max_us: u64,
}

impl Histogram {
    /// Counts a duration. What is no duration (negative, infinite, not a number) is left out: `false`.
    pub fn record(&mut self, ms: f64) -> bool {
        if !(ms.is_finite() && ms >= 0.0) {
            return false;
        }
        // Saturates, by the rules of the cast.
        let us = (ms * MICROSECONDS_PER_MS).round() as u64;
        let one =
            Self { buckets: BTreeMap::from([(index(us), 1)]), sum_us: us, min_us: us, max_us: us };
        self.merge(&one);
        true
    }

    /// Adds all that the other has.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        for (&index, &count) in &other.buckets {
            let sum = self.buckets.entry(index).or_default();
            *sum = sum.saturating_add(count);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.min_us = self.min_us.min(other.min_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Exact, to the microsecond that each value was rounded to.
    pub fn sum_ms(&self) -> f64 {
        in_ms(self.sum_us)
    }

    /// `None` where nothing was recorded.
    pub fn mean_ms(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum_ms() / self.count() as f64)
    }

    pub fn min_ms(&self) -> Option<f64> {
        (!self.is_empty()).then(|| in_ms(self.min_us))
    }

    pub fn max_ms(&self) -> Option<f64> {
        (!self.is_empty()).then(|| in_ms(self.max_us))
    }

    /// The value that a share `q`, 0 to 1, of all values does not exceed, by the nearest-rank method:
    /// the one at rank `ceil(q · count)` of the sorted values. `None` where nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = ((q.clamp(0.0, 1.0) * self.count() as f64).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let reached = self.buckets.iter().find(|(_, count)| {
            seen = seen.saturating_add(**count);
            seen >= rank
        });
        // A rank that rounding put beyond the last value is the last value's.
        let (&index, _) = reached.or_else(|| self.buckets.last_key_value())?;
        let (from, width) = bounds(index);
        let middle = from + (width - 1) / 2;
        Some(in_ms(middle.max(self.min_us).min(self.max_us)))
    }

    /// How many buckets are in use, which is what its serialised size depends on.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Its first `n` buckets in use, and the others: two histograms that merge into this one. The sum
    /// goes with the first, unless that is empty, so neither tells the truth alone.
    pub fn split(&self, n: usize) -> (Self, Self) {
        let mut buckets = self.buckets.iter().map(|(&index, &count)| (index, count));
        let part = |buckets: BTreeMap<u16, u64>, sum_us| match buckets.is_empty() {
            true => Self::default(),
            false => Self { buckets, sum_us, ..*self },
        };
        let first = part(buckets.by_ref().take(n).collect(), self.sum_us);
        let rest_of_sum = if first.is_empty() { self.sum_us } else { 0 };
        let rest = part(buckets.collect(), rest_of_sum);
        (first, rest)
    }
}

fn in_ms(us: u64) -> f64 {
    us as f64 / MICROSECONDS_PER_MS
}

/// The bucket of a value.
fn index(us: u64) -> u16 {
    let us = us.min((1 << MAX_EXPONENT) - 1);
    if us < SUB_BUCKETS {
        return us as u16;
    }
    let exponent = us.ilog2();
    let octave = u64::from(exponent - SUB_BUCKET_BITS + 1);
    let sub_bucket = (us >> (exponent - SUB_BUCKET_BITS)) - SUB_BUCKETS;
    // At most MAX_BUCKETS - 1, for the value was limited.
    (octave * SUB_BUCKETS + sub_bucket) as u16
}

/// The least value of a bucket, and how many values it has.
fn bounds(index: u16) -> (u64, u64) {
    let (octave, sub_bucket) = (u64::from(index) / SUB_BUCKETS, u64::from(index) % SUB_BUCKETS);
    match octave {
        0 => (sub_bucket, 1),
        _ => ((SUB_BUCKETS + sub_bucket) << (octave - 1), 1 << (octave - 1)),
    }
}

/// Its serialised form.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// Index and count by turns, by index.
    buckets: Vec<u64>,
    #[serde(default)]
    sum_us: u64,
    #[serde(default)]
    min_us: u64,
    #[serde(default)]
    max_us: u64,
}

impl From<Histogram> for Stored {
    fn from(histogram: Histogram) -> Self {
        let Histogram { buckets, sum_us, min_us, max_us } = histogram;
        let buckets = buckets.into_iter().flat_map(|(index, count)| [u64::from(index), count]);
        Self { buckets: buckets.collect(), sum_us, min_us, max_us }
    }
}

/// Why stored buckets are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistogram {
    #[error("a histogram's buckets are pairs of index and count, but there are {0} numbers")]
    OddLength(usize),
    #[error(
        "a histogram's bucket has index {0}; it must be above the one before it and below {MAX_BUCKETS}"
    )]
    Index(u64),
    #[error("a histogram's bucket {0} counts nothing; leave it out")]
    Empty(u64),
    #[error("a histogram's least value, {min_us} µs, is above its largest, {max_us} µs")]
    Range { min_us: u64, max_us: u64 },
}

impl TryFrom<Stored> for Histogram {
    type Error = InvalidHistogram;

    fn try_from(stored: Stored) -> Result<Self, InvalidHistogram> {
        let Stored { buckets: numbers, sum_us, min_us, max_us } = stored;
        let (pairs, odd) = numbers.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(InvalidHistogram::OddLength(numbers.len()));
        }
        if min_us > max_us {
            return Err(InvalidHistogram::Range { min_us, max_us });
        }
        let mut buckets = BTreeMap::new();
        for &[number, count] in pairs {
            let index = u16::try_from(number).map_err(|_| InvalidHistogram::Index(number))?;
            let ascends = buckets.last_key_value().is_none_or(|(last, _)| *last < index);
            if usize::from(index) >= MAX_BUCKETS || !ascends {
                return Err(InvalidHistogram::Index(number));
            }
            if count == 0 {
                return Err(InvalidHistogram::Empty(number));
            }
            buckets.insert(index, count);
        }
        if buckets.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self { buckets, sum_us, min_us, max_us })
    }
}

#[cfg(test)]
mod tests;
