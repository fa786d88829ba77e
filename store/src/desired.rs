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
//! Each region writes an item of its own ([`opinions`](crate::opinions)), and readers merge
//! ([`Desired::merge`]).
//!
//! Draining and quarantine stay until somebody wants service again, or the instance is deleted. A wish for
//! service that no other region's item contradicts expires, since nothing being wanted means the same.

use std::{collections::HashMap, ops::ControlFlow};

use mrgc_fleet::model::{Desired, DesiredState, InstanceId, RegionId};

use crate::{
    Store,
    calls::{Key, Written},
    clock::{self, DAY_SECONDS},
    error::StoreError,
    item::{self, Item},
    opinions::{Opinion, Stored, Subject},
    range::has_ended,
    schema::Table,
    stamp::{stamp_of, still},
};

/// How long an uncontradicted wish for service is kept: longer than another region's may take to arrive.
const LIFTED_SECONDS: u64 = 7 * DAY_SECONDS;

const OPTIONAL: [&str; 3] = ["reason", "operator", "automatic"];

impl Store {
    /// Writes what is wanted of an instance, as the opinion of `wish.writer_region`, under a stamp above
    /// all that are stored of it, and returns it with that stamp; the one given is ignored.
    ///
    /// Where it yields to what is stored ([`Desired::yields_to`]), nothing is written, and that is returned.
    ///
    /// The instance need not be registered: an operator may quarantine what is about to come back.
    pub async fn desire(&self, wish: &Desired) -> Result<Desired, StoreError> {
        let instance = self.instance_key(&wish.region, &wish.instance).await?;
        let pk = desired_partition(&instance.pk);
        let form = |stored: Stored| {
            let Stored { items, next, is_alone, .. } = stored;
            let in_force = self.merged(items).remove(&wish.instance);
            if let Some(in_force) = in_force.filter(|in_force| wish.yields_to(in_force)) {
                return ControlFlow::Break(in_force);
            }
            let is_lifted = wish.state == DesiredState::Serving && is_alone;
            let end = || clock::seconds(clock::now()).saturating_add(LIFTED_SECONDS);
            let record = Desired { stamp: next, ..wish.clone() };
            ControlFlow::Continue(Opinion { record, ends: is_lifted.then(end) })
        };
        self.write_opinion(subject(&pk, &wish.instance), &wish.writer_region, &OPTIONAL, form).await
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
        self.remove(self.opinions(subject(&desired_partition(&instance.pk), id)).await?).await
    }

    /// The same, unless a person keeps the instance out of service; whether nobody does.
    pub(crate) async fn forget_unheld_desired(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<bool, StoreError> {
        let instance = self.instance_key(region, id).await?;
        let mut opinions = self.opinions(subject(&desired_partition(&instance.pk), id)).await?;
        let in_force = self.merged(opinions.clone()).remove(id);
        if in_force.is_some_and(|it| !it.automatic && it.state != DesiredState::Serving) {
            return Ok(false);
        }
        // The one in force goes last, so that a break does not put another in its place.
        opinions.sort_by_key(stamp_of);
        self.remove(opinions).await?;
        Ok(true)
    }

    async fn remove(&self, opinions: Vec<Item>) -> Result<(), StoreError> {
        for item in opinions {
            // One that was changed since it was read is wanted by somebody, and stays.
            let condition = still(stamp_of(&item));
            let (Written::Done | Written::Refused(_)) =
                self.delete_if(Table::GpuInstances, &item::key_of(&item), condition).await?;
        }
        Ok(())
    }

    pub(crate) async fn desired_of(&self, instance: &Key) -> Result<Option<Desired>, StoreError> {
        let id = InstanceId::from(instance.sk.as_str());
        let opinions = self.opinions(subject(&desired_partition(&instance.pk), &id)).await?;
        Ok(self.merged(opinions).remove(&id))
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
}

/// Where what is wanted of a partition's instances is.
pub(crate) fn desired_partition(pk: &str) -> String {
    format!("desired#{pk}")
}

fn subject<'a>(pk: &'a str, instance: &'a InstanceId) -> Subject<'a> {
    Subject { table: Table::GpuInstances, pk, name: instance.as_str() }
}
