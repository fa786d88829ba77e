//! The calls about one item that every table is built from, with their errors mapped in one place.

use std::{collections::HashMap, error::Error, fmt, fmt::Write as _, sync::atomic::Ordering};

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError, put_item::PutItemError, update_item::UpdateItemError,
    },
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::warn;

use crate::{
    Store,
    error::{Call, StoreError},
    item::{self, Item, PK, SK},
    schema::Table,
};

/// An item's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) pk: String,
    pub(crate) sk: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}", self.pk, self.sk)
    }
}

/// What must hold of the stored item for a write to happen. In the expression, `#generation` is the
/// attribute `generation` and `:generation` the value of that name.
#[derive(Debug)]
pub(crate) struct Condition {
    expression: String,
    names: HashMap<String, String>,
    /// `None` where the expression names none: DynamoDB refuses an empty map.
    values: Option<HashMap<String, AttributeValue>>,
}

impl Condition {
    pub(crate) fn new(expression: &str, names: &[&str], values: &[(&str, u64)]) -> Self {
        let names = names.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect();
        let number = |n: u64| AttributeValue::N(n.to_string());
        let values: HashMap<_, _> =
            values.iter().map(|(name, n)| (format!(":{name}"), number(*n))).collect();
        let values = Some(values).filter(|values| !values.is_empty());
        Self { expression: expression.to_owned(), names, values }
    }

    /// That a number is what was read: still this one, or still absent.
    pub(crate) fn still(name: &str, read: Option<u64>) -> Self {
        match read {
            Some(n) => Self::new(&format!("#{name} = :{name}"), &[name], &[(name, n)]),
            None => Self::new(&format!("attribute_not_exists(#{name})"), &[name], &[]),
        }
    }

    /// With a text that the expression names, as `:name`.
    pub(crate) fn text(mut self, name: &str, text: &str) -> Self {
        let text = AttributeValue::S(text.to_owned());
        self.values.get_or_insert_default().insert(format!(":{name}"), text);
        self
    }
}

/// What a write changes of an item, which it makes where there is none. Attributes it does not name stay as
/// they are, so that what a newer version wrote survives an older one's writes.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) key: Key,
    pub(crate) set: Item,
    /// Set where the item does not have them yet.
    pub(crate) set_if_absent: Item,
    pub(crate) remove: Vec<&'static str>,
}

