//! The fleet's shared state: a replica in each region, conditional writes, reads that lag.
//!
//! Each item has one writing region, whose replica has it first. The others follow after a lag, and an
//! eventually consistent read may show what was there before. The conditions are the real store's: a report
//! supersedes the stored one by (generation, sequence), a lease is written over the stamp that was read, an
//! opinion is stamped above all that its writer saw.

mod autoscaling;
mod failovers;
mod versioned;

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use mrgc_fleet::{
    failover::{RegionOrder, RegionRecord, accepts},
    lease::Write,
    model::{Desired, Lease, Registration, Report, Stamp, Standing},
};

use self::{autoscaling::Autoscaling, failovers::Failovers, versioned::Versioned};
use crate::faults::{Fault, Tally};

/// Leases that the routers of a region contend for: what instances need, and what is said of regions.
pub(crate) const LEASES: usize = 2;
/// How far a stale read is behind, at most.
const MAX_STALE_MS: u64 = 6_000;
/// The usual lag between regions.
const LAG_MS: u64 = 400;

#[derive(Debug)]
pub(crate) struct Store {
    rng: Rng,
    instances: Vec<Item>,
    /// By the region that an order is about, then by the region that wrote it.
    orders: Vec<Vec<Versioned<RegionOrder>>>,
    /// By the region that wrote them, then by the region that they are about.
    records: Vec<Vec<Versioned<RegionRecord>>>,
    leases: Vec<[Option<Lease>; LEASES]>,
    pub failovers: Failovers,
    pub autoscaling: Autoscaling,
    /// How each region's replica is.
    pub replicas: Vec<Replica>,
}

/// What is stored of an instance.
#[derive(Debug, Default)]
struct Item {
    region: usize,
    /// What it registered and reported.
    standing: Versioned<Arc<Standing>>,
    /// What each region wants of it.
    wishes: BTreeMap<usize, Versioned<Desired>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    pub is_out: bool,
    /// Calls in a thousand that are throttled.
    pub throttled: u32,
    /// Reads in a thousand, of one item each, that show the past.
    pub stale: u32,
    /// On top of the usual, for what comes from other regions.
    pub behind_ms: u64,
}

/// The store did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Throttled,
    Out,
    /// What is stored is later.
    Superseded,
}

/// What a person keeps out of service stays out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yields;

/// Everything a router reads at one look.
#[derive(Debug)]
pub(crate) struct Look {
    /// By the instances' numbers; `None` where the replica has not heard of it.
    pub instances: Vec<Option<(Arc<Standing>, Option<Desired>)>>,
    pub orders: Vec<RegionOrder>,
    pub records: Vec<RegionRecord>,
}

impl Store {
    pub(crate) fn new(regions: usize, rng: Rng) -> Self {
        let of_each = || (0..regions).map(|_| Versioned::default()).collect();
        Self {
            rng,
            instances: Vec::new(),
            orders: (0..regions).map(|_| of_each()).collect(),
            records: (0..regions)
                .map(|_| (0..regions).map(|_| Versioned::default()).collect())
                .collect(),
            leases: vec![[None, None]; regions],
            failovers: Failovers::new(regions),
            autoscaling: Autoscaling::default(),
            replicas: vec![Replica::default(); regions],
        }
    }

    /// Whether a call to a region's replica is served at all.
    pub(crate) fn admits(&mut self, region: usize, tally: &mut Tally) -> Result<(), Refused> {
        let replica = &self.replicas[region];
        if replica.is_out {
            tally.add(Fault::StoreOutage);
            return Err(Refused::Out);
        }
        if replica.throttled > 0 && self.rng.u32(0..1_000) < replica.throttled {
            tally.add(Fault::StoreThrottling);
            return Err(Refused::Throttled);
        }
        Ok(())
    }

    /// Registers an instance, under a generation above the stored one's.
    pub(crate) fn register(
        &mut self,
        no: usize,
        region: usize,
        registration: &Registration,
        now_ms: u64,
    ) -> Arc<Registration> {
        self.instances.resize_with(self.instances.len().max(no + 1), Item::default);
        let item = &mut self.instances[no];
        item.region = region;
        let before = item.standing.latest();
        let generation = before.map_or(0, |s| s.registration.generation) + 1;
        let report = before.and_then(|s| s.report.clone());
        let registration = Arc::new(Registration { generation, ..registration.clone() });
        item.standing.write(now_ms, Standing::new(registration.clone(), report).into());
        registration
    }

    /// Writes a report where it supersedes the stored one.
    pub(crate) fn report(&mut self, no: usize, report: Report, now_ms: u64) -> Result<(), Refused> {
        let item = &mut self.instances[no].standing;
        let Some(standing) = item.latest() else { return Err(Refused::Superseded) };
        if standing.report.as_ref().is_some_and(|stored| !report.supersedes(stored)) {
            return Err(Refused::Superseded);
        }
        let registration = standing.registration.clone();
        item.write(now_ms, Standing::new(registration, Some(report)).into());
        Ok(())
    }

    /// The stored report of an instance.
    pub(crate) fn reported(&self, no: usize) -> Option<&Report> {
        self.instances.get(no)?.standing.latest()?.report.as_ref()
    }

