//! `gpu-instances`: who is in the fleet. Slow facts, written when an instance joins or leaves.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `REGION#n` | instance id | [`Registration`], 1 KB to a few with rich metadata |
//! | `desired#REGION#n` | instance id `#` writing region | what is wanted of it: see `desired` |
//!
//! Each registration raises the generation above whatever is stored, conditionally on what was read, so
//! of two instances with one id the later has the higher generation and the earlier loses from then on:
//!
//! ```text
//!  A registers (1) ── A reports (1, n) ──────────── A reports (1, n+1): fenced, and told of B
//!                          B registers (2) ── B reports (2, 1)
//! ```
//!
//! Between B's registration and its first report, A's reports are still written; a reader ignores them,
//! for a report counts only under the generation that is registered.
//!
//! An instance that leaves is not deleted: its registration and its report become **tombstones**, with the
//! attributes `lifecycle` (`terminated`) and `expires_at`, a week later. So the next registration still goes
//! above the last generation, and a report that was under way comes too late. Readers leave out what is
//! terminated and what has expired, since the service removes expired items in its own time.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{
    InstanceId, Lifecycle, RegionId, Registration, Report, Standing, Timestamp,
};
use tracing::warn;

use crate::{
    Store,
    calls::{Condition, Update, Written},
    clock::{self, DAY_SECONDS},
    desired::desired_partition,
    error::{Fence, Holder, StoreError},
    item::{self, Item},
    range::has_ended,
    routing_state::{GENERATION, LIFECYCLE},
    schema::{EXPIRES_AT, Table},
};

/// How long a tombstone stays: far longer than an instance may be suspended and come back as if nothing
/// had happened.
pub(crate) const TOMBSTONE_SECONDS: u64 = 7 * DAY_SECONDS;

/// Registrations of one id at the same time that one of them outlasts.
const REGISTER_ATTEMPTS: u32 = 8;

/// The attributes of a registration that may be absent.
const OPTIONAL: [&str; 11] = [
    "zone",
    "subnet_id",
    "subnet_cidr",
    "ami_id",
    "provider",
    "instance_type",
    "slots",
    "cost_per_hour",
    "frameworks",
    "metadata",
    "writer",
];

impl Store {
    /// Registers an instance under a generation above any that is stored of it, and returns the
    /// registration with that generation; the one given is ignored.
    ///
    /// Registering twice is safe. Who takes over from another process, as an agent on a cloned machine does,
    /// is told of in the log, and the other at its next write ([`StoreError::Fenced`]).
    pub async fn register(&self, registration: &Registration) -> Result<Registration, StoreError> {
        // Nothing holds the shard count still until an instance is registered.
        self.0.shards.forget(&registration.region);
        let key = self.instance_key(&registration.region, &registration.id).await?;
        for _ in 0..REGISTER_ATTEMPTS {
            let (registered, reported) = tokio::try_join!(
                self.get(Table::GpuInstances, &key),
                self.get(Table::RoutingState, &key),
            )?;
            let generation_of =
                |item: &Option<Item>| item.as_ref().and_then(|i| item::integer(i, GENERATION));
            let before = generation_of(&registered);
            let last = before.max(generation_of(&reported));

            let generation = last.unwrap_or(0).saturating_add(1);
            let next = Registration { generation, ..registration.clone() };
            let item = self.item(Table::GpuInstances, &key, &next)?;
            let update = Update::record(item, &OPTIONAL).removing(LIFECYCLE).removing(EXPIRES_AT);
            let condition = Condition::still(GENERATION, before);
            match self.update_if(Table::GpuInstances, update, condition).await? {
                Written::Done => {}
                Written::Refused(held) if self.is_own_registration(held.as_ref(), &next) => {}
                Written::Refused(_) => continue,
            }
            warn_of_takeover(registered, &next);
            return Ok(next);
        }
        let call = self.call("UpdateItem", Table::GpuInstances, &key);
        Err(StoreError::Contended { call, attempts: REGISTER_ATTEMPTS })
    }

    /// Whether a refused registration had been written by the same call. Only a process that says who it is
    /// can be recognised; another registers once more.
    fn is_own_registration(&self, held: Option<&Item>, written: &Registration) -> bool {
        written.writer.is_some() && self.is_own_write(held, written)
    }

