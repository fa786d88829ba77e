//! The four calls that every table is built from, with their errors mapped in one place.

use std::{collections::HashMap, error::Error, fmt, sync::atomic::Ordering};

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{delete_item::DeleteItemError, put_item::PutItemError},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::JoinSet;
use tracing::warn;

use crate::{
    Store,
    error::{Call, StoreError},
    item::{self, Item, PK, SK},
    schema::Table,
};

/// Partitions that one listing queries at the same time.
const QUERIES_AT_ONCE: usize = 32;
/// Pages of one partition, of 1 MB each, before a listing gives up.
const MAX_PAGES: usize = 1_000;

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
        let request = self
            .0
            .client
            .get_item()
            .table_name(table.name(&self.0.table_prefix))
            .consistent_read(true);
        let answer = request
            .key(PK, AttributeValue::S(key.pk.clone()))
            .key(SK, AttributeValue::S(key.sk.clone()))
            .send()
            .await;
        match answer {
            Ok(output) => Ok(output.item),
            Err(error) => Err(self.failed(self.call("GetItem", table, key), error)),
        }
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
        let answer = request
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Written::Done),
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refused)) => {
                    Ok(Written::Refused(refused.item.clone()))
                }
                _ => Err(self.failed(self.call("PutItem", table, &key), error)),
            },
        }
    }

    /// Removes an item, if the condition holds.
    pub(crate) async fn delete_if(
        &self,
        table: Table,
        key: &Key,
        condition: Condition,
    ) -> Result<Written, StoreError> {
        let request = self.0.client.delete_item().table_name(table.name(&self.0.table_prefix));
        let answer = request
            .key(PK, AttributeValue::S(key.pk.clone()))
            .key(SK, AttributeValue::S(key.sk.clone()))
            .condition_expression(condition.expression)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(condition.values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(Written::Done),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(refused)) => {
                    Ok(Written::Refused(refused.item.clone()))
                }
                _ => Err(self.failed(self.call("DeleteItem", table, key), error)),
            },
        }
    }

    /// A partition's items in the order of their sort keys, all pages followed.
    pub(crate) async fn query(
        &self,
        table: Table,
        pk: &str,
        consistent: bool,
    ) -> Result<Vec<Item>, StoreError> {
        let call = || Call {
            operation: "Query",
            table: table.name(&self.0.table_prefix),
            key: pk.to_owned(),
        };
        let mut items = Vec::new();
        let mut after = None;
        for _ in 0..MAX_PAGES {
            let request = self.0.client.query().table_name(table.name(&self.0.table_prefix));
            let page = request
                .consistent_read(consistent)
                .key_condition_expression("#pk = :pk")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .set_exclusive_start_key(after)
                .send()
                .await
                .map_err(|error| self.failed(call(), error))?;
            items.extend(page.items.unwrap_or_default());
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                return Ok(items);
            }
        }
        let reason = format!("the partition has more than {MAX_PAGES} pages");
        Err(StoreError::Other { call: call(), reason, retryable: false })
    }

    /// Several partitions at once, eventually consistent; each answer with the table it is from.
    pub(crate) async fn query_all(
        &self,
        partitions: Vec<(Table, String)>,
    ) -> Result<Vec<(Table, Vec<Item>)>, StoreError> {
        let mut answers = Vec::with_capacity(partitions.len());
        let mut waiting = partitions.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < QUERIES_AT_ONCE
                && let Some((table, pk)) = waiting.next()
            {
                let store = self.clone();
                running.spawn(async move { (table, store.query(table, &pk, false).await) });
            }
            match running.join_next().await {
                None => return Ok(answers),
                Some(Ok((table, items))) => answers.push((table, items?)),
                Some(Err(error)) => {
                    let reason = format!("a query ended early: {error}");
                    let table = format!("{}-*", self.0.table_prefix);
                    let call = Call { operation: "Query", table, key: String::new() };
                    return Err(StoreError::Other { call, reason, retryable: true });
                }
            }
        }
    }

    /// The records of a listing. What cannot be read is skipped, counted and, so that the log stays
    /// bounded, told whenever the count has doubled.
    pub(crate) fn readable<T: DeserializeOwned>(&self, table: Table, items: Vec<Item>) -> Vec<T> {
        let mut records = Vec::with_capacity(items.len());
        for item in items {
            let key = item::key_of(&item);
            match item::decode(item) {
                Ok(record) => records.push(record),
                Err(reason) => self.skip(table, &key, &reason),
            }
        }
        records
    }

    pub(crate) fn skip(&self, table: Table, key: &Key, reason: &str) {
        let skipped = self.0.counters.corrupt_items.fetch_add(1, Ordering::Relaxed) + 1;
        if skipped.is_power_of_two() {
            let table = table.name(&self.0.table_prefix);
            warn!(table, %key, reason, skipped, "skipped an item that cannot be read");
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

    pub(crate) fn failed<E>(&self, call: Call, error: SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        StoreError::from_sdk(call, &self.0.endpoint, self.0.timeout_ms, error)
    }
}
