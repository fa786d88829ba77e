//! `routing-state`: what each instance says of itself every few seconds.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGION#n` | instance id | [`Report`], at most [`REPORT_BUDGET_BYTES`] |
//!
//! The instance is the only writer of its item, so a heartbeat is one conditional `UpdateItem` of one write
//! unit, with no read before it. It happens if the stored generation is lower, which begins anew; or if
//! the generation is the same, the sequence lower, and the stored lifecycle may become the reported one
//! ([`Lifecycle::may_become`]). A writer from before the latest registration, a clone or a replay therefore
//! loses, and the item that the service returns with its refusal tells why. Its reader closes the gap until
//! the newcomer's first report: a report counts only under the generation that is registered (see
//! `gpu_instances`).
//!
//! No clock decides anything here: `at` is for people, and readers judge freshness by the change of
//! (generation, sequence).

use std::sync::atomic::Ordering;

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{InstanceId, Lifecycle, RegionId, Report};
use serde::de::DeserializeOwned;

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    error::{Fence, Holder, StoreError},
    gpu_instances::tombstone,
    item::{self, Item},
    schema::{EXPIRES_AT, Table},
};

/// What a report may take: one write unit. The reason is shortened to keep to it; with very many models
/// a report may still be above, is written all the same, costs another unit and is counted.
pub const REPORT_BUDGET_BYTES: usize = 1_024;

pub(crate) const GENERATION: &str = "generation";
pub(crate) const SEQUENCE: &str = "sequence";
pub(crate) const LIFECYCLE: &str = "lifecycle";

/// The attributes of a report that may be absent.
const OPTIONAL: [&str; 11] = [
    "reason",
    "queue_depth",
    "running",
    "avg_latency_ms",
    "time_to_first_token_ms",
    "models",
    "gpu_utilization",
    "gpu_memory_free_bytes",
    "model_load_ms",
    "routing_score",
    "next_within_ms",
];

impl Store {
    /// Writes an instance's report, with its routing score where queue and latency are known.
    ///
    /// Where one of the same or a later (generation, sequence) is stored it is [`StoreError::Fenced`], and
    /// this writer should register again or stop. Where the instance may not go on to the reported
    /// lifecycle it is [`StoreError::IllegalTransition`]; from `terminated`, where somebody removed it, it
    /// may only register again.
    ///
    /// Where the SDK repeats a write that had been done, the stored item is this very report, and that
    /// counts as success.
    pub async fn report(&self, report: &Report) -> Result<(), StoreError> {
        let key = self.instance_key(&report.region, &report.id).await?;
        let scored = Report { routing_score: report.score(), ..report.clone() };
        let (report, item) = self.within_budget(&key, scored)?;
        let mut update = Update::record(item, &OPTIONAL);
        if report.lifecycle != Lifecycle::Terminated {
            // Of the tombstone that a new generation begins over.
            update = update.removing(EXPIRES_AT);
        }
        match self.update_if(Table::RoutingState, update, may_follow(&report)).await? {
            Written::Done => Ok(()),
            Written::Refused(held) if self.is_own_write(held.as_ref(), &report) => Ok(()),
            Written::Refused(held) => Err(self.refused(&key, &report, held).await),
        }
    }