    /// Makes an instance's report and registration tombstones, unless a later generation has registered:
    /// then it is [`StoreError::Fenced`]. What is gone already is no error.
    pub async fn deregister(
        &self,
        id: &InstanceId,
        region: &RegionId,
        generation: u64,
    ) -> Result<(), StoreError> {
        let key = self.instance_key(region, id).await?;
        let end = clock::seconds(clock::now()).saturating_add(TOMBSTONE_SECONDS);
        // The report first: routers follow reports closely, and leave out an instance whose report is over.
        self.bury_report(&key, id, region, generation, end).await?;
        let update = Update {
            key: key.clone(),
            set: tombstone(end),
            set_if_absent: Item::new(),
            remove: Vec::new(),
        };
        let condition =
            Condition::new("#generation = :generation", &[GENERATION], &[(GENERATION, generation)]);
        match self.update_if(Table::GpuInstances, update, condition).await? {
            Written::Done | Written::Refused(None) => Ok(()),
            Written::Refused(Some(held)) => {
                let offered = Fence { generation, sequence: None };
                let by = Holder::of(&held);
                Err(self
                    .fenced("UpdateItem", Table::GpuInstances, &key, offered, Some(held))
                    .lost_to(by))
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
        let (registered, reported, desired) = tokio::try_join!(
            self.get(Table::GpuInstances, &key),
            self.get(Table::RoutingState, &key),
            self.desired_of(&key),
        )?;
        let now = clock::now();
        let Some(registered) = registered.filter(|item| !is_gone(item, now)) else {
            return Ok(None);
        };
        let registration: Registration = self.read(Table::GpuInstances, registered)?;
        let report = match reported {
            Some(item) => Some(self.read::<Report>(Table::RoutingState, item)?),
            None => None,
        };
        let standing = standing(registration, report);
        Ok(standing.map(|standing| Standing { desired, ..standing }))
    }

    /// A region's instances by id, eventually consistent. Items that cannot be read are skipped and
    /// counted; an instance whose report cannot be read stands without one.
    pub async fn instances(&self, region: &RegionId) -> Result<Vec<Standing>, StoreError> {
        let partitions = self.partitions(region).await?;
        let queries = partitions.into_iter().flat_map(|pk| {
            let desired = desired_partition(&pk);
            [
                (Table::GpuInstances, pk.clone()),
                (Table::RoutingState, pk),
                (Table::GpuInstances, desired),
            ]
        });
        let answers = self.query_all(queries.collect()).await?;
        let (mut registered, mut reported, mut desired) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, items) in answers.into_iter().enumerate() {
            [&mut registered, &mut reported, &mut desired][kind % 3].extend(items);
        }

        let now = clock::now();
        registered.retain(|item| !is_gone(item, now));
        let registrations: Vec<Registration> = self.readable(Table::GpuInstances, registered);
        let reports: Vec<Report> = self.readable(Table::RoutingState, reported);
        let mut reports: HashMap<InstanceId, Report> =
            reports.into_iter().map(|report| (report.id.clone(), report)).collect();
        let mut desired = self.merged(desired);

        let mut standings: Vec<Standing> = registrations
            .into_iter()
            .filter_map(|registration| {
                let report = reports.remove(&registration.id);
                let desired = desired.remove(&registration.id);
                Some(Standing { desired, ..standing(registration, report)? })
            })
            .collect();
        standings.sort_by(|a, b| a.registration.id.cmp(&b.registration.id));
        Ok(standings)
    }
}

/// An instance and its report, which is somebody else's if it is of another generation than the registered
/// one. `None` where the instance has reported that it is terminated: it is about to be deregistered.
fn standing(registration: Registration, report: Option<Report>) -> Option<Standing> {
    let report = report.filter(|report| report.generation == registration.generation);
    if report.as_ref().is_some_and(|report| report.lifecycle == Lifecycle::Terminated) {
        return None;
    }
    Some(Standing::new(registration, report))
}

/// Whether an item is a tombstone, or its time is over.
pub(crate) fn is_gone(item: &Item, now: Timestamp) -> bool {
    let lifecycle = item.get(LIFECYCLE).and_then(|value| value.as_s().ok());
    lifecycle.is_some_and(|name| name == Lifecycle::Terminated.as_str()) || has_ended(item, now)
}

/// What makes an item a tombstone.
pub(crate) fn tombstone(end_seconds: u64) -> Item {
    let terminated = Lifecycle::Terminated.as_str().to_owned();
    Item::from([
        (LIFECYCLE.to_owned(), AttributeValue::S(terminated)),
        (EXPIRES_AT.to_owned(), AttributeValue::N(end_seconds.to_string())),
    ])
}

/// Two processes with one id are most often two machines from one image. The other one might be dead, too.
fn warn_of_takeover(before: Option<Item>, next: &Registration) {
    let Some(before) = before.filter(|item| !is_gone(item, clock::now())) else { return };
    let Some(holder) = Holder::of(&before) else { return };
    if holder.writer.is_some() && holder.writer != next.writer {
        let Registration { id, region, generation, .. } = next;
        warn!(%id, %region, generation, "took the id over: another agent registered it {holder}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use mrgc_fleet::model::Writer;

    use super::*;
    use crate::calls::Key;

    /// Were one forgotten, a registration without it would keep the one before's.
    #[test]
    fn every_attribute_that_may_be_absent_is_named() {
        let least = Registration::new("i", "r", "p", "a");
        let full = Registration {
            id: "i".into(),
            region: "r".into(),
            pool: "p".into(),
            address: "a".to_owned(),
            health_address: "h".to_owned(),
            zone: Some("z".to_owned()),
            subnet_id: Some("s".to_owned()),
            subnet_cidr: Some("c".to_owned()),
            ami_id: Some("i".to_owned()),
            provider: Some("p".to_owned()),
            instance_type: Some("t".to_owned()),
            slots: Some(1),
            cost_per_hour: Some(1.0),
            frameworks: vec!["soc2".into()],
            metadata: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            registered_at: Timestamp(1),
            generation: 1,
            writer: Some(Writer { id: "w".to_owned(), host: None }),
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
}
