//! What operators want of regions' traffic: one item for each region that wants something of one.

use std::{collections::BTreeMap, ops::ControlFlow};

use mrgc_fleet::{failover::RegionOrder, model::RegionId};

use crate::{
    Store,
    error::StoreError,
    item::Item,
    opinions::{Opinion, Stored, Subject},
    schema::Table,
};

const ORDERS: &str = "ORDERS";
/// The attributes of an order that may be absent.
const OPTIONAL: [&str; 5] = ["reason", "operator", "state", "to", "strategy"];

impl Store {
    /// Writes what is wanted of a region, as the opinion of `order.writer_region`, under a stamp above all
    /// that are stored of it, and returns it with that stamp; the one given is ignored.
    pub async fn put_region_order(&self, order: &RegionOrder) -> Result<RegionOrder, StoreError> {
        self.write_order(order, |Stored { next, .. }| {
            let record = RegionOrder { stamp: next, ..order.clone() };
            ControlFlow::Continue(Opinion { record, ends: None })
        })
        .await
    }

    /// Writes what was wanted of a region while the store was away, under the stamp that it was given then,
    /// and returns the order in force: this one, or one that was written meanwhile and goes before it. Then
    /// nothing is written.
    pub async fn put_late_region_order(
        &self,
        order: &RegionOrder,
    ) -> Result<RegionOrder, StoreError> {
        self.write_order(order, |Stored { items, own, .. }| {
            let in_force = self.orders(items).remove(&order.region);
            let merged = in_force.map_or_else(|| order.clone(), |other| other.merge(order.clone()));
            if merged != *order || own >= Some(order.stamp) {
                return ControlFlow::Break(merged);
            }
            ControlFlow::Continue(Opinion { record: merged, ends: None })
        })
        .await
    }

    /// The order in force of each region, all writing regions' merged; strongly consistent within this one.
    pub async fn region_orders(&self) -> Result<Vec<RegionOrder>, StoreError> {
        let items = self.query(Table::Control, ORDERS, true).await?;
        Ok(self.orders(items).into_values().collect())
    }

    async fn write_order(
        &self,
        order: &RegionOrder,
        form: impl Fn(Stored) -> ControlFlow<RegionOrder, Opinion<RegionOrder>>,
    ) -> Result<RegionOrder, StoreError> {
        let subject = Subject { table: Table::Control, pk: ORDERS, name: order.region.as_str() };
        self.write_opinion(subject, &order.writer_region, &OPTIONAL, form).await
    }

    /// Merged for each region, without what cannot be read.
    fn orders(&self, items: Vec<Item>) -> BTreeMap<RegionId, RegionOrder> {
        let mut merged: BTreeMap<RegionId, RegionOrder> = BTreeMap::new();
        for order in self.readable::<RegionOrder>(Table::Control, items) {
            let order = match merged.remove(&order.region) {
                Some(other) => other.merge(order),
                None => order,
            };
            merged.insert(order.region.clone(), order);
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mrgc_fleet::{
        failover::{RegionState, Strategy, Wish},
        model::{Stamp, Timestamp},
    };

    use super::*;
    use crate::{calls::Key, item};

    /// Were one forgotten, an order without it would keep the one before's.
    #[test]
    fn every_attribute_that_may_be_absent_is_named() {
        let least = RegionOrder {
            region: "us".into(),
            wish: Wish::Automatic,
            reason: None,
            operator: None,
            at: Timestamp(0),
            writer_region: "us".into(),
            stamp: Stamp::default(),
        };
        let some = Some("s".to_owned());
        let failed_over = Wish::FailOver { to: Some("eu".into()), strategy: Strategy::Graceful };
        let key = Key { pk: "p".to_owned(), sk: "s".to_owned() };
        let encoded = |order: &RegionOrder| item::encode(&key, order).unwrap();
        let mut absent = Vec::new();
        for wish in [failed_over, Wish::Pinned { state: RegionState::Normal }] {
            let full =
                RegionOrder { wish, reason: some.clone(), operator: some.clone(), ..least.clone() };
            absent.extend(encoded(&full).into_keys());
            assert_eq!(item::decode::<RegionOrder>(encoded(&full)).unwrap(), full);
        }
        let least = encoded(&least);
        absent.retain(|name| !least.contains_key(name));
        absent.sort_unstable();
        absent.dedup();
        let mut optional = OPTIONAL;
        optional.sort_unstable();
        assert_eq!(absent, optional);
    }
}
