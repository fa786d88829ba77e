//! What the state costs a month, as a pure function of the fleet, the sizes of its items and the prices.
//!
//! ```text
//!  writes      = instances · month / interval · share of heartbeats that are written
//!  write units = (writes · ⌈report / 1 KB⌉ + month · (regions² / record + leases / renewal)) · replicas
//!  read units  = routers · (month / poll · (list of reports + partitions · ½)
//!                         + month / 15 s · list of registrations
//!                         + writes · ⌈report / 4 KB⌉ · ½
//!                         + month · (1½ / poll + leases of a region / renewal))
//!               + instances · (month / longest silence + month / 60 s)
//!  list        = partitions · ⌈bytes of a partition / 4 KB⌉ · ½
//!  bytes moved = writes · report · (replicas − 1)
//! ```
//!
//! That is how a router follows a region: it lists reports, and the empty partitions of what is wanted of
//! instances, every poll, registrations now and then, and reads the reports that are new by their keys, all
//! eventually consistent. Each agent reads what is wanted of its instance as often as its longest silence is,
//! and over how many partitions its region is spread every minute, each strongly consistent and of one unit.
//! In each region that holds the tables one router writes how it finds every region; each region's routers
//! contend for two leases; and every look reads what operators and lease holders say of the regions.
//! What happens once for each instance or request of an operator is left out: it is
//! below a thousandth of the heartbeats.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A month as AWS prices it: 730 hours.
const MONTH_SECONDS: f64 = 730.0 * 3_600.0;
/// The service counts GB as 2^30 bytes.
const GB_BYTES: f64 = (1_u64 << 30) as f64;
/// What a read unit reads, strongly consistent; an eventually consistent read takes half of one.
const READ_UNIT_BYTES: u64 = 4_096;
const WRITE_UNIT_BYTES: u64 = 1_024;
/// Of each region: for its instances, and for what is found of regions.
const LEASES: f64 = 2.0;
const MILLION: f64 = 1e6;

/// Prices in US dollars, of one region.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    pub(super) write_units_per_million: f64,
    pub(super) replicated_write_units_per_million: f64,
    pub(super) read_units_per_million: f64,
    pub(super) storage_per_gb_month: f64,
    pub(super) transfer_per_gb: f64,
}

/// A fleet and how it uses the tables.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Workload {
    /// In all regions together.
    pub(super) instances: u64,
    pub(super) interval_seconds: f64,
    /// Of the intervals, those in which a report is written: 1 with fixed heartbeats.
    pub(super) written_share: f64,
    pub(super) report_bytes: u64,
    pub(super) registration_bytes: u64,
    /// Regions that hold the tables.
    pub(super) replicas: u64,
    /// In all regions together; each lists the whole fleet.
    pub(super) routers: u64,
    pub(super) poll_seconds: f64,
    /// Between two lists of the registrations.
    pub(super) registrations_seconds: f64,
    /// Between two reads by an agent of what is wanted of its instance.
    pub(super) wish_seconds: f64,
    /// Between two reads by an agent of its region's number of partitions.
    pub(super) shards_seconds: f64,
    /// Between two writes by a region's lease holder of how it finds a region.
    pub(super) record_seconds: f64,
    /// Between two renewals of a lease, and two looks at it.
    pub(super) renewal_seconds: f64,
    /// Over which each table's items are spread, in all regions together.
    pub(super) partitions: u64,
}

/// A month's use and its price.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    /// Heartbeats that are written.
    pub(super) writes: f64,
    pub(super) write_units: f64,
    pub(super) read_units: f64,
    pub(super) write_dollars: f64,
    pub(super) read_dollars: f64,
    pub(super) transfer_dollars: f64,
    pub(super) storage_dollars: f64,
    pub(super) total_dollars: f64,
}

pub(super) fn estimate(workload: &Workload, prices: &Prices) -> Estimate {
    let Workload { instances, replicas, partitions, .. } = *workload;
    let writes =
        instances as f64 * MONTH_SECONDS / workload.interval_seconds * workload.written_share;
    let units_each = workload.report_bytes.div_ceil(WRITE_UNIT_BYTES);
    let records = (replicas * replicas) as f64 / workload.record_seconds;
    let renewals = LEASES * replicas as f64 / workload.renewal_seconds;
    let standing = MONTH_SECONDS * (records + renewals);
    let write_units = (writes * units_each as f64 + standing) * replicas as f64;
    let write_price = if replicas > 1 {
        prices.replicated_write_units_per_million
    } else {
        prices.write_units_per_million
    };

    // Of a list of one table; each partition's query is rounded up.
    let list = |item_bytes: u64| {
        let partition_bytes = (instances * item_bytes).div_ceil(partitions.max(1));
        eventual(partitions * partition_bytes.div_ceil(READ_UNIT_BYTES))
    };
    let polled = (list(workload.report_bytes) + eventual(partitions)) / workload.poll_seconds;
    let registrations = list(workload.registration_bytes) / workload.registrations_seconds;
    let new_reports = writes * eventual(workload.report_bytes.div_ceil(READ_UNIT_BYTES));
    // Orders, strongly consistent, and what the lease holder says.
    let standing = (1.0 + eventual(1)) / workload.poll_seconds + LEASES / workload.renewal_seconds;
    let each = MONTH_SECONDS * (polled + registrations + standing) + new_reports;
    let by_routers = workload.routers as f64 * each;
    let per_agent = MONTH_SECONDS * (1.0 / workload.wish_seconds + 1.0 / workload.shards_seconds);
    let read_units = by_routers + instances as f64 * per_agent;

    let item_bytes = workload.report_bytes + workload.registration_bytes;
    let stored_gb = (instances * item_bytes * replicas) as f64 / GB_BYTES;
    let moved_gb = writes * (workload.report_bytes * replicas.saturating_sub(1)) as f64 / GB_BYTES;

    let write_dollars = write_units / MILLION * write_price;
    let read_dollars = read_units / MILLION * prices.read_units_per_million;
    let transfer_dollars = moved_gb * prices.transfer_per_gb;
    let storage_dollars = stored_gb * prices.storage_per_gb_month;
    Estimate {
        writes,
        write_units,
        read_units,
        write_dollars,
        read_dollars,
        transfer_dollars,
        storage_dollars,
        total_dollars: write_dollars + read_dollars + transfer_dollars + storage_dollars,
    }
}

