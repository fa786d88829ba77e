//! `cleanup-validation`: the evidence that nothing of a tenant was left on an instance.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | instance id | generation `#` sequence, 20 digits each | [`CleanupValidation`], at most 4 KB; ends after 90 days |
//!
//! A partition is one instance's, so that an agent with a principal of its own can be held to it by a rule on
//! leading keys. Items are added and never changed. Their order is that of generation and sequence, whatever
//! the clock says, so the last one is the current verdict.
//!
//! What an operator asks: may this instance serve again ([`Store::latest_cleanup`]), what happened on it
//! ([`Store::cleanups`]), and why are these quarantined ([`Store::latest_cleanups`], for the instances that
//! the registry lists). How many fail in a region is counted in `metrics`.

use std::collections::BTreeMap;

use mrgc_fleet::model::{CleanupValidation, InstanceId, Timestamp};

use crate::{
    Store,
    calls::{Condition, Key, Written},
    clock::{self, DAY_SECONDS},
    error::{Fence, StoreError},
    item,
    range::{LAST, Order, Range},
    schema::Table,
};

/// What a validation may take: five checks with details of 256 bytes are about 2 KB.
pub const CLEANUP_BUDGET_BYTES: usize = 4_096;

/// How long a validation is kept.
const KEPT_SECONDS: u64 = 90 * DAY_SECONDS;

impl Store {
    /// When a validation that was made at `at` may be removed, in seconds since 1970.
    pub fn cleanup_expires_at(at: Timestamp) -> u64 {
        clock::seconds(at) + KEPT_SECONDS
    }

    /// Adds a validation. One of the same generation and sequence with other findings is
    /// [`StoreError::Fenced`]; a verdict that its checks do not bear out is [`StoreError::Invalid`].
    pub async fn record_cleanup(&self, validation: &CleanupValidation) -> Result<(), StoreError> {
        let key = Key {
            pk: validation.instance.as_str().to_owned(),
            sk: sort_key(validation.generation, validation.sequence),
        };
        if validation.passed != CleanupValidation::verdict(&validation.checks) {
            let reason = format!("`passed` is {}, but its checks say otherwise", validation.passed);
            let call = self.call("PutItem", Table::CleanupValidation, &key);
            return Err(StoreError::Invalid { call, reason });
        }
        let item = self.item(Table::CleanupValidation, &key, validation)?;
        self.within(Table::CleanupValidation, &key, &item, CLEANUP_BUDGET_BYTES)?;
        let absent = Condition::new("attribute_not_exists(#pk)", &[item::PK], &[]);
        match self.put_if(Table::CleanupValidation, item, absent).await? {
            Written::Done => Ok(()),
            Written::Refused(held) if self.is_own_write(held.as_ref(), validation) => Ok(()),
            Written::Refused(held) => {
                let offered = Fence {
                    generation: validation.generation,
                    sequence: Some(validation.sequence),
                };
                Err(self.fenced("PutItem", Table::CleanupValidation, &key, offered, held))
            }
        }
    }

    /// An instance's last validation, strongly consistent. One that cannot be read is an error, so that an
    /// older verdict does not stand for it.
    pub async fn latest_cleanup(
        &self,
        instance: &InstanceId,
    ) -> Result<Option<CleanupValidation>, StoreError> {
        let newest = self.newest_cleanups(instance, 1).await?.pop();
        newest.map(|item| self.read(Table::CleanupValidation, item)).transpose()
    }

    /// An instance's validations, the last one first.
    pub async fn cleanups(
        &self,
        instance: &InstanceId,
        limit: usize,
    ) -> Result<Vec<CleanupValidation>, StoreError> {
        let items = self.newest_cleanups(instance, limit).await?;
        Ok(self.readable(Table::CleanupValidation, items))
    }

    /// The last validation of each of these instances that has one.
    pub async fn latest_cleanups(
        &self,
        instances: &[InstanceId],
    ) -> Result<BTreeMap<InstanceId, CleanupValidation>, StoreError> {
        let latest = self.all(instances.iter().map(|instance| {
            let (store, instance) = (self.clone(), instance.clone());
            async move { store.latest_cleanup(&instance).await }
        }));
        let latest = latest.await?.into_iter().flatten();
        Ok(latest.map(|validation| (validation.instance.clone(), validation)).collect())
    }

    async fn newest_cleanups(
        &self,
        instance: &InstanceId,
        limit: usize,
    ) -> Result<Vec<item::Item>, StoreError> {
        let range = Range {
            from: sort_key(0, 0),
            to: LAST.to_string(),
            order: Order::LastKeyFirst,
            limit: Some(limit),
            consistent: true,
        };
        self.query_range(Table::CleanupValidation, instance.as_str(), &range).await
    }
}

fn sort_key(generation: u64, sequence: u64) -> String {
    format!("{generation:020}#{sequence:020}")
}
