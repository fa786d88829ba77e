//! One failover, as the routers of several regions saw it.
//!
//! Each region judges the others for itself, and stores a record of its own of what it saw. Their clocks and
//! their evidence differ a little: records of one kind about one region that overlap are about one failover.

use std::collections::BTreeSet;

use mrgc_fleet::{
    failover::{Cause, FailoverEvent},
    model::{RegionId, Timestamp},
};

/// A failover, by the records of those who saw it.
#[derive(Debug)]
pub(super) struct Sightings {
    /// At least one; the first sign is the first one's.
    records: Vec<FailoverEvent>,
}

/// One for each failover, the oldest first.
pub(super) fn merged(mut events: Vec<FailoverEvent>) -> Vec<Sightings> {
    events.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    let mut failovers: Vec<Sightings> = Vec::new();
    for event in events {
        match failovers.iter_mut().rev().find(|failover| failover.has(&event)) {
            Some(failover) => failover.records.push(event),
            None => failovers.push(event.into()),
        }
    }
    failovers
}

impl From<FailoverEvent> for Sightings {
    fn from(event: FailoverEvent) -> Self {
        Self { records: vec![event] }
    }
}

impl Sightings {
    pub(super) fn first(&self) -> &FailoverEvent {
        &self.records[0]
    }

    /// Until the traffic had moved, by whoever it took longest; `None` while it moves.
    pub(super) fn duration_ms(&self) -> Option<u64> {
        self.records.iter().filter_map(|record| record.duration_ms).max()
    }

    /// When the traffic was back, by the last one who says that it was.
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        self.records.iter().filter_map(|record| record.ended_at).max()
    }

    /// As in `us-east-1` or `3 regions`.
    pub(super) fn seen_by(&self) -> String {
        let all = self.writers(|_| true);
        match all.len() {
            1 => self.first().writer_region.to_string(),
            n => format!("{n} regions"),
        }
    }

    /// The same of its end, as in `2 of 3 regions` where others have not seen that.
    pub(super) fn end_seen_by(&self) -> String {
        let (all, ended) =
            (self.writers(|_| true), self.writers(|record| record.ended_at.is_some()));
        match ended.len() == all.len() {
            true => self.seen_by(),
            false => format!("{} of {} regions", ended.len(), all.len()),
        }
    }

    fn writers(&self, which: impl Fn(&FailoverEvent) -> bool) -> BTreeSet<&RegionId> {
        let records = self.records.iter().filter(|record| which(record));
        records.map(|record| &record.writer_region).collect()
    }

    /// Whether a later record is of this failover. Where nobody has seen its end, whoever tells of another
    /// one has, though that was not recorded.
    fn has(&self, event: &FailoverEvent) -> bool {
        let goes_on = match self.ended_at() {
            Some(ended_at) => event.at <= ended_at,
            None => !self.writers(|_| true).contains(&event.writer_region),
        };
        goes_on && is_alike(self.first(), event)
    }
}