impl Update {
    /// A record over whatever is stored of it: `item` as [`Store::item`] makes it, and `optional`, the
    /// attributes of such a record that may be absent and then must not stay.
    pub(crate) fn record(mut item: Item, optional: &[&'static str]) -> Self {
        let key = item::key_of(&item);
        item.remove(PK);
        item.remove(SK);
        let absent = optional.iter().copied().filter(|name| !item.contains_key(*name)).collect();
        Self { key, set: item, set_if_absent: Item::new(), remove: absent }
    }

    pub(crate) fn setting(mut self, name: &str, value: AttributeValue) -> Self {
        self.remove.retain(|removed| *removed != name);
        self.set.insert(name.to_owned(), value);
        self
    }

    pub(crate) fn removing(mut self, name: &'static str) -> Self {
        self.set.remove(name);
        self.remove.push(name);
        self
    }

    /// The expression; its names and values are added to those of the condition, of which names may be the
    /// same and values are not.
    fn expression(self, condition: &mut Condition) -> String {
        let mut expression = String::new();
        let mut before = "SET ";
        let present = self.set.into_iter().map(|(name, value)| (name, value, false));
        let absent = self.set_if_absent.into_iter().map(|(name, value)| (name, value, true));
        for (name, value, if_absent) in present.chain(absent) {
            // Writing to a string cannot fail.
            let _ = if if_absent {
                write!(expression, "{before}#{name} = if_not_exists(#{name}, :set_{name})")
            } else {
                write!(expression, "{before}#{name} = :set_{name}")
            };
            condition.values.get_or_insert_default().insert(format!(":set_{name}"), value);
            condition.names.insert(format!("#{name}"), name);
            before = ", ";
        }
        before = if expression.is_empty() { "REMOVE " } else { " REMOVE " };
        for name in self.remove {
            let _ = write!(expression, "{before}#{name}");
            condition.names.insert(format!("#{name}"), name.to_owned());
            before = ", ";
        }
        expression
    }
}

/// A request that happens if a condition holds, and else returns what is stored. The three writes have these
/// methods in common, and no trait.
macro_rules! on_condition {
    ($request:expr, $condition:expr) => {
        $request
            .condition_expression($condition.expression)
            .set_expression_attribute_names(Some($condition.names))
            .set_expression_attribute_values($condition.values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
    };
}

/// What a conditional write came to.
#[derive(Debug)]
#[must_use]
pub(crate) enum Written {
    Done,
    /// The condition did not hold; the item that is stored, if there is one.
    Refused(Option<Item>),
}

impl Store {
    /// One item, strongly consistent.
    pub(crate) async fn get(&self, table: Table, key: &Key) -> Result<Option<Item>, StoreError> {
        let ask = |client: &Client| {
            client
                .get_item()
                .table_name(table.name(&self.0.table_prefix))
                .consistent_read(true)
                .key(PK, AttributeValue::S(key.pk.clone()))
                .key(SK, AttributeValue::S(key.sk.clone()))
                .send()
        };
        let output = self.ask(|| self.call("GetItem", table, key), ask).await?;
        Ok(output.item)
    }

    /// Writes a whole item, whatever is stored.
    pub(crate) async fn put(&self, table: Table, item: Item) -> Result<(), StoreError> {
        let key = item::key_of(&item);
        let request = self
            .0
            .client
            .put_item()
            .table_name(table.name(&self.0.table_prefix))
            .set_item(Some(item));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(self.call("PutItem", table, &key), error)),
        }
    }

