//! What is wanted of instances: draining, quarantine, service. Kept in `gpu-instances`, apart from what the
//! instances write.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `desired#REGION#n` | instance id `#` writing region | [`Desired`], a few hundred bytes |
//!
//! The partitions are of their own, so that a rule on leading keys keeps agents out of them: an instance
//! that registers again, or goes wild, cannot lift its quarantine. They are empty but for the instances of
//! which somebody wants something.
//!
//! Each region writes an item of its own, for a global table would let the later of two writes undo the
//! other. A writer reads all, takes the stamp after the highest, and writes conditionally on its own item
//! being what was read. Readers merge ([`Desired::merge`]).
//!
//! Draining and quarantine stay until somebody wants service again, or the instance is deleted. A wish for
//! service that no other region's item contradicts expires, since nothing being wanted means the same.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{Desired, DesiredState, InstanceId, RegionId, Stamp};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    clock::{self, DAY_SECONDS},
    error::StoreError,
    item::{self, Item},
    queries::Partition,
    range::has_ended,
    schema::{EXPIRES_AT, Table},
};

/// Writers in one region at the same time that one of them outlasts.
const DESIRE_ATTEMPTS: u32 = 8;
/// How long an uncontradicted wish for service is kept: longer than another region's may take to arrive.
const LIFTED_SECONDS: u64 = 7 * DAY_SECONDS;

const EPOCH: &str = "epoch";
const SEQUENCE: &str = "sequence";
const OPTIONAL: [&str; 2] = ["reason", "operator"];

impl Store {
    /// Writes what is wanted of an instance, as the opinion of `wish.writer_region`, under a stamp above
    /// all that are stored of it, and returns it with that stamp; the one given is ignored.
    ///
    /// The instance need not be registered: an operator may quarantine what is about to come back.
    pub async fn desire(&self, wish: &Desired) -> Result<Desired, StoreError> {
        let instance = self.instance_key(&wish.region, &wish.instance).await?;
        let key = Key {
            pk: desired_partition(&instance.pk),
            sk: format!("{}#{}", wish.instance, wish.writer_region),
        };
        for _ in 0..DESIRE_ATTEMPTS {
            let stored = self.opinions(&instance).await?;
            let (own, others): (Vec<_>, Vec<_>) =
                stored.iter().partition(|item| item::key_of(item).sk == key.sk);
            let highest = stored.iter().filter_map(stamp_of).max();
            let epoch = highest.map_or(0, |stamp| stamp.epoch);
            let next = Desired { stamp: Stamp::next(highest, epoch), ..wish.clone() };

            let item = self.item(Table::GpuInstances, &key, &next)?;
            let mut update = Update::record(item, &OPTIONAL).removing(EXPIRES_AT);
            if next.state == DesiredState::Serving && others.is_empty() {
                let end = clock::seconds(clock::now()).saturating_add(LIFTED_SECONDS);
                update = update.setting(EXPIRES_AT, AttributeValue::N(end.to_string()));
            }
            let own = own.first().and_then(|item| stamp_of(item));
            match self.update_if(Table::GpuInstances, update, still(own)).await? {
                Written::Done => return Ok(next),
                Written::Refused(held) if self.is_own_write(held.as_ref(), &next) => {
                    return Ok(next);
                }
                Written::Refused(_) => {}
            }
        }
        let call = self.call("UpdateItem", Table::GpuInstances, &key);
        Err(StoreError::Contended { call, attempts: DESIRE_ATTEMPTS })
    }

    /// What is wanted of one instance, all writing regions' opinions merged; strongly consistent within
    /// this one.
    pub async fn desired(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<Option<Desired>, StoreError> {
        self.desired_of(&self.instance_key(region, id).await?).await
    }

    /// Forgets what any region wanted of an instance. For those that are gone for good: a region that had
    /// not heard of it may write its own opinion again.
    pub async fn forget_desired(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<(), StoreError> {
        let instance = self.instance_key(region, id).await?;
        for item in self.opinions(&instance).await? {
            // One that was changed since it was read is wanted by somebody, and stays.
            let condition = still(stamp_of(&item));
            let (Written::Done | Written::Refused(_)) =
                self.delete_if(Table::GpuInstances, &item::key_of(&item), condition).await?;
        }
        Ok(())
    }

    pub(crate) async fn desired_of(&self, instance: &Key) -> Result<Option<Desired>, StoreError> {
        let opinions = self.opinions(instance).await?;
        Ok(self.merged(opinions).remove(instance.sk.as_str()))
    }

    /// The opinions among the items, merged for each instance. Those that cannot be read are skipped, and
    /// those whose time is over are left out.
    pub(crate) fn merged(&self, items: Vec<Item>) -> HashMap<InstanceId, Desired> {
        let now = clock::now();
        let mut merged: HashMap<InstanceId, Desired> = HashMap::new();
        for item in items.into_iter().filter(|item| !has_ended(item, now)) {
            let Some(desired) = self.readable_one::<Desired>(Table::GpuInstances, item) else {
                continue;
            };
            let desired = match merged.remove(&desired.instance) {
                Some(other) => other.merge(desired),
                None => desired,
            };
            merged.insert(desired.instance.clone(), desired);
        }
        merged
    }

    /// The items of all that want something of an instance, expired or not.
    async fn opinions(&self, instance: &Key) -> Result<Vec<Item>, StoreError> {
        let (pk, prefix) = (desired_partition(&instance.pk), format!("{}#", instance.sk));
        let mut items = Vec::new();
        let partition = Partition {
            table: Table::GpuInstances,
            pk: &pk,
            prefix: &prefix,
            attributes: &[],
            consistent: true,
        };
        self.pages(partition, |page| items.extend(page)).await?;
        Ok(items)
    }
}

/// Where what is wanted of a partition's instances is.
pub(crate) fn desired_partition(pk: &str) -> String {
    format!("desired#{pk}")
}

fn stamp_of(item: &Item) -> Option<Stamp> {
    Some(Stamp { epoch: item::integer(item, EPOCH)?, sequence: item::integer(item, SEQUENCE)? })
}

/// That an opinion is the one that was read, or still absent.
fn still(read: Option<Stamp>) -> Condition {
    match read {
        Some(stamp) => Condition::new(
            "#epoch = :epoch AND #sequence = :sequence",
            &[EPOCH, SEQUENCE],
            &[(EPOCH, stamp.epoch), (SEQUENCE, stamp.sequence)],
        ),
        None => Condition::still(SEQUENCE, None),
    }
}
