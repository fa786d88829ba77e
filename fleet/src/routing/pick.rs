//! From scores to the order of attempts.

use serde::{Deserialize, Serialize};

use super::{Attempts, MAX_ATTEMPTS};

/// Who goes first. Those after it, for retries, are always the best of the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Picker {
    /// The highest score; ties at random.
    #[default]
    Best,
    /// The better of two at random: many routers with the same picture do not all pick the same.
    PowerOfTwo,
    /// At random by score among those within five points of the best.
    NearBest,
}

/// How far from the best `NearBest` looks, in points.
const NEAR_POINTS: f32 = 5.0;

/// The positions of the best `wanted` totals, in the order to try them. Negative totals are out.
pub(super) fn order(picker: Picker, totals: &[f32], seed: u64, wanted: usize) -> Attempts {
    let mut top = best(totals, seed, wanted.min(MAX_ATTEMPTS));
    if top.as_slice().is_empty() {
        return top;
    }
    let first = match picker {
        Picker::Best => None,
        Picker::PowerOfTwo => better_of_two(totals, seed),
        Picker::NearBest => near_best(totals, seed, &top),
    };
    if let Some(first) = first {
        top.move_to_front(first);
    }
    top
}

/// The highest totals, best first, ties by chance.
fn best(totals: &[f32], seed: u64, wanted: usize) -> Attempts {
    let mut top = Attempts::default();
    if wanted == 0 {
        return top;
    }
    // Of each of the top, its total and its chance.
    let mut ranks = [(0.0, 0); MAX_ATTEMPTS];
    for (position, total) in (0u32..).zip(totals) {
        let is_full = top.len == wanted;
        if *total < 0.0 || (is_full && *total < ranks[wanted - 1].0) {
            continue;
        }
        let rank = (*total, chance(seed, position));
        if is_full && rank <= ranks[wanted - 1] {
            continue;
        }
        let at = ranks[..top.len].iter().position(|other| rank > *other).unwrap_or(top.len);
        ranks.copy_within(at..top.len.min(wanted - 1), at + 1);
        ranks[at] = rank;
        top.insert(at, position, wanted);
    }
    top
}

fn better_of_two(totals: &[f32], seed: u64) -> Option<u32> {
    let open = |total: &f32| *total >= 0.0;
    let count = totals.iter().filter(|total| open(total)).count() as u64;
    if count < 2 {
        return None;
    }
    let one = chance(seed, 0) % count;
    let other = (one + 1 + chance(seed, 1) % (count - 1)) % count;
    let nth = |n: u64| (0u32..).zip(totals).filter(|(_, total)| open(total)).nth(n as usize);
    let (one, other) = (nth(one)?, nth(other)?);
    Some(if one.1 >= other.1 { one.0 } else { other.0 })
}

fn near_best(totals: &[f32], seed: u64, top: &Attempts) -> Option<u32> {
    let least = (totals[*top.as_slice().first()? as usize] - NEAR_POINTS).max(0.0);
    let near = || (0u32..).zip(totals).filter(move |(_, total)| **total >= least);
    // One more than the score, so that candidates at 0 can be picked, too.
    let sum: f64 = near().map(|(_, total)| f64::from(*total) + 1.0).sum();
    let mut left = sum * (chance(seed, 0) >> 11) as f64 / (1u64 << 53) as f64;
    for (position, total) in near() {
        left -= f64::from(*total) + 1.0;
        if left < 0.0 {
            return Some(position);
        }
    }
    None
}

/// Whether a candidate with a share of its decisions has part in this one. Drawn apart from all else that
/// the seed decides.
pub(super) fn is_within(share: f32, seed: u64, candidate: u32) -> bool {
    let draw = chance(!seed, candidate) >> 40;
    (draw as f32) < share * (1u32 << 24) as f32
}

/// One of a seed's random numbers (SplitMix64's finaliser).
pub(crate) fn chance(seed: u64, n: u32) -> u64 {
    let mut z = seed.wrapping_add((u64::from(n) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Attempts {
    /// Inserts, dropping what falls off the end of `most`.
    fn insert(&mut self, at: usize, candidate: u32, most: usize) {
        let last = self.len.min(most - 1);
        self.order.copy_within(at..last, at + 1);
        self.order[at] = candidate;
        self.len = last + 1;
    }

    fn move_to_front(&mut self, candidate: u32) {
        match self.as_slice().iter().position(|other| *other == candidate) {
            Some(at) => self.order[..=at].rotate_right(1),
            None => {
                self.order[..self.len].rotate_right(1);
                self.order[0] = candidate;
            }
        }
    }
}

#[cfg(test)]
mod tests;
