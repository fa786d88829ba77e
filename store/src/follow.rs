//! Following a region: what a router does every second, over ten thousand instances, for little.
//!
//! ```text
//!  refresh:  heads of all reports ────┐                  ┌─ reports that changed ───────┐
//!            what is wanted of whom ──┼─► ledger: plan ──┤                              ├─► ledger: apply
//!            heads of registrations ──┘                  └─ registrations not known yet ┘    │
//!            (now and then)                                              standings, changes ◄┘
//! ```
//!
//! A **head** is what of an item tells whether it is new: key, generation, sequence, and whether it is a
//! tombstone. Each refresh lists the heads of all reports, shards in parallel, and reads by their keys
//! only the items that are new. The service charges for whole items either way; what is saved is the
//! router's own time, of which turning an answer into records is nearly all.
//!
//! | what | how often it is read |
//! |---|---|
//! | heads of the reports, and what is wanted of instances | each refresh |
//! | a report | when its (generation, sequence) changed |
//! | a registration | when a report names an instance or a generation that is not known |
//! | heads of the registrations | at most every [`FollowerConfig::registrations_every`] |
//!
//! So an instance is found by its first report, or, should it never report, by the next list of
//! registrations; one that leaves is missed by its report's tombstone, or by that list.
//!
//! All is eventually consistent but the few registrations that are read by key. An answer that is older than
//! what is known is ignored; so what was wanted of an instance counts until something later is, or until
//! several refreshes in a row do not find it. A refresh that fails changes nothing.

mod ledger;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{InstanceId, RegionId, Standing, Timestamp};
use serde::de::DeserializeOwned;

use crate::{
    Store,
    calls::Key,
    clock,
    desired::desired_partition,
    error::StoreError,
    gpu_instances::is_gone,
    item::{self, Item, PK, SK},
    queries::Partition,
    routing_state::{GENERATION, LIFECYCLE, SEQUENCE},
    schema::{EXPIRES_AT, Table},
};
use ledger::{Head, Ledger, Reading};

/// How closely to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerConfig {
    /// Between two lists of the registrations' heads.
    pub registrations_every: Duration,
}

impl Default for FollowerConfig {
    fn default() -> Self {
        Self { registrations_every: Duration::from_secs(15) }
    }
}

/// Instances up to which each of a router's intervals has its look.
const LARGE: f64 = 2_500.0;
/// How many times longer the interval grows at most.
const LONGEST: f64 = 4.0;

/// Between two looks at so many instances, where a small fleet is looked at every `interval`. A look costs
/// time and read units for each instance, so a large fleet's are rarer: at 10,000 instances by four times.
pub fn look_interval(interval: Duration, instances: u64) -> Duration {
    interval.mul_f64((instances as f64 / LARGE).clamp(1.0, LONGEST))
}

/// The instances of one region, kept up to date by [`Follower::refresh`].
#[derive(Debug)]
pub struct Follower {
    store: Store,
    region: RegionId,
    config: FollowerConfig,
    registrations_listed: Option<Instant>,
    ledger: Ledger,
}

/// What a refresh changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Not known before.
    pub added: Vec<InstanceId>,
    /// Reported, registered anew, or something else is wanted of them.
    pub changed: Vec<InstanceId>,
    /// Deregistered, removed or expired.
    pub gone: Vec<InstanceId>,
    pub read: ReadCounts,
}

impl Changes {
    /// Whether the standings are what they were.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.gone.is_empty()
    }
}

/// What a refresh read, in items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    pub report_heads: usize,
    /// Whole, because they were new.
    pub reports: usize,
    /// `None` where it was not yet time.
    pub registration_heads: Option<usize>,
    pub registrations: usize,
}

impl Follower {
    /// Follows a region; nothing is read before the first refresh.
    pub fn new(store: Store, region: RegionId, config: FollowerConfig) -> Self {
        Self { store, region, config, registrations_listed: None, ledger: Ledger::default() }
    }

    pub fn region(&self) -> &RegionId {
        &self.region
    }

    /// The region's instances by id. One that did not change is the same allocation from one refresh to the
    /// next.
    pub fn standings(&self) -> &[Arc<Standing>] {
        self.ledger.standings()
    }

    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Standing>> {
        self.ledger.get(id)
    }

