//! Reading many items: partitions whole or in part, several at once, and items by their keys.

use std::{collections::HashMap, future::Future, sync::atomic::Ordering, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Store,
    calls::Key,
    error::{Call, StoreError},
    item::{Item, PK, SK},
    schema::Table,
};

/// Calls that one listing makes at the same time.
const CALLS_AT_ONCE: usize = 32;
/// Pages of one partition, of 1 MB each, before a listing gives up.
const MAX_PAGES: usize = 1_000;
/// Keys that the service takes in one `BatchGetItem`.
const BATCH_KEYS: usize = 100;
/// Times that keys which the service left out for lack of capacity are asked for again.
const BATCH_ATTEMPTS: u32 = 4;
/// Before the second of these, and twice as long before each next; drawn at random below it.
const BATCH_BACKOFF: Duration = Duration::from_millis(50);

/// A partition, and how to read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition<'a> {
    pub(crate) table: Table,
    pub(crate) pk: &'a str,
    /// Of the sort keys; empty: all.
    pub(crate) prefix: &'a str,
    /// The attributes to return; empty: all. The service reads, and charges for, whole items either way.
    pub(crate) attributes: &'a [&'static str],
    pub(crate) consistent: bool,
}

impl Store {
    /// A partition's items in the order of their sort keys, all pages followed.
    pub(crate) async fn query(
        &self,
        table: Table,
        pk: &str,
        consistent: bool,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let partition = Partition { table, pk, prefix: "", attributes: &[], consistent };
        self.pages(partition, |page| items.extend(page)).await?;
        Ok(items)
    }

    /// Hands on a partition's items page by page, in the order of their sort keys.
    pub(crate) async fn pages(
        &self,
        partition: Partition<'_>,
        mut page: impl FnMut(Vec<Item>),
    ) -> Result<(), StoreError> {
        let Partition { table, pk, prefix, attributes, consistent } = partition;
        let call = || Call {
            operation: "Query",
            table: table.name(&self.0.table_prefix),
            key: pk.to_owned(),
        };
        let placeholder = |name: &str| format!("#{name}");
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut names = HashMap::from([(placeholder(PK), PK.to_owned())]);
        let mut values = HashMap::from([(":pk".to_owned(), text(pk))]);
        let mut condition = "#pk = :pk";
        if !prefix.is_empty() {
            condition = "#pk = :pk AND begins_with(#sk, :prefix)";
            names.insert(placeholder(SK), SK.to_owned());
            values.insert(":prefix".to_owned(), text(prefix));
        }
        names.extend(attributes.iter().map(|name| (placeholder(name), (*name).to_owned())));
        let projection: Vec<_> = attributes.iter().map(|name| placeholder(name)).collect();
        let projection = Some(projection.join(",")).filter(|names| !names.is_empty());
        let mut after = None;
        for _ in 0..MAX_PAGES {
            let ask = |client: &Client| {
                client
                    .query()
                    .table_name(table.name(&self.0.table_prefix))
                    .consistent_read(consistent)
                    .key_condition_expression(condition)
                    .set_projection_expression(projection.clone())
                    .set_expression_attribute_names(Some(names.clone()))
                    .set_expression_attribute_values(Some(values.clone()))
                    .set_exclusive_start_key(after.clone())
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            };
            let answer = self.ask(call, ask).await?;
            self.count_consumed(answer.consumed_capacity());
            page(answer.items.unwrap_or_default());
            after = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() {
                return Ok(());
            }
        }
        let reason = format!("the partition has more than {MAX_PAGES} pages");
        Err(StoreError::Other { call: call(), reason, retryable: false })
    }

    /// Several partitions at once, eventually consistent; the answers in the order of the questions.
    pub(crate) async fn query_all(
        &self,
        partitions: Vec<(Table, String)>,
    ) -> Result<Vec<Vec<Item>>, StoreError> {
        let queries = partitions.into_iter().map(|(table, pk)| {
            let store = self.clone();
            async move { store.query(table, &pk, false).await }
        });
        self.all(queries).await
    }

