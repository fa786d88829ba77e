//! `routing-state`: what each instance says of itself every few seconds.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGION#n` | instance id | [`Report`], at most [`REPORT_BUDGET_BYTES`] |
//!
//! The instance is the only writer of its item, so a heartbeat is one conditional `PutItem` of one write
//! unit: it happens if the stored pair (generation, sequence) is lower. A writer from before the latest
//! registration, a clone or a replay therefore loses. Its reader closes the gap until the newcomer's
//! first report: a report counts only under the generation that is registered (see `gpu_instances`).

use std::sync::atomic::Ordering;

use mrgc_fleet::model::Report;
use serde::de::DeserializeOwned;

use crate::{
    Store,
    calls::{Condition, Key, Written},
    error::{Fence, StoreError},
    item::{self, Item},
    schema::Table,
};

/// What a report may take: one write unit. The reason is shortened to keep to it; with very many models
/// a report may still be above, is written all the same, costs another unit and is counted.
pub const REPORT_BUDGET_BYTES: usize = 1_024;

pub(crate) const GENERATION: &str = "generation";
pub(crate) const SEQUENCE: &str = "sequence";

impl Store {
    /// Writes an instance's report, unless one of the same or a later (generation, sequence) is stored:
    /// then it is [`StoreError::Fenced`], and this writer should register again or stop.
    ///
    /// Where the SDK repeats a write that had been done, the stored item is this very report, and that
    /// counts as success.
    pub async fn report(&self, report: &Report) -> Result<(), StoreError> {
        let key = self.instance_key(&report.region, &report.id).await?;
        let (report, item) = self.within_budget(&key, report)?;
        let condition = Condition::new(
            "attribute_not_exists(#pk) OR #generation < :generation \
             OR (#generation = :generation AND #sequence < :sequence)",
            &[item::PK, GENERATION, SEQUENCE],
            &[(GENERATION, report.generation), (SEQUENCE, report.sequence)],
        );
        match self.put_if(Table::RoutingState, item, condition).await? {
            Written::Done => Ok(()),
            Written::Refused(held) if self.is_own_write(held.as_ref(), &report) => Ok(()),
            Written::Refused(held) => {
                let offered =
                    Fence { generation: report.generation, sequence: Some(report.sequence) };
                Err(self.fenced("PutItem", Table::RoutingState, &key, offered, held))
            }
        }
    }

    /// Removes an instance's report, unless it is of a later generation.
    pub(crate) async fn remove_report(&self, key: &Key, generation: u64) -> Result<(), StoreError> {
        let condition = Condition::new(
            "attribute_not_exists(#pk) OR #generation <= :generation",
            &[item::PK, GENERATION],
            &[(GENERATION, generation)],
        );
        match self.delete_if(Table::RoutingState, key, condition).await? {
            Written::Done => Ok(()),
            Written::Refused(held) => {
                let offered = Fence { generation, sequence: None };
                Err(self.fenced("DeleteItem", Table::RoutingState, key, offered, held))
            }
        }
    }

    /// Whether a refused write had been done before by the same call: what is stored is what it wrote.
    pub(crate) fn is_own_write<T>(&self, held: Option<&Item>, written: &T) -> bool
    where
        T: DeserializeOwned + PartialEq,
    {
        let own = held.is_some_and(|i| item::decode::<T>(i.clone()).is_ok_and(|h| h == *written));
        if own {
            self.0.counters.repeated_writes.fetch_add(1, Ordering::Relaxed);
        }
        own
    }

    /// A write that lost against what is stored; corrupt, where that does not say its generation.
    pub(crate) fn fenced(
        &self,
        operation: &'static str,
        table: Table,
        key: &Key,
        offered: Fence,
        held: Option<Item>,
    ) -> StoreError {
        let call = self.call(operation, table, key);
        let held = held.unwrap_or_default();
        match item::integer(&held, GENERATION) {
            Some(generation) => {
                let stored = Fence { generation, sequence: item::integer(&held, SEQUENCE) };
                StoreError::Fenced { call, offered, stored }
            }
            None => StoreError::Corrupt { call, reason: "it has no generation".to_owned() },
        }
    }

    fn within_budget(&self, key: &Key, report: &Report) -> Result<(Report, Item), StoreError> {
        let mut report = report.clone();
        let item = self.item(Table::RoutingState, key, &report)?;
        let excess = item::size_bytes(&item).saturating_sub(REPORT_BUDGET_BYTES);
        if excess == 0 {
            return Ok((report, item));
        }
        self.0.counters.shortened_reports.fetch_add(1, Ordering::Relaxed);
        report.reason = report.reason.map(|reason| {
            let keep = reason.floor_char_boundary(reason.len().saturating_sub(excess));
            reason[..keep].to_owned()
        });
        let item = self.item(Table::RoutingState, key, &report)?;
        if item::size_bytes(&item) > REPORT_BUDGET_BYTES {
            self.0.counters.oversized_reports.fetch_add(1, Ordering::Relaxed);
        }
        Ok((report, item))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    /// What a heartbeat costs: the sizes are DynamoDB's, keys and attribute names included.
    #[test]
    fn a_heartbeat_is_one_write_unit() {
        let bare = json!({
            "id": "i-1234567890abcdef0", "region": "ap-southeast-2", "generation": 1, "sequence": 1,
            "at": 1_760_000_000_000_u64, "lifecycle": "registering", "health": "unhealthy",
            "enclave": "absent",
        });
        let full = json!({
            "id": "i-1234567890abcdef0", "region": "ap-southeast-2", "generation": 1_234,
            "sequence": 123_456_789, "at": 1_760_000_000_000_u64, "lifecycle": "quarantined",
            "health": "unhealthy", "reason": "GPU 3: XID 79, fallen off the bus; 7 of 8 GPUs answer",
            "queue_depth": 12_345, "running": 256, "avg_latency_ms": 1_523.123_456_789_012_3,
            "time_to_first_token_ms": 231.123_456_789_012_34, "enclave": "attested",
            "models": ["meta-llama/Llama-3.1-405B-Instruct-FP8", "mistralai/Mixtral-8x22B-v0.1",
                "Qwen/Qwen2.5-72B-Instruct", "BAAI/bge-reranker-v2-m3"],
            "gpu_utilization": 0.912_345_678_901_234_5, "gpu_memory_free_bytes": 85_899_345_920_u64,
        });
        for (report, expected) in [(bare, 161), (full, 488)] {
            let report: Report = serde_json::from_value(report).unwrap();
            let key = Key { pk: format!("{}#12", report.region), sk: report.id.to_string() };
            let size = item::size_bytes(&item::encode(&key, &report).unwrap());
            assert_eq!(size, expected);
            assert!(size <= REPORT_BUDGET_BYTES);
        }
    }
}