    /// Reads what is new.
    ///
    /// # Errors
    ///
    /// The first call that failed; then nothing has changed. Items that cannot be read are no error: they
    /// are skipped, counted and named ([`Store::corrupt_items`]), and an instance whose report cannot be
    /// read stands without one.
    pub async fn refresh(&mut self) -> Result<Changes, StoreError> {
        let partitions = self.store.partitions(&self.region).await?;
        let started = Instant::now();
        let now = clock::now();
        let due = self
            .registrations_listed
            .is_none_or(|listed| started.duration_since(listed) >= self.config.registrations_every);
        let (reports, desired, registrations) = tokio::try_join!(
            self.heads(Table::RoutingState, &partitions, now),
            self.desired(&partitions),
            async {
                if !due {
                    return Ok(None);
                }
                Ok(Some(self.heads(Table::GpuInstances, &partitions, now).await?))
            },
        )?;

        let plan = self.ledger.plan(&reports, registrations.as_deref());
        let keys = |heads: &[(u32, InstanceId)]| -> Vec<Key> {
            let key = |(partition, id): &(u32, InstanceId)| Key {
                pk: partitions[*partition as usize].clone(),
                sk: id.as_str().to_owned(),
            };
            heads.iter().map(key).collect()
        };
        let (report_keys, registration_keys) = (keys(&plan.reports), keys(&plan.registrations));
        let (fetched_reports, fetched_registrations) = tokio::try_join!(
            self.read(Table::RoutingState, &report_keys, false, now),
            self.read(Table::GpuInstances, &registration_keys, true, now),
        )?;

        let read = ReadCounts {
            report_heads: reports.len(),
            reports: fetched_reports.len(),
            registration_heads: registrations.as_ref().map(Vec::len),
            registrations: fetched_registrations.len(),
        };
        let reading = Reading {
            plan,
            registrations: fetched_registrations.into_iter().flatten().collect(),
            reports: fetched_reports.into_iter().flatten().collect(),
            desired: self.store.merged(desired),
        };
        if due {
            self.registrations_listed = Some(started);
        }
        Ok(Changes { read, ..self.ledger.apply(reading) })
    }

    /// The heads of a table's items, all partitions at once, each page reduced as it comes.
    async fn heads(
        &self,
        table: Table,
        partitions: &[String],
        now: Timestamp,
    ) -> Result<Vec<Head>, StoreError> {
        let attributes: &'static [&'static str] = match table {
            Table::RoutingState => &[SK, GENERATION, SEQUENCE, LIFECYCLE, EXPIRES_AT],
            _ => &[SK, GENERATION, LIFECYCLE, EXPIRES_AT],
        };
        let lists = partitions.iter().cloned().zip(0u32..).map(|(pk, partition)| {
            let store = self.store.clone();
            async move {
                let mut heads = Vec::new();
                let whole = Partition { table, pk: &pk, prefix: "", attributes, consistent: false };
                let page = |items: Vec<Item>| {
                    heads.extend(items.into_iter().filter_map(|item| {
                        let head = head(item, table, partition, now);
                        let skip = |sk| {
                            let key = Key { pk: pk.clone(), sk };
                            store.skip(table, &key, "it has no generation and sequence");
                        };
                        head.map_err(skip).ok()
                    }));
                };
                store.pages(whole, page).await?;
                Ok(heads)
            }
        });
        let lists: Vec<_> = lists.collect();
        Ok(self.store.all(lists).await?.into_iter().flatten().collect())
    }

    async fn desired(&self, partitions: &[String]) -> Result<Vec<Item>, StoreError> {
        let queries = partitions.iter().map(|pk| (Table::GpuInstances, desired_partition(pk)));
        let answers = self.store.query_all(queries.collect()).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// The items of these keys that are there: the record by its id, or `None` in its place where it cannot
    /// be read; nothing of a tombstone.
    async fn read<T: DeserializeOwned + Send + 'static>(
        &self,
        table: Table,
        keys: &[Key],
        consistent: bool,
        now: Timestamp,
    ) -> Result<Vec<Option<(InstanceId, Option<T>)>>, StoreError> {
        let store = self.store.clone();
        let read = move |item: Item| {
            (!is_gone(&item, now)).then(|| {
                let id = InstanceId::from(item::key_of(&item).sk);
                (id, store.readable_one(table, item))
            })
        };
        self.store.get_all(table, keys, consistent, read).await
    }
}

/// The head in an item; its sort key where it has no fence.
fn head(mut item: Item, table: Table, partition: u32, now: Timestamp) -> Result<Head, String> {
    let gone = is_gone(&item, now);
    let generation = item::integer(&item, GENERATION);
    let sequence = match table {
        Table::RoutingState => item::integer(&item, SEQUENCE),
        _ => Some(0),
    };
    let id = match item.remove(SK) {
        Some(AttributeValue::S(id)) => id,
        _ => String::new(),
    };
    debug_assert!(!item.contains_key(PK), "only the attributes asked for are returned");
    match (generation, sequence) {
        (Some(generation), Some(sequence)) => {
            Ok(Head { partition, id, fence: (generation, sequence), gone })
        }
        _ => Err(id),
    }
}