    /// What `read` makes of the items of these keys that are there, in no order. Each batch is read as it
    /// comes: whole items take many times what is made of them.
    pub(crate) async fn get_all<T: Send + 'static>(
        &self,
        table: Table,
        keys: &[Key],
        consistent: bool,
        read: impl Fn(Item) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, StoreError> {
        let batches = keys.chunks(BATCH_KEYS).map(|keys| {
            let (store, keys, read) = (self.clone(), keys.to_vec(), read.clone());
            async move {
                let items = store.get_batch(table, keys, consistent).await?;
                Ok(items.into_iter().map(read).collect::<Vec<_>>())
            }
        });
        let batches: Vec<_> = batches.collect();
        Ok(self.all(batches).await?.into_iter().flatten().collect())
    }

    /// Up to [`BATCH_KEYS`] items. What the service leaves out for lack of capacity is asked for again.
    async fn get_batch(
        &self,
        table: Table,
        keys: Vec<Key>,
        consistent: bool,
    ) -> Result<Vec<Item>, StoreError> {
        let name = table.name(&self.0.table_prefix);
        let first = keys.first().map(Key::to_string).unwrap_or_default();
        let call = || Call {
            operation: "BatchGetItem",
            table: name.clone(),
            key: format!("{first} and {} more", keys.len().saturating_sub(1)),
        };
        let mut wanted: Vec<Item> = keys.iter().map(key_item).collect();
        let mut items = Vec::with_capacity(keys.len());
        for attempt in 0..BATCH_ATTEMPTS {
            if wanted.is_empty() {
                return Ok(items);
            }
            if attempt > 0 {
                sleep((BATCH_BACKOFF * (1 << (attempt - 1))).mul_f64(fastrand::f64())).await;
            }
            let asked = KeysAndAttributes::builder()
                .set_keys(Some(std::mem::take(&mut wanted)))
                .consistent_read(consistent)
                .build()
                .map_err(|error| StoreError::Invalid { call: call(), reason: error.to_string() })?;
            let ask = |client: &Client| {
                client
                    .batch_get_item()
                    .request_items(name.clone(), asked.clone())
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .send()
            };
            let answer = self.ask(call, ask).await?;
            self.count_consumed(answer.consumed_capacity());
            items.extend(answer.responses.unwrap_or_default().remove(&name).unwrap_or_default());
            let left = answer.unprocessed_keys.unwrap_or_default().remove(&name);
            wanted = left.map(|left| left.keys).unwrap_or_default();
        }
        if wanted.is_empty() {
            return Ok(items);
        }
        let reason = format!("{} keys were left out {BATCH_ATTEMPTS} times in a row", wanted.len());
        Err(StoreError::Throttled { call: call(), reason })
    }

    fn count_consumed<'a>(&self, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
        let units: f64 = consumed.into_iter().filter_map(|one| one.capacity_units).sum();
        self.0.counters.read_half_units.fetch_add((2.0 * units) as u64, Ordering::Relaxed);
    }

    /// Does all of them, some at a time; the answers in the order of the questions, or the first failure.
    pub(crate) async fn all<T, F>(
        &self,
        jobs: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut waiting = jobs.into_iter().enumerate();
        let mut running = JoinSet::new();
        let mut answers = Vec::new();
        loop {
            while running.len() < CALLS_AT_ONCE
                && let Some((index, job)) = waiting.next()
            {
                running.spawn(async move { (index, job.await) });
            }
            match running.join_next().await {
                None => break,
                Some(Ok((index, answer))) => answers.push((index, answer?)),
                Some(Err(error)) => {
                    let reason = format!("a call ended early: {error}");
                    let table = format!("{}-*", self.0.table_prefix);
                    let call = Call { operation: "Query", table, key: String::new() };
                    return Err(StoreError::Other { call, reason, retryable: true });
                }
            }
        }
        answers.sort_unstable_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

fn key_item(key: &Key) -> Item {
    HashMap::from([
        (PK.to_owned(), AttributeValue::S(key.pk.clone())),
        (SK.to_owned(), AttributeValue::S(key.sk.clone())),
    ])
}
