//! The history of failovers, as each region's routers write it.

use std::collections::BTreeMap;

use mrgc_fleet::failover::{FailoverEvent, MAX_EVENTS};

/// By the regions that wrote them, then by their ids, which sort by time.
#[derive(Debug)]
pub(crate) struct Failovers(Vec<BTreeMap<String, FailoverEvent>>);

impl Failovers {
    pub(super) fn new(regions: usize) -> Self {
        Self(vec![BTreeMap::new(); regions])
    }

    /// Writes a failover as it stands. One that has ended stays as it is, and nothing that was known of it is
    /// forgotten.
    pub(crate) fn write(&mut self, writer: usize, event: FailoverEvent) {
        let stored = self.0[writer].get(&event.id);
        if stored.is_some_and(|stored| stored.ended_at.is_some()) {
            return;
        }
        let known_ms = stored.and_then(|stored| stored.duration_ms);
        let event = FailoverEvent { duration_ms: event.duration_ms.or(known_ms), ..event };
        self.0[writer].insert(event.id.clone(), event);
    }

    /// What a region's routers wrote, of the latest failovers of all regions: so a router reads it.
    pub(crate) fn latest(&self, writer: usize) -> Vec<FailoverEvent> {
        let mut all: Vec<_> = self.0.iter().flat_map(BTreeMap::values).collect();
        all.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        let home = |event: &&FailoverEvent| self.0[writer].contains_key(&event.id);
        all.into_iter().take(MAX_EVENTS).filter(home).cloned().collect()
    }

    /// All that a region's routers wrote.
    pub(crate) fn of(&self, writer: usize) -> impl Iterator<Item = &FailoverEvent> {
        self.0[writer].values()
    }

    pub(crate) fn get(&self, writer: usize, id: &str) -> Option<&FailoverEvent> {
        self.0[writer].get(id)
    }
}