    /// Makes an instance's report a tombstone, unless it is of a later generation. One that never reported
    /// gets one as well, for a first report may be under way.
    pub(crate) async fn bury_report(
        &self,
        key: &Key,
        id: &InstanceId,
        region: &RegionId,
        generation: u64,
        end_seconds: u64,
    ) -> Result<(), StoreError> {
        let nothing = Report::new(id.clone(), region.clone(), generation, 0);
        let mut update = Update::record(self.item(Table::RoutingState, key, &nothing)?, &[]);
        update.set_if_absent = std::mem::take(&mut update.set);
        for (name, value) in tombstone(end_seconds) {
            update.set_if_absent.remove(&name);
            update.set.insert(name, value);
        }
        update.set_if_absent.remove(GENERATION);
        let update = update.setting(GENERATION, AttributeValue::N(generation.to_string()));
        let condition = Condition::new(
            "attribute_not_exists(#pk) OR #generation <= :generation",
            &[item::PK, GENERATION],
            &[(GENERATION, generation)],
        );
        match self.update_if(Table::RoutingState, update, condition).await? {
            Written::Done => Ok(()),
            Written::Refused(held) => {
                let offered = Fence { generation, sequence: None };
                let by = self.holder(key, generation).await;
                Err(self.fenced("UpdateItem", Table::RoutingState, key, offered, held).lost_to(by))
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

    /// Why a report was refused, from the item that was there.
    async fn refused(&self, key: &Key, report: &Report, held: Option<Item>) -> StoreError {
        let Report { generation, sequence, lifecycle, .. } = *report;
        let held = held.unwrap_or_default();
        let stored_generation = item::integer(&held, GENERATION).unwrap_or(0);
        let stored_sequence = item::integer(&held, SEQUENCE).unwrap_or(0);
        let illegal = |from| StoreError::IllegalTransition {
            call: self.call("UpdateItem", Table::RoutingState, key),
            from,
            to: lifecycle,
            allowed: Lifecycle::successors(from),
        };
        if held.is_empty() || stored_generation < generation {
            // It was to begin anew, which the lifecycle alone can forbid.
            return illegal(Lifecycle::Registering);
        }
        let stored = held.get(LIFECYCLE).and_then(|name| name.as_s().ok());
        let from = stored.map(|name| Lifecycle::from_name(name).ok_or(name));
        match from {
            // Also where the sequence is higher: whoever removed it raised none.
            Some(Ok(Lifecycle::Terminated))
                if stored_generation == generation && lifecycle != Lifecycle::Terminated =>
            {
                illegal(Lifecycle::Terminated)
            }
            Some(Ok(from))
                if stored_generation == generation
                    && stored_sequence < sequence
                    && !from.may_become(lifecycle) =>
            {
                illegal(from)
            }
            Some(Err(name)) if stored_generation == generation && stored_sequence < sequence => {
                let reason = format!("its lifecycle is `{name}`, which this version does not know");
                let call = self.call("UpdateItem", Table::RoutingState, key);
                StoreError::Corrupt { call, reason }
            }
            _ => {
                let offered = Fence { generation, sequence: Some(sequence) };
                let by = self.holder(key, generation).await;
                self.fenced("UpdateItem", Table::RoutingState, key, offered, Some(held)).lost_to(by)
            }
        }
    }

    /// Who registered the id under a later generation, as far as that can be found out.
    async fn holder(&self, key: &Key, generation: u64) -> Option<Holder> {
        let registered = self.get(Table::GpuInstances, key).await.ok()??;
        Holder::of(&registered).filter(|holder| holder.generation > generation)
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
                StoreError::Fenced { call, offered, stored, by: None }
            }
            None => StoreError::Corrupt { call, reason: "it has no generation".to_owned() },
        }
    }

    fn within_budget(&self, key: &Key, mut report: Report) -> Result<(Report, Item), StoreError> {
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

/// What must be stored for a report to be written: an earlier one of the same generation that may go on to
/// its lifecycle, or nothing of this generation, which counts as registering.
fn may_follow(report: &Report) -> Condition {
    let before: Vec<_> =
        Lifecycle::ALL.into_iter().filter(|state| state.may_become(report.lifecycle)).collect();
    let names: Vec<_> = before.iter().map(|state| format!(":{state}")).collect();
    let goes_on = format!(
        "#generation = :generation AND #sequence < :sequence AND #lifecycle IN ({})",
        names.join(", ")
    );
    let expression = if Lifecycle::Registering.may_become(report.lifecycle) {
        format!("attribute_not_exists(#pk) OR #generation < :generation OR ({goes_on})")
    } else {
        goes_on
    };
    let mut attributes = vec![GENERATION, SEQUENCE, LIFECYCLE];
    // DynamoDB refuses a name that the expression does not use.
    attributes.extend(expression.contains("#pk").then_some(item::PK));
    let numbers = [(GENERATION, report.generation), (SEQUENCE, report.sequence)];
    let condition = Condition::new(&expression, &attributes, &numbers);
    before.iter().fold(condition, |condition, state| condition.text(state.as_str(), state.as_str()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use mrgc_fleet::model::{EnclaveState, Health, Timestamp};
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
            "model_load_ms": 325_000, "routing_score": 83.123_456_789_012_34,
        });
        for (report, expected) in [(bare, 161), (full, 527)] {
            let report: Report = serde_json::from_value(report).unwrap();
            let key = Key { pk: format!("{}#12", report.region), sk: report.id.to_string() };
            let size = item::size_bytes(&item::encode(&key, &report).unwrap());
            assert_eq!(size, expected);
            assert!(size <= REPORT_BUDGET_BYTES);
        }
    }

    /// Were one forgotten, a report without it would keep the one before's.
    #[test]
    fn every_attribute_that_may_be_absent_is_named() {
        let least = Report::new("i", "r", 1, 1);
        let full = Report {
            id: "i".into(),
            region: "r".into(),
            generation: 1,
            sequence: 1,
            at: Timestamp(1),
            lifecycle: Lifecycle::Available,
            health: Health::Degraded,
            reason: Some("r".to_owned()),
            queue_depth: Some(1),
            running: Some(1),
            avg_latency_ms: Some(1.0),
            time_to_first_token_ms: Some(1.0),
            models: vec!["m".to_owned()],
            enclave: EnclaveState::Absent,
            gpu_utilization: Some(1.0),
            gpu_memory_free_bytes: Some(1),
            model_load_ms: Some(1),
            routing_score: Some(1.0),
            next_within_ms: Some(1),
        };
        let key = Key { pk: "p".to_owned(), sk: "s".to_owned() };
        let (least, full) =
            (item::encode(&key, &least).unwrap(), item::encode(&key, &full).unwrap());
        let mut absent: Vec<_> = full.keys().filter(|name| !least.contains_key(*name)).collect();
        absent.sort_unstable();
        let mut optional = OPTIONAL;
        optional.sort_unstable();
        assert_eq!(absent, optional);
    }

    #[test]
    fn a_state_that_cannot_be_the_first_begins_nothing() {
        for lifecycle in Lifecycle::ALL {
            let condition = may_follow(&Report { lifecycle, ..Report::new("i", "r", 1, 1) });
            let first = format!("{condition:?}").contains("attribute_not_exists");
            assert_eq!(first, lifecycle != Lifecycle::Cleaning, "{lifecycle}");
        }
    }
}