/// Read units of eventually consistent reads, two for one.
fn eventual(units: u64) -> f64 {
    units as f64 / 2.0
}

/// The prices that this program was built with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceList {
    /// The day they were looked up, as in `2025-07-21`.
    pub(super) as_of: String,
    pub(super) sources: Vec<String>,
    regions: std::collections::BTreeMap<String, Prices>,
}

impl PriceList {
    pub(super) fn built_in() -> Result<Self> {
        toml::from_str(include_str!("../../../../deploy/prices/dynamodb.toml"))
            .context("deploy/prices/dynamodb.toml, as it was built in")
    }

    pub(super) fn of(&self, region: &str) -> Option<&Prices> {
        self.regions.get(region)
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Prices = Prices {
        write_units_per_million: 1.0,
        replicated_write_units_per_million: 2.0,
        read_units_per_million: 0.5,
        storage_per_gb_month: 0.25,
        transfer_per_gb: 0.02,
    };

    /// Figures that can be checked by hand: a month has 2,628,000 s.
    fn workload() -> Workload {
        Workload {
            instances: 100,
            interval_seconds: 10.0,
            written_share: 1.0,
            report_bytes: 512,
            registration_bytes: 1_024,
            replicas: 1,
            routers: 1,
            poll_seconds: 1.0,
            registrations_seconds: 10.0,
            wish_seconds: 20.0,
            shards_seconds: 50.0,
            record_seconds: 5.0,
            renewal_seconds: 4.0,
            partitions: 1,
        }
    }

    fn close(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-6 * right.abs().max(1.0), "{left} is not {right}");
    }

    #[test]
    fn one_region_is_priced_by_plain_units() {
        let month = estimate(&workload(), &PRICES);
        close(month.writes, 26_280_000.0);
        // Beside the heartbeats a record each 5 s, and two renewals each 4 s.
        close(month.write_units, 26_280_000.0 + 2_628_000.0 * 0.7);
        close(month.write_dollars, 26.28 + 2.628 * 0.7);
        // 51,200 and 102,400 bytes: 13 and 25 units, half each; half a unit for what is wanted of
        // instances, and for each of 10 new reports a second. The agents read 5 wishes and 2 counts a second.
        // And one unit and a half for orders and records, and two leases each 4 s.
        let by_router = 6.5 + 0.5 + 12.5 / 10.0 + 10.0 / 2.0 + 1.5 + 0.5;
        close(month.read_units, 2_628_000.0 * (by_router + 7.0));
        close(month.read_dollars, 2.628 * 22.25 * 0.5);
        close(month.transfer_dollars, 0.0);
    }

    #[test]
    fn replicas_multiply_writes_and_move_bytes() {
        let month = estimate(&Workload { replicas: 3, ..workload() }, &PRICES);
        // Three regions that write of three, and six leases.
        let standing = 2_628_000.0 * (9.0 / 5.0 + 6.0 / 4.0);
        close(month.write_units, 3.0 * (26_280_000.0 + standing));
        close(month.write_dollars, 3.0 * (26.28 + standing / 1e6) * 2.0);
        close(month.transfer_dollars, 26_280_000.0 * 1_024.0 / GB_BYTES * 0.02);
    }

    #[test]
    fn half_the_heartbeats_are_half_the_writes_and_as_many_lists() {
        let (all, half) = (
            estimate(&workload(), &PRICES),
            estimate(&Workload { written_share: 0.5, ..workload() }, &PRICES),
        );
        close(all.write_units - half.write_units, half.writes);
        close(all.read_units - half.read_units, half.writes / 2.0);
    }

    #[test]
    fn a_report_above_its_budget_costs_another_unit() {
        let month = estimate(&Workload { report_bytes: 1_025, ..workload() }, &PRICES);
        let as_before = estimate(&workload(), &PRICES);
        close(month.write_units - as_before.write_units, 26_280_000.0);
    }

    #[test]
    fn the_price_list_has_a_day_and_the_template_s_regions() -> Result<()> {
        let list = PriceList::built_in()?;
        let regions: Vec<&str> = list.regions().collect();
        assert_eq!(regions, ["us-east-1", "us-east-2", "us-west-2"]);
        assert!(list.sources.iter().all(|source| source.starts_with("https://")));
        let parts: Vec<usize> = list.as_of.split('-').map(str::len).collect();
        assert_eq!(parts, [4, 2, 2], "{}", list.as_of);
        Ok(())
    }
}
