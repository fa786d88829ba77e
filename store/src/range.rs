//! A part of a partition: a range of sort keys, from either end, up to a limit. And what has ended.

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use mrgc_fleet::model::Timestamp;

use crate::{
    Store, clock,
    error::{Call, StoreError},
    item::{self, Item, PK, SK},
    schema::{EXPIRES_AT, Table},
};

/// Pages of 1 MB before a range is given up.
const MAX_PAGES: usize = 1_000;

/// Above every character that keys are made of, for the end of a range of prefixes.
pub(crate) const LAST: char = '~';

/// Sort keys from one to another, both included.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) order: Order,
    /// Items at most; `None`: all.
    pub(crate) limit: Option<usize>,
    pub(crate) consistent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    FirstKeyFirst,
    LastKeyFirst,
}

impl Store {
    /// The items of a partition whose sort keys are in the range. Those whose time is over are left out:
    /// the service removes them in its own time.
    pub(crate) async fn query_range(
        &self,
        table: Table,
        pk: &str,
        range: &Range,
    ) -> Result<Vec<Item>, StoreError> {
        let name = table.name(&self.0.table_prefix);
        let call = || Call {
            operation: "Query",
            table: name.clone(),
            key: format!("{pk} / {} to {}", range.from, range.to),
        };
        let limit = range.limit.unwrap_or(usize::MAX);
        // The service takes neither for a question.
        if limit == 0 || range.from > range.to {
            return Ok(Vec::new());
        }
        let page_limit = range.limit.and_then(|limit| i32::try_from(limit).ok());
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let now = clock::now();
        let mut items = Vec::new();
        let mut after = None;
        for _ in 0..MAX_PAGES {
            let ask = |client: &Client| {
                client
                    .query()
                    .table_name(&name)
                    .consistent_read(range.consistent)
                    .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
                    .expression_attribute_names("#pk", PK)
                    .expression_attribute_names("#sk", SK)
                    .expression_attribute_values(":pk", text(pk))
                    .expression_attribute_values(":from", text(&range.from))
                    .expression_attribute_values(":to", text(&range.to))
                    .scan_index_forward(range.order == Order::FirstKeyFirst)
                    .set_limit(page_limit)
                    .set_exclusive_start_key(after.clone())
                    .send()
            };
            let page = self.ask(call, ask).await?;
            let found = page.items.unwrap_or_default();
            items.extend(found.into_iter().filter(|item| !has_ended(item, now)));
            after = page.last_evaluated_key.filter(|key| !key.is_empty());
            if items.len() >= limit || after.is_none() {
                items.truncate(limit);
                return Ok(items);
            }
        }
        let reason = format!("the range has more than {MAX_PAGES} pages");
        Err(StoreError::Other { call: call(), reason, retryable: false })
    }
}

/// Whether an item's time is over. One without an end has none.
pub(crate) fn has_ended(item: &Item, now: Timestamp) -> bool {
    item::integer(item, EXPIRES_AT).is_some_and(|end| end <= clock::seconds(now))
}
