//! `metrics`: what programs measured of each pool, minute by minute.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGION#n`, n below 4 | minute `#` writer `#` run `#` number | [`PoolMinute`], at most [`METRICS_BUDGET_BYTES`]; ends after 48 hours |
//!
//! A region's last minutes are four queries at once, each a range of sort keys; a pool's are one of them,
//! since n is a hash of the pool's name. Items are added and never changed: each holds what one run of a
//! program measured of one pool in one minute since its flush before, or a part of that where it would be
//! above the budget, and all of them add up. A write that is repeated writes the same item.
//!
//! **Size and load.** An ordinary item is 270 bytes, and 8 more for each bucket of a histogram that is in
//! use: 750 with latencies over four octaves, one write unit. With `w` programs that each see `p` pools and
//! flush once a minute, a region's table takes `w · p` writes a minute, a quarter of them in a partition:
//! 250 with 10 routers and 100 pools. Were these all of full size and in one second, they would use the
//! 1,000 units that a partition has in a second; flushed at a random second of the minute they use 17.
//!
//! Minutes are those of the writers' clocks and windows those of the reader's: a program whose clock is
//! wrong is missing from a window. Nothing but these figures depends on it.

mod collector;
mod pending;

use std::collections::BTreeMap;

use mrgc_fleet::model::{
    ClusterHealth, Percentiles, PoolId, PoolMetrics, PoolMinute, RegionId, RegionLoad, Timestamp,
};

use crate::{
    Store,
    calls::Key,
    clock::{self, HOUR_SECONDS, MINUTE_MS},
    error::StoreError,
    item::{self, Item},
    range::{LAST, Order, Range},
    regions,
    schema::Table,
};

pub use collector::{CollectorCounts, MetricsCollector};

/// What an item may take: four write units. What is more is written as several items.
pub const METRICS_BUDGET_BYTES: usize = 4_096;
/// The longest window, which is as long as items are kept.
pub const MAX_WINDOW_MINUTES: u32 = 48 * 60;

/// How long an item is kept.
const KEPT_SECONDS: u64 = 48 * HOUR_SECONDS;
/// Over how many partitions a region's pools are spread. Part of the stored layout.
const SHARDS: u32 = 4;

impl Store {
    /// What was measured of a pool in this minute and those before it, `window_minutes` in all.
    pub async fn pool_metrics(
        &self,
        region: &RegionId,
        pool: &PoolId,
        window_minutes: u32,
    ) -> Result<PoolMetrics, StoreError> {
        let range = window(clock::now(), window_minutes);
        let items = self.query_range(Table::Metrics, &partition(region, pool), &range).await?;
        let minutes: Vec<PoolMinute> = self.readable(Table::Metrics, items);
        let mut metrics = PoolMetrics::default();
        minutes.iter().filter(|minute| minute.pool == *pool).for_each(|minute| metrics.add(minute));
        Ok(metrics)
    }

    /// P50, P95 and P99 of a pool's inference latency over all writers; `None` where nobody measured it.
    pub async fn latency_percentiles(
        &self,
        region: &RegionId,
        pool: &PoolId,
        window_minutes: u32,
    ) -> Result<Option<Percentiles>, StoreError> {
        Ok(self.pool_metrics(region, pool, window_minutes).await?.latency_percentiles())
    }

    /// What was measured in a region in this minute and those before it, by pool.
    pub async fn region_metrics(
        &self,
        region: &RegionId,
        window_minutes: u32,
    ) -> Result<BTreeMap<PoolId, PoolMetrics>, StoreError> {
        let range = window(clock::now(), window_minutes);
        let queries = (0..SHARDS).map(|shard| {
            let (store, pk, range) = (self.clone(), shard_partition(region, shard), range.clone());
            async move { store.query_range(Table::Metrics, &pk, &range).await }
        });
        let items = self.all(queries).await?.into_iter().flatten().collect();
        let minutes: Vec<PoolMinute> = self.readable(Table::Metrics, items);
        let mut metrics: BTreeMap<PoolId, PoolMetrics> = BTreeMap::new();
        for minute in &minutes {
            metrics.entry(minute.pool.clone()).or_default().add(minute);
        }
        Ok(metrics)
    }

    /// The fleet's load by region and pool: the instances that are registered now, and what was measured in
    /// this minute and those before it. The regions are those that operators registered.
    pub async fn cluster_health_summary(
        &self,
        window_minutes: u32,
    ) -> Result<ClusterHealth, StoreError> {
        let loads = self.region_loads(window_minutes).await?;
        let loads = loads.into_iter().map(|(region, (load, _))| (region, load));
        Ok(ClusterHealth::new(loads.collect()))
    }

    /// The load of each registered region, with the measurements of its pools that it follows from.
    pub async fn region_loads(
        &self,
        window_minutes: u32,
    ) -> Result<BTreeMap<RegionId, (RegionLoad, BTreeMap<PoolId, PoolMetrics>)>, StoreError> {
        let loads = self.regions().await?.into_iter().map(|region| {
            let store = self.clone();
            async move {
                let (instances, metrics) = tokio::try_join!(
                    store.instances(&region.id),
                    store.region_metrics(&region.id, window_minutes),
                )?;
                let pools = instances.iter().map(|instance| instance.registration.pool.clone());
                Ok((region.id, (RegionLoad::new(pools, &metrics), metrics)))
            }
        });
        Ok(self.all(loads).await?.into_iter().collect())
    }
}

/// A minute as items that keep to the budget; together they are the minute. `next` numbers the items of a
/// run.
fn items_of(minute: PoolMinute, run: &str, next: &mut u64) -> Vec<Item> {
    let mut items = Vec::new();
    let mut parts = vec![minute];
    while let Some(part) = parts.pop() {
        let key = Key {
            pk: partition(&part.region, &part.pool),
            sk: format!("{}#{}#{run}#{next}", clock::minute(part.minute), part.writer),
        };
        // Text and numbers by name: there is nothing in it that could not be an item.
        let Ok(item) = item::encode(&key, &part) else { continue };
        match part.measured.halves() {
            Some((first, rest)) if item::size_bytes(&item) > METRICS_BUDGET_BYTES => {
                parts.push(PoolMinute { measured: rest, ..part.clone() });
                parts.push(PoolMinute { measured: first, ..part });
            }
            _ => {
                *next += 1;
                items.push(item);
            }
        }
    }
    items
}

/// The minutes of a window that ends with the one of `now`.
fn window(now: Timestamp, minutes: u32) -> Range {
    let before = u64::from(minutes.clamp(1, MAX_WINDOW_MINUTES) - 1) * MINUTE_MS;
    Range {
        from: clock::minute(Timestamp(now.0.saturating_sub(before))),
        to: format!("{}{LAST}", clock::minute(now)),
        order: Order::FirstKeyFirst,
        limit: None,
        consistent: false,
    }
}

fn partition(region: &RegionId, pool: &PoolId) -> String {
    shard_partition(region, regions::shard(pool.as_str(), SHARDS))
}

fn shard_partition(region: &RegionId, shard: u32) -> String {
    format!("{region}#{shard}")
}

#[cfg(test)]
mod tests;
