//! What was measured and is not stored yet. Bounded: what does not fit is dropped and counted.
//!
//! ```text
//!  sample ─► open: a minute of a pool, still growing ── sealed ─► items, never changed ── written ─► gone
//! ```

use std::collections::{BTreeMap, VecDeque};

use mrgc_fleet::model::{Measured, PoolId, Sample, Timestamp};

use crate::{
    clock::MINUTE_MS,
    item::{self, Item},
};

/// Minutes of pools that grow at the same time: a few minutes of a hundred pools.
const MAX_OPEN: usize = 1_024;
/// Items that wait to be written, of 4 KB at most: what an outage of the store may pile up.
const MAX_SEALED: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By the minute's start.
    open: BTreeMap<(Timestamp, PoolId), Measured>,
    sealed: VecDeque<Item>,
    /// Of the next item.
    pub(super) number: u64,
    pub(super) rejected_samples: u64,
    pub(super) dropped_samples: u64,
    pub(super) dropped_items: u64,
}

impl Pending {
    pub(super) fn record(&mut self, at: Timestamp, pool: &PoolId, sample: &Sample<'_>) {
        let key = (Timestamp(at.0 - at.0 % MINUTE_MS), pool.clone());
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&key) {
            self.dropped_samples += 1;
            return;
        }
        let minute = self.open.entry(key.clone()).or_default();
        if !minute.record(sample) {
            self.rejected_samples += 1;
            if *minute == Measured::default() {
                self.open.remove(&key);
            }
        }
    }

    /// Adds what was gathered elsewhere; of a pool that finds no room, it is one dropped sample.
    pub(super) fn merge(&mut self, at: Timestamp, pool: &PoolId, measured: &Measured) {
        let key = (Timestamp(at.0 - at.0 % MINUTE_MS), pool.clone());
        if *measured == Measured::default() {
            return;
        }
        if self.open.len() >= MAX_OPEN && !self.open.contains_key(&key) {
            self.dropped_samples += 1;
            return;
        }
        self.open.entry(key).or_default().merge(measured);
    }

    /// Takes out the minutes that began before `end`.
    pub(super) fn take_before(&mut self, end: Timestamp) -> Vec<(Timestamp, PoolId, Measured)> {
        let later = self.open.split_off(&(end, PoolId::from("")));
        let before = std::mem::replace(&mut self.open, later);
        before.into_iter().map(|((minute, pool), measured)| (minute, pool, measured)).collect()
    }

    /// Keeps items to be written; above the bound the oldest go.
    pub(super) fn seal(&mut self, items: Vec<Item>) {
        self.sealed.extend(items);
        let excess = self.sealed.len().saturating_sub(MAX_SEALED);
        self.sealed.drain(..excess);
        self.dropped_items += excess as u64;
    }

    pub(super) fn sealed(&self) -> Vec<Item> {
        self.sealed.iter().cloned().collect()
    }

    /// Forgets an item that was written, or that can never be.
    pub(super) fn forget(&mut self, written: &Item) {
        let key = item::key_of(written);
        self.sealed.retain(|item| item::key_of(item) != key);
    }

    /// Minutes and items that are not stored yet.
    pub(super) fn waiting(&self) -> usize {
        self.open.len() + self.sealed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Sample<'_> = Sample::RequestsPerSecond(1.0);

    fn at(minute: u64) -> Timestamp {
        Timestamp(minute * MINUTE_MS)
    }

    #[test]
    fn samples_gather_by_minute_and_pool_until_they_are_taken() {
        let mut pending = Pending::default();
        for (ms, pool) in [(0, "a"), (59_999, "a"), (60_000, "a"), (60_000, "b"), (120_000, "a")] {
            pending.record(Timestamp(ms), &pool.into(), &RATE);
        }
        let taken = pending.take_before(at(2));
        let taken: Vec<_> = taken
            .iter()
            .map(|(minute, pool, measured)| {
                let samples = measured.requests_per_second.map_or(0, |rate| rate.samples);
                (minute.0 / MINUTE_MS, pool.as_str(), samples)
            })
            .collect();
        assert_eq!(taken, [(0, "a", 2), (1, "a", 1), (1, "b", 1)]);
        assert_eq!((pending.take_before(at(2)).len(), pending.waiting()), (0, 1));
    }

    #[test]
    fn what_is_no_measurement_leaves_no_minute_behind() {
        let mut pending = Pending::default();
        pending.record(at(0), &"a".into(), &Sample::RequestsPerSecond(f64::NAN));
        assert_eq!((pending.waiting(), pending.rejected_samples), (0, 1));
    }

    #[test]
    fn open_minutes_are_bounded_and_known_ones_still_grow() {
        let mut pending = Pending::default();
        for n in 0..=MAX_OPEN as u64 {
            pending.record(at(n), &"a".into(), &RATE);
        }
        pending.record(at(0), &"a".into(), &RATE);
        assert_eq!((pending.waiting(), pending.dropped_samples), (MAX_OPEN, 1));
    }

    #[test]
    fn merging_is_recording_each_and_keeps_to_the_same_bound() {
        let mut measured = Measured::default();
        [1.0, 3.0]
            .iter()
            .for_each(|ms| assert!(measured.record(&Sample::InferenceLatency { ms: *ms })));
        let (mut merged, mut recorded) = (Pending::default(), Pending::default());
        merged.merge(at(0), &"a".into(), &measured);
        merged.merge(at(1), &"b".into(), &Measured::default());
        for ms in [1.0, 3.0] {
            recorded.record(Timestamp(59_999), &"a".into(), &Sample::InferenceLatency { ms });
        }
        assert_eq!(merged.take_before(at(2)), recorded.take_before(at(2)));

        for n in 0..=MAX_OPEN as u64 {
            merged.merge(at(n), &"a".into(), &measured);
        }
        assert_eq!((merged.waiting(), merged.dropped_samples), (MAX_OPEN, 1));
    }

    #[test]
    fn of_too_many_items_the_oldest_are_dropped() {
        let item = |n: usize| {
            let sk = aws_sdk_dynamodb::types::AttributeValue::S(n.to_string());
            Item::from([(item::SK.to_owned(), sk)])
        };
        let mut pending = Pending::default();
        for n in 0..MAX_SEALED + 3 {
            pending.seal(vec![item(n)]);
        }
        assert_eq!((pending.waiting(), pending.dropped_items), (MAX_SEALED, 3));
        assert_eq!(pending.sealed()[0], item(3));
        pending.forget(&item(3));
        assert_eq!(pending.sealed()[0], item(4));
    }
}
