//! `regions`: what operators register of each region. Read by every program, written rarely.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGIONS` | region id | [`Region`], well below 1 KB |
//!
//! The region's item also records over how many partitions its instances are spread in the other tables:
//! an instance is in the partition `REGION#n`, where n is a hash of its id modulo that count. At one
//! write of 1 KB a second for each instance and 1,000 of those a second for each partition, 4 carry 4,000
//! instances and 10,000 want 16. The count cannot change while the region has instances, and readers
//! learn of a change within a minute.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mrgc_fleet::model::{DesiredState, InstanceId, Region, RegionId};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    clock,
    desired::desired_partition,
    error::StoreError,
    gpu_instances::is_gone,
    item,
    schema::Table,
};

/// Over how many partitions a region's instances are spread where it is not registered.
pub const DEFAULT_SHARDS: u32 = 4;

const PARTITION: &str = "REGIONS";
const SHARDS: &str = "shards";
/// The attributes of a region that may be absent.
const OPTIONAL: [&str; 5] =
    ["provider", "latitude", "longitude", "carbon_intensity", "max_capacity"];

/// How long a region's shard count is used before it is read again.
pub const SHARDS_FRESH: Duration = Duration::from_secs(60);
/// Regions whose shard count is remembered; above it, all are forgotten.
const MAX_CACHED: usize = 1_024;

/// Each region's shard count and when it was read.
#[derive(Debug, Default)]
pub(crate) struct ShardCache(Mutex<HashMap<RegionId, (u32, Instant)>>);

impl ShardCache {
    fn get(&self, region: &RegionId) -> Option<u32> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (shards, read_at) = *cache.get(region)?;
        (read_at.elapsed() < SHARDS_FRESH).then_some(shards)
    }

    /// So that the next use reads it.
    pub(crate) fn forget(&self, region: &RegionId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(region);
    }

    fn set(&self, region: &RegionId, shards: u32) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(region.clone(), (shards, Instant::now()));
    }
}

impl Store {
    /// Registers a region, or replaces what is registered of it.
    ///
    /// Its `shards` cannot change while instances are registered in it, or wanted out of service: they would
    /// no longer be found.
    pub async fn put_region(&self, region: &Region) -> Result<(), StoreError> {
        let key = region_key(&region.id);
        let problems = region.problems();
        if !problems.is_empty() {
            let call = self.call("PutItem", Table::Regions, &key);
            return Err(StoreError::Invalid { call, reason: problems.join("; ") });
        }
        let stored = self.get(Table::Regions, &key).await?;
        let stored_shards = stored.as_ref().and_then(|item| item::integer(item, SHARDS));
        let shards = stored_shards.and_then(|n| u32::try_from(n).ok()).unwrap_or(DEFAULT_SHARDS);
        if shards != region.shards {
            self.refuse_to_move_instances(region, shards).await?;
        }

        let condition = Condition::still(SHARDS, stored_shards);
        let update = Update::record(self.item(Table::Regions, &key, region)?, &OPTIONAL);
        match self.update_if(Table::Regions, update, condition).await? {
            Written::Done => {}
            Written::Refused(held) if self.is_own_write(held.as_ref(), region) => {}
            Written::Refused(_) => {
                let call = self.call("UpdateItem", Table::Regions, &key);
                return Err(StoreError::Contended { call, attempts: 1 });
            }
        }
        self.0.shards.set(&region.id, region.shards);
        Ok(())
    }

    /// All registered regions, by id.
    pub async fn regions(&self) -> Result<Vec<Region>, StoreError> {
        let items = self.query(Table::Regions, PARTITION, true).await?;
        let mut regions: Vec<Region> = self.readable(Table::Regions, items);
        regions.retain(|region| {
            let problems = region.problems();
            if !problems.is_empty() {
                self.skip(Table::Regions, &region_key(&region.id), &problems.join("; "));
            }
            problems.is_empty()
        });
        Ok(regions)
    }