    /// Writes a whole item, if the condition holds.
    pub(crate) async fn put_if(
        &self,
        table: Table,
        item: Item,
        condition: Condition,
    ) -> Result<Written, StoreError> {
        let key = item::key_of(&item);
        let request = self
            .0
            .client
            .put_item()
            .table_name(table.name(&self.0.table_prefix))
            .set_item(Some(item));
        let answer = on_condition!(request, condition).send().await;
        let refused = |error: &PutItemError| match error {
            PutItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone()),
            _ => None,
        };
        self.written("PutItem", table, &key, answer, refused).await
    }

    /// Changes an item, or makes it, if the condition holds.
    pub(crate) async fn update_if(
        &self,
        table: Table,
        update: Update,
        mut condition: Condition,
    ) -> Result<Written, StoreError> {
        let key = update.key.clone();
        let request = self.0.client.update_item().table_name(table.name(&self.0.table_prefix));
        let request = request
            .key(PK, AttributeValue::S(key.pk.clone()))
            .key(SK, AttributeValue::S(key.sk.clone()))
            .update_expression(update.expression(&mut condition));
        let answer = on_condition!(request, condition).send().await;
        let refused = |error: &UpdateItemError| match error {
            UpdateItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone()),
            _ => None,
        };
        self.written("UpdateItem", table, &key, answer, refused).await
    }

    /// Removes an item, if the condition holds.
    pub(crate) async fn delete_if(
        &self,
        table: Table,
        key: &Key,
        condition: Condition,
    ) -> Result<Written, StoreError> {
        let request = self.0.client.delete_item().table_name(table.name(&self.0.table_prefix));
        let request = request
            .key(PK, AttributeValue::S(key.pk.clone()))
            .key(SK, AttributeValue::S(key.sk.clone()));
        let answer = on_condition!(request, condition).send().await;
        let refused = |error: &DeleteItemError| match error {
            DeleteItemError::ConditionalCheckFailedException(refused) => Some(refused.item.clone()),
            _ => None,
        };
        self.written("DeleteItem", table, key, answer, refused).await
    }

    /// What a conditional write came to. `refused` finds the stored item in the error that says that the
    /// condition did not hold. An engine that does not return it (DynamoDB Local of before 2023) is asked
    /// for it.
    async fn written<T, E>(
        &self,
        operation: &'static str,
        table: Table,
        key: &Key,
        answer: Result<T, SdkError<E>>,
        refused: impl FnOnce(&E) -> Option<Option<Item>>,
    ) -> Result<Written, StoreError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Err(error) = answer else { return Ok(Written::Done) };
        match error.as_service_error().and_then(refused) {
            Some(Some(held)) => Ok(Written::Refused(Some(held))),
            Some(None) => Ok(Written::Refused(self.get(table, key).await?)),
            None => Err(self.failed(self.call(operation, table, key), error)),
        }
    }

    /// The records of a listing, without what cannot be read.
    pub(crate) fn readable<T: DeserializeOwned>(&self, table: Table, items: Vec<Item>) -> Vec<T> {
        items.into_iter().filter_map(|item| self.readable_one(table, item)).collect()
    }

    /// The record in one item of a listing; what cannot be read is skipped.
    pub(crate) fn readable_one<T: DeserializeOwned>(&self, table: Table, item: Item) -> Option<T> {
        let key = item::key_of(&item);
        item::decode(item).map_err(|reason| self.skip(table, &key, &reason)).ok()
    }

    /// Counts and names an item that cannot be read; one that is named already is not counted again.
    pub(crate) fn skip(&self, table: Table, key: &Key, reason: &str) {
        let table = table.name(&self.0.table_prefix);
        if self.0.corrupt.add(&table, key, reason) {
            let skipped = self.0.counters.corrupt_items.fetch_add(1, Ordering::Relaxed) + 1;
            // So that the log stays bounded.
            if skipped.is_power_of_two() {
                warn!(table, %key, reason, skipped, "skipped an item that cannot be read");
            }
        }
    }

    /// The record in one item that was asked for.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        table: Table,
        item: Item,
    ) -> Result<T, StoreError> {
        let key = item::key_of(&item);
        item::decode(item).map_err(|reason| StoreError::Corrupt {
            call: self.call("GetItem", table, &key),
            reason,
        })
    }

    /// A record as an item; what cannot be one was not ours to store.
    pub(crate) fn item(
        &self,
        table: Table,
        key: &Key,
        record: &impl Serialize,
    ) -> Result<Item, StoreError> {
        item::encode(key, record).map_err(|reason| StoreError::Invalid {
            call: self.call("PutItem", table, key),
            reason,
        })
    }

    pub(crate) fn call(&self, operation: &'static str, table: Table, key: &Key) -> Call {
        Call { operation, table: table.name(&self.0.table_prefix), key: key.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_update_names_what_it_sets_and_what_it_removes() {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let item = Item::from([
            (PK.to_owned(), text("p")),
            (SK.to_owned(), text("s")),
            ("zone".to_owned(), text("a")),
        ]);
        let update = Update::record(item, &["zone", "slots"]).removing("expires_at");
        assert_eq!(update.key, Key { pk: "p".to_owned(), sk: "s".to_owned() });
        let mut condition = Condition::new("#zone = :zone", &["zone"], &[]).text("zone", "b");
        let expression = update.expression(&mut condition);
        assert_eq!(expression, "SET #zone = :set_zone REMOVE #slots, #expires_at");
        let values = condition.values.unwrap();
        assert_eq!((&values[":zone"], &values[":set_zone"]), (&text("b"), &text("a")));
        assert_eq!(condition.names.len(), 3);

        let gone = Update {
            key: Key { pk: String::new(), sk: String::new() },
            set: Item::new(),
            set_if_absent: Item::new(),
            remove: vec!["slots"],
        };
        let mut none = Condition::new("attribute_exists(#pk)", &["pk"], &[]);
        assert_eq!(gone.expression(&mut none), "REMOVE #slots");
        assert!(none.values.is_none(), "DynamoDB refuses an empty map");
    }
}