/// Whether two records can be of one failover. What was found to be wrong is worded by each on its own.
fn is_alike(a: &FailoverEvent, b: &FailoverEvent) -> bool {
    let kind = |event: &FailoverEvent| (event.from.clone(), event.cause, event.strategy);
    let is_ordered = a.cause == Cause::Manual;
    kind(a) == kind(b) && (!is_ordered || (&a.operator, &a.reason) == (&b.operator, &b.reason))
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::failover::Strategy;

    use super::*;

    fn record(by: &str, at: u64, ended_at: Option<u64>) -> FailoverEvent {
        FailoverEvent {
            id: format!("{at:09}-{by}"),
            from: "us".into(),
            to: vec!["eu".into()],
            at: Timestamp(at),
            ended_at: ended_at.map(Timestamp),
            duration_ms: Some(at),
            cause: Cause::Automatic,
            strategy: Strategy::Immediate,
            reason: Some(format!("as {by} sees it")),
            operator: None,
            writer_region: by.into(),
        }
    }

    /// By its writers and when each noticed, what these records come to.
    fn told(events: Vec<FailoverEvent>) -> Vec<Vec<String>> {
        let ids = |failover: Sightings| failover.records.into_iter().map(|r| r.id).collect();
        merged(events).into_iter().map(ids).collect()
    }

    fn ids(groups: &[&[(&str, u64)]]) -> Vec<Vec<String>> {
        let id = |(by, at): &(&str, u64)| format!("{at:09}-{by}");
        groups.iter().map(|group| group.iter().map(id).collect()).collect()
    }

    #[test]
    fn records_that_overlap_are_of_one_failover() {
        let (over, under_way) = (Some(100), None);
        for (events, expected) in [
            // As they are stored, the last one first.
            (vec![("ap", 3, over), ("eu", 2, over)], ids(&[&[("eu", 2), ("ap", 3)]])),
            (vec![("ap", 101, Some(200)), ("eu", 2, over)], ids(&[&[("eu", 2)], &[("ap", 101)]])),
            // One that flaps for some and not for others.
            (
                vec![("eu", 60, over), ("ap", 3, over), ("eu", 2, Some(50))],
                ids(&[&[("eu", 2), ("ap", 3), ("eu", 60)]]),
            ),
            (vec![("ap", 900, under_way), ("eu", 2, under_way)], ids(&[&[("eu", 2), ("ap", 900)]])),
            // The end of one was never recorded, as its writer died.
            (
                vec![("ap", 901, over), ("eu", 900, under_way), ("eu", 2, under_way)],
                ids(&[&[("eu", 2)], &[("eu", 900), ("ap", 901)]]),
            ),
            (
                vec![("ap", 900, under_way), ("eu", 3, over), ("ap", 2, under_way)],
                ids(&[&[("ap", 2), ("eu", 3)], &[("ap", 900)]]),
            ),
        ] {
            let events = events.into_iter().map(|(by, at, end)| record(by, at, end)).collect();
            assert_eq!(told(events), expected);
        }
    }

    #[test]
    fn other_regions_and_other_orders_are_other_failovers() {
        let first = record("eu", 2, Some(100));
        let manual = FailoverEvent { cause: Cause::Manual, ..first.clone() };
        let next = |event: &FailoverEvent| {
            let (at, writer_region) = (Timestamp(50), "ap".into());
            FailoverEvent { id: "000000050-ap".to_owned(), at, writer_region, ..event.clone() }
        };
        let other_region = FailoverEvent { from: "ap".into(), ..next(&first) };
        let ordered = next(&manual);
        let other_order = FailoverEvent { reason: Some("drill".to_owned()), ..next(&manual) };
        let one = ids(&[&[("eu", 2), ("ap", 50)]]);
        let two = ids(&[&[("eu", 2)], &[("ap", 50)]]);
        assert_eq!(told(vec![manual.clone(), ordered.clone()]), one);
        for events in
            [vec![first.clone(), other_region], vec![first, ordered], vec![manual, other_order]]
        {
            assert_eq!(told(events), two);
        }
    }

    #[test]
    fn who_saw_it_is_counted_and_the_slowest_says_how_long_it_took() {
        let events =
            vec![record("eu", 2, Some(90)), record("ap", 3, Some(100)), record("us", 4, None)];
        let failovers = merged(events);
        let [failover] = &failovers[..] else { unreachable!("{failovers:?}") };
        assert_eq!((failover.duration_ms(), failover.ended_at()), (Some(4), Some(Timestamp(100))));
        assert_eq!(failover.seen_by(), "3 regions");
        assert_eq!(failover.end_seen_by(), "2 of 3 regions");
        let alone = Sightings::from(record("eu", 2, Some(90)));
        assert_eq!((alone.seen_by(), alone.end_seen_by()), ("eu".to_owned(), "eu".to_owned()));
    }
}
