//! `gpu-instances`: who is in the fleet. Slow facts, written when an instance joins or leaves.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGION#n` | instance id | [`Registration`], 1 KB to a few with rich metadata |
//!
//! Each registration raises the generation above whatever is stored, conditionally on what was read, so
//! of two instances with one id the later has the higher generation and the earlier loses from then on:
//!
//! ```text
//!  A registers (1) ── A reports (1, n) ──────────── A reports (1, n+1): fenced
//!                          B registers (2) ── B reports (2, 1)
//! ```
//!
//! Between B's registration and its first report, A's reports are still written; a reader ignores them,
//! for a report counts only under the generation that is registered.

use std::collections::HashMap;

use mrgc_fleet::model::{InstanceId, RegionId, Registration, Report, Standing};

use crate::{
    Store,
    calls::{Condition, Written},
    error::{Fence, StoreError},
    item,
    routing_state::GENERATION,
    schema::Table,
};

/// Registrations of one id at the same time that one of them outlasts.
const REGISTER_ATTEMPTS: u32 = 8;

impl Store {
    /// Registers an instance under a generation above any that is stored of it, and returns the
    /// registration with that generation; the one given is ignored.
    ///
    /// Registering twice is safe: where the SDK repeats a write that had been done, the generation is
    /// raised once more.
    pub async fn register(&self, registration: &Registration) -> Result<Registration, StoreError> {
        // Nothing holds the shard count still until an instance is registered.
        self.0.shards.forget(&registration.region);
        let key = self.instance_key(&registration.region, &registration.id).await?;
        for _ in 0..REGISTER_ATTEMPTS {
            let (registered, reported) = tokio::try_join!(
                self.get(Table::GpuInstances, &key),
                self.get(Table::RoutingState, &key),
            )?;
            let registered = registered.and_then(|i| item::integer(&i, GENERATION));
            let reported = reported.and_then(|i| item::integer(&i, GENERATION));
            let generation = registered.max(reported).unwrap_or(0).saturating_add(1);

            let next = Registration { generation, ..registration.clone() };
            let item = self.item(Table::GpuInstances, &key, &next)?;
            let condition = Condition::still(GENERATION, registered);
            if let Written::Done = self.put_if(Table::GpuInstances, item, condition).await? {
                return Ok(next);
            }
        }
        let call = self.call("PutItem", Table::GpuInstances, &key);
        Err(StoreError::Contended { call, attempts: REGISTER_ATTEMPTS })
    }

    /// Removes an instance's report and registration, unless a later generation has registered: then it
    /// is [`StoreError::Fenced`]. What is gone already is no error.
    pub async fn deregister(
        &self,
        id: &InstanceId,
        region: &RegionId,
        generation: u64,
    ) -> Result<(), StoreError> {
        let key = self.instance_key(region, id).await?;
        // The report first: a crash in between leaves an instance that is listed, not a hidden item.
        self.remove_report(&key, generation).await?;
        let condition = Condition::new(
            "attribute_not_exists(#pk) OR #generation = :generation",
            &[item::PK, GENERATION],
            &[(GENERATION, generation)],
        );
        match self.delete_if(Table::GpuInstances, &key, condition).await? {
            Written::Done => Ok(()),
            Written::Refused(held) => {
                let offered = Fence { generation, sequence: None };
                Err(self.fenced("DeleteItem", Table::GpuInstances, &key, offered, held))
            }
        }
    }

    /// One instance, strongly consistent.
    pub async fn instance(
        &self,
        region: &RegionId,
        id: &InstanceId,
    ) -> Result<Option<Standing>, StoreError> {
        let key = self.instance_key(region, id).await?;
        let (registered, reported) = tokio::try_join!(
            self.get(Table::GpuInstances, &key),
            self.get(Table::RoutingState, &key),
        )?;
        let Some(registered) = registered else { return Ok(None) };
        let registration: Registration = self.read(Table::GpuInstances, registered)?;
        let report = match reported {
            Some(item) => Some(self.read::<Report>(Table::RoutingState, item)?),
            None => None,
        };
        Ok(Some(standing(registration, report)))
    }

    /// A region's instances by id, eventually consistent. Items that cannot be read are skipped and
    /// counted; an instance whose report cannot be read stands without one.
    pub async fn instances(&self, region: &RegionId) -> Result<Vec<Standing>, StoreError> {
        let partitions = self.partitions(region).await?;
        let queries = partitions
            .into_iter()
            .flat_map(|pk| [(Table::GpuInstances, pk.clone()), (Table::RoutingState, pk)])
            .collect();
        let (mut registered, mut reported) = (Vec::new(), Vec::new());
        for (table, items) in self.query_all(queries).await? {
            if table == Table::GpuInstances { &mut registered } else { &mut reported }
                .extend(items);
        }
        let registrations: Vec<Registration> = self.readable(Table::GpuInstances, registered);
        let reports: Vec<Report> = self.readable(Table::RoutingState, reported);
        let mut reports: HashMap<InstanceId, Report> =
            reports.into_iter().map(|report| (report.id.clone(), report)).collect();

        let mut standings: Vec<Standing> = registrations
            .into_iter()
            .map(|registration| {
                let report = reports.remove(&registration.id);
                standing(registration, report)
            })
            .collect();
        standings.sort_by(|a, b| a.registration.id.cmp(&b.registration.id));
        Ok(standings)
    }
}

/// A report of another generation than the registered one is somebody else's.
fn standing(registration: Registration, report: Option<Report>) -> Standing {
    let report = report.filter(|report| report.generation == registration.generation);
    Standing { registration, report }
}