    /// Where an instance is, in `gpu-instances` and in `routing-state`.
    pub(crate) async fn instance_key(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<Key, StoreError> {
        let shards = self.shards(region).await?;
        Ok(Key { pk: partition(region, shard(id.as_str(), shards)), sk: id.as_str().to_owned() })
    }

    /// The partitions of a region's instances.
    pub(crate) async fn partitions(&self, region: &RegionId) -> Result<Vec<String>, StoreError> {
        Ok((0..self.shards(region).await?).map(|shard| partition(region, shard)).collect())
    }

    async fn shards(&self, region: &RegionId) -> Result<u32, StoreError> {
        if let Some(shards) = self.0.shards.get(region) {
            return Ok(shards);
        }
        let key = region_key(region);
        let shards = match self.get(Table::Regions, &key).await? {
            None => DEFAULT_SHARDS,
            Some(item) => {
                let stored: Region = self.read(Table::Regions, item)?;
                let problems = stored.problems();
                if !problems.is_empty() {
                    let call = self.call("GetItem", Table::Regions, &key);
                    return Err(StoreError::Corrupt { call, reason: problems.join("; ") });
                }
                stored.shards
            }
        };
        self.0.shards.set(region, shards);
        Ok(shards)
    }

    async fn refuse_to_move_instances(
        &self,
        region: &Region,
        shards: u32,
    ) -> Result<(), StoreError> {
        let partitions = (0..shards).flat_map(|shard| {
            let pk = partition(&region.id, shard);
            [(Table::GpuInstances, desired_partition(&pk)), (Table::GpuInstances, pk)]
        });
        let answers = self.query_all(partitions.collect()).await?;
        let (desired, registered): (Vec<_>, Vec<_>) =
            answers.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        let now = clock::now();
        let registered = registered.iter().flat_map(|(_, items)| items);
        let instances = registered.filter(|item| !is_gone(item, now)).count();
        let desired = self.merged(desired.into_iter().flat_map(|(_, items)| items).collect());
        let held =
            desired.values().filter(|desired| desired.state != DesiredState::Serving).count();
        if instances == 0 && held == 0 {
            return Ok(());
        }
        let reason = format!(
            "`shards` cannot change from {shards} to {} while {instances} instances are registered and \
             {held} held in draining or quarantine: deregister them first, or keep {shards}",
            region.shards
        );
        let call = self.call("PutItem", Table::Regions, &region_key(&region.id));
        Err(StoreError::Invalid { call, reason })
    }
}

fn region_key(id: &RegionId) -> Key {
    Key { pk: PARTITION.to_owned(), sk: id.as_str().to_owned() }
}

fn partition(region: &RegionId, shard: u32) -> String {
    format!("{region}#{shard}")
}

/// Which of a region's partitions an instance, or what else has this id, is in. This is part of the stored
/// layout: FNV-1a over the id's bytes, its halves folded together, for its low bits alone mix poorly.
pub(crate) fn shard(id: &str, shards: u32) -> u32 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folded = (hash >> 32) as u32 ^ hash as u32;
    folded % shards.max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mrgc_fleet::model::Location;

    use super::*;

    #[test]
    fn the_layout_is_what_is_stored_already() {
        for (id, of_4, of_16) in
            [("i-1", 3, 7), ("i-1234567890abcdef0", 0, 0), ("gpu-a", 1, 1), ("é", 2, 6)]
        {
            assert_eq!((shard(id, 4), shard(id, 16)), (of_4, of_16), "{id}");
        }
    }

    #[test]
    fn instances_are_spread_evenly() {
        for shards in [3, 4, 16] {
            let mut counts = vec![0_u32; shards as usize];
            for n in 0..10_000 {
                counts[shard(&format!("i-{n:017x}"), shards) as usize] += 1;
            }
            let mean = 10_000 / shards;
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > mean * 8 / 10 && *most < mean * 12 / 10, "{shards}: {counts:?}");
        }
    }

    /// Were one forgotten, a region without it would keep the one before's.
    #[test]
    fn every_attribute_that_may_be_absent_is_named() {
        let least: Region =
            serde_json::from_str(r#"{"region_id": "r", "endpoint": "http://r"}"#).unwrap();
        let full = Region {
            id: "r".into(),
            name: "n".to_owned(),
            provider: Some("p".to_owned()),
            location: Some(Location { latitude: 1.0, longitude: 1.0 }),
            endpoint: "http://r".to_owned(),
            frameworks: vec!["soc2".into()],
            cost_multiplier: 1.0,
            carbon_intensity: Some(1.0),
            max_capacity: Some(1),
            shards: 1,
        };
        let key = region_key(&least.id);
        let (least, full) =
            (item::encode(&key, &least).unwrap(), item::encode(&key, &full).unwrap());
        let mut absent: Vec<_> = full.keys().filter(|name| !least.contains_key(*name)).collect();
        absent.sort_unstable();
        let mut optional = OPTIONAL;
        optional.sort_unstable();
        assert_eq!(absent, optional);
    }

    #[test]
    fn an_unregistered_region_is_spread_like_one_that_does_not_say() {
        let region: Region =
            serde_json::from_str(r#"{"region_id": "r", "endpoint": "http://r"}"#).unwrap();
        assert_eq!(region.shards, DEFAULT_SHARDS);
    }
}