    /// Writes what a region wants of an instance, unless that yields to what is wanted already.
    pub(crate) fn wish(
        &mut self,
        no: usize,
        writer: usize,
        wish: Desired,
        now_ms: u64,
    ) -> Result<(), Yields> {
        let seen = self.wanted(no, writer, now_ms);
        if seen.as_ref().is_some_and(|seen| wish.yields_to(seen)) {
            return Err(Yields);
        }
        let sequence = seen.map_or(0, |seen| seen.stamp.sequence + 1);
        let wish = Desired { stamp: Stamp { epoch: 0, sequence }, ..wish };
        self.instances[no].wishes.entry(writer).or_default().write(now_ms, wish);
        Ok(())
    }

    /// What is wanted of an instance, as a region's replica has it.
    pub(crate) fn wanted(&self, no: usize, reader: usize, now_ms: u64) -> Option<Desired> {
        let wishes = self.instances[no].wishes.iter();
        let seen =
            wishes.filter_map(|(writer, wish)| wish.as_of(self.horizon(*writer, reader, now_ms)));
        seen.cloned().reduce(Desired::merge)
    }

    /// What is wanted of an instance once every replica has all.
    pub(crate) fn wanted_in_the_end(&self, no: usize) -> Option<Desired> {
        self.instances[no]
            .wishes
            .values()
            .filter_map(Versioned::latest)
            .cloned()
            .reduce(Desired::merge)
    }

    /// Writes a region's order about a region, stamped above what its replica has.
    pub(crate) fn order(&mut self, about: usize, writer: usize, order: RegionOrder, now_ms: u64) {
        let seen = (0..self.replicas.len())
            .filter_map(|other| {
                self.orders[about][other].as_of(self.horizon(other, writer, now_ms))
            })
            .map(|order| order.stamp.sequence)
            .max();
        let stamp = Stamp { epoch: 0, sequence: seen.map_or(0, |seen| seen + 1) };
        self.orders[about][writer].write(now_ms, RegionOrder { stamp, ..order });
    }

    /// The order about a region that is in force once every replica has all.
    pub(crate) fn order_in_the_end(&self, about: usize) -> Option<RegionOrder> {
        self.orders[about].iter().filter_map(Versioned::latest).cloned().reduce(RegionOrder::merge)
    }

    /// Writes a record over an earlier one.
    pub(crate) fn record(
        &mut self,
        writer: usize,
        about: usize,
        record: RegionRecord,
        now_ms: u64,
    ) -> Result<(), Refused> {
        let item = &mut self.records[writer][about];
        if !accepts(item.latest().map(|stored| stored.stamp), record.stamp) {
            return Err(Refused::Superseded);
        }
        item.write(now_ms, record);
        Ok(())
    }

    pub(crate) fn recorded(&self, writer: usize, about: usize) -> Option<&RegionRecord> {
        self.records[writer][about].latest()
    }

    pub(crate) fn lease(&self, region: usize, which: usize) -> Option<&Lease> {
        self.leases[region][which].as_ref()
    }

    /// Writes a lease over the stamp that its writer expects; else what is stored comes back.
    pub(crate) fn write_lease(
        &mut self,
        region: usize,
        which: usize,
        write: &Write,
    ) -> Result<(), Option<Lease>> {
        let stored = &mut self.leases[region][which];
        if stored.as_ref().map(|lease| lease.stamp) != write.expected {
            return Err(stored.clone());
        }
        *stored = Some(write.lease.clone());
        Ok(())
    }

    /// All that a router reads.
    pub(crate) fn look(&mut self, reader: usize, now_ms: u64, tally: &mut Tally) -> Look {
        if self.replicas[reader].behind_ms > 0 {
            tally.add(Fault::ReplicationLag);
        }
        let instances =
            (0..self.instances.len()).map(|no| self.look_at(no, reader, now_ms, tally)).collect();
        let horizon = |writer| self.horizon(writer, reader, now_ms);
        let orders = self.orders.iter().flat_map(|about| {
            let seen = about.iter().enumerate();
            seen.filter_map(|(writer, order)| order.as_of(horizon(writer)).cloned())
        });
        let orders = orders.collect();
        let records = (0..self.records[reader].len()).filter_map(|about| {
            let at_ms = self.stale_ms(reader, now_ms, tally);
            self.records[reader][about].as_of(at_ms).cloned()
        });
        let records = records.collect();
        Look { instances, orders, records }
    }

    fn look_at(
        &mut self,
        no: usize,
        reader: usize,
        now_ms: u64,
        tally: &mut Tally,
    ) -> Option<(Arc<Standing>, Option<Desired>)> {
        let at_ms = self.horizon(self.instances[no].region, reader, now_ms);
        let at_ms = self.stale_ms(reader, at_ms, tally);
        let standing = self.instances[no].standing.as_of(at_ms)?.clone();
        let wishes = self.instances[no].wishes.iter();
        let seen = wishes.filter_map(|(writer, wish)| {
            wish.as_of(at_ms.min(self.horizon(*writer, reader, now_ms)))
        });
        Some((standing, seen.cloned().reduce(Desired::merge)))
    }

    /// As of when an item is read that is there since `at_ms`.
    fn stale_ms(&mut self, reader: usize, at_ms: u64, tally: &mut Tally) -> u64 {
        let stale = self.replicas[reader].stale;
        if stale == 0 || self.rng.u32(0..1_000) >= stale {
            return at_ms;
        }
        tally.add(Fault::StaleRead);
        at_ms.saturating_sub(self.rng.u64(0..MAX_STALE_MS))
    }

    /// Up to when a reading region has what another wrote.
    fn horizon(&self, writer: usize, reader: usize, now_ms: u64) -> u64 {
        if writer == reader {
            return now_ms;
        }
        now_ms.saturating_sub(LAG_MS + self.replicas[reader].behind_ms)
    }
}
