//! `autoscaling-state`: how large each pool should be, and which instances to replace.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `CAPACITY#region` | writing region `#` pool | [`Capacity`], below 1 KB |
//! | `REPLACEMENT#region` | instance id | [`Replacement`], below 1 KB; ends 30 days after it was closed |
//!
//! **Capacity** is written by whoever holds the lease for the pool's scaling, conditionally: the stored
//! stamp (epoch, sequence) of the same writing region must be lower, so one that lost the lease loses here,
//! too. Each writing region has an item of its own, since a global table keeps the later of two writes and
//! not the one with the higher stamp; readers take the highest.
//!
//! **Replacements** are written by programs of the instance's own region, which is where its operators'
//! calls arrive as well. One is for an instance's generation: asking again changes nothing, also when it is
//! closed, until the instance registers anew. But one that was called off, as the instance served again, is
//! opened by whoever asks again.
//!
//! Both change a few times an hour for each pool, far below what one partition takes.

use std::collections::BTreeMap;

use mrgc_fleet::model::{Capacity, InstanceId, PoolId, RegionId, Replacement, ReplacementOutcome};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    clock::{self, DAY_SECONDS},
    error::{Fence, StoreError},
    item,
    range::has_ended,
    routing_state::GENERATION,
    schema::{EXPIRES_AT, Table},
};

/// What each item of this table may take; the texts of people and programs in it are what could be long.
pub const AUTOSCALING_BUDGET_BYTES: usize = 1_024;

/// Of why a replacement was called off: who asked for it has said as much.
const MAX_OUTCOME_BYTES: usize = 256;
/// How long a closed replacement is kept.
const CLOSED_KEPT_SECONDS: u64 = 30 * DAY_SECONDS;
/// Writers of one replacement at the same time that one of them outlasts.
const CLOSE_ATTEMPTS: u32 = 4;

const CLOSED: &str = "closed";
const CALLED_OFF: &str = "called_off";

impl Store {
    /// Writes a pool's capacity, unless its writing region wrote one of the same or a later stamp: then it
    /// is [`StoreError::Superseded`], and this writer should look whether it still holds its lease.
    pub async fn put_capacity(&self, capacity: &Capacity) -> Result<(), StoreError> {
        let (table, key) = (Table::AutoscalingState, capacity_key(capacity));
        let optional = ["in_service", "pending", "last_decision"];
        self.put_stamped(table, &key, capacity, &optional, AUTOSCALING_BUDGET_BYTES).await
    }

    /// The capacity in force of each pool of a region, whichever region decided it; strongly consistent
    /// for what was written here.
    pub async fn capacities(
        &self,
        region: &RegionId,
    ) -> Result<BTreeMap<PoolId, Capacity>, StoreError> {
        let items =
            self.query(Table::AutoscalingState, &format!("CAPACITY#{region}"), true).await?;
        Ok(Capacity::in_force(self.readable::<Capacity>(Table::AutoscalingState, items)))
    }

    /// Asks for an instance to be replaced, and returns what is stored then: the one given or, where this
    /// generation's replacement was asked for before and not called off, that one, which may be closed.
    pub async fn request_replacement(
        &self,
        replacement: &Replacement,
    ) -> Result<Replacement, StoreError> {
        let key = replacement_key(&replacement.region, &replacement.instance);
        let request = Replacement { closed: None, expires_at: None, ..replacement.clone() };
        let item = self.item(Table::AutoscalingState, &key, &request)?;
        self.within(Table::AutoscalingState, &key, &item, AUTOSCALING_BUDGET_BYTES)?;
        let condition = Condition::new(
            "attribute_not_exists(#pk) OR #generation < :generation OR #expires_at <= :now \
             OR (#generation = :generation AND attribute_exists(#closed.#called_off))",
            &[item::PK, GENERATION, EXPIRES_AT, CLOSED, CALLED_OFF],
            &[(GENERATION, request.generation), ("now", clock::seconds(clock::now()))],
        );
        match self.put_if(Table::AutoscalingState, item, condition).await? {
            Written::Done => Ok(request),
            Written::Refused(held) => {
                let held = held.unwrap_or_default();
                if item::integer(&held, GENERATION) == Some(request.generation) {
                    return self.read(Table::AutoscalingState, held);
                }
                let offered = Fence { generation: request.generation, sequence: None };
                let table = Table::AutoscalingState;
                Err(self.fenced("PutItem", table, &key, offered, Some(held)))
            }
        }
    }

    /// Marks the replacement of an instance's generation as ended, and returns it. Closing it again changes
    /// nothing, but that one which was done can be called off: then it did not do for the instance.
    pub async fn close_replacement(
        &self,
        region: &RegionId,
        instance: &InstanceId,
        generation: u64,
        outcome: &ReplacementOutcome,
    ) -> Result<Replacement, StoreError> {
        let key = replacement_key(region, instance);
        let call = |operation| self.call(operation, Table::AutoscalingState, &key);
        for _ in 0..CLOSE_ATTEMPTS {
            let stored = self.replacement(region, instance).await?;
            let Some(stored) = stored.filter(|stored| stored.generation == generation) else {
                let what = format!("a replacement of generation {generation}");
                return Err(StoreError::NotFound { call: call("GetItem"), what });
            };
            if stored.closed.as_ref().is_some_and(|c| c.called_off || !outcome.called_off) {
                return Ok(stored);
            }
            let closed = Replacement {
                closed: Some(outcome.clone()),
                expires_at: Some(clock::seconds(clock::now()) + CLOSED_KEPT_SECONDS),
                ..stored
            };
            let item = self.item(Table::AutoscalingState, &key, &closed)?;
            self.within(Table::AutoscalingState, &key, &item, AUTOSCALING_BUDGET_BYTES)?;
            let update = Update::record(item, &[]);
            let (held, names) = match outcome.called_off {
                true => ("#closed.#called_off", &[GENERATION, CLOSED, CALLED_OFF][..]),
                false => ("#closed", &[GENERATION, CLOSED][..]),
            };
            let condition = Condition::new(
                &format!("#generation = :generation AND attribute_not_exists({held})"),
                names,
                &[(GENERATION, generation)],
            );
            if let Written::Done =
                self.update_if(Table::AutoscalingState, update, condition).await?
            {
                return Ok(closed);
            }
        }
        Err(StoreError::Contended { call: call("UpdateItem"), attempts: CLOSE_ATTEMPTS })
    }

    /// Calls off the replacement of an instance that serves again, whichever generation of it needed it;
    /// returns it if that was to do.
    pub async fn call_off_replacement(
        &self,
        region: &RegionId,
        instance: &InstanceId,
        why: &str,
    ) -> Result<Option<Replacement>, StoreError> {
        let is_off = |closed: &ReplacementOutcome| closed.called_off;
        let asked = self.replacement(region, instance).await?;
        let Some(asked) = asked.filter(|asked| !asked.closed.as_ref().is_some_and(is_off)) else {
            return Ok(None);
        };
        let (at, outcome) =
            (clock::now(), why[..why.floor_char_boundary(MAX_OUTCOME_BYTES)].to_owned());
        let outcome = ReplacementOutcome { at, outcome, called_off: true };
        match self.close_replacement(region, instance, asked.generation, &outcome).await {
            Ok(closed) => Ok(Some(closed)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An instance's replacement, open or closed.
    pub async fn replacement(
        &self,
        region: &RegionId,
        instance: &InstanceId,
    ) -> Result<Option<Replacement>, StoreError> {
        let key = replacement_key(region, instance);
        let item = self.get(Table::AutoscalingState, &key).await?;
        let item = item.filter(|item| !has_ended(item, clock::now()));
        item.map(|item| self.read(Table::AutoscalingState, item)).transpose()
    }

    /// A region's replacements that are not closed, by instance.
    pub async fn open_replacements(
        &self,
        region: &RegionId,
    ) -> Result<Vec<Replacement>, StoreError> {
        let pk = format!("REPLACEMENT#{region}");
        let items = self.query(Table::AutoscalingState, &pk, true).await?;
        let mut replacements: Vec<Replacement> = self.readable(Table::AutoscalingState, items);
        replacements.retain(|replacement| replacement.closed.is_none());
        Ok(replacements)
    }
}

/// The writing region comes first: it has no `#`, so no two pools share a key.
fn capacity_key(capacity: &Capacity) -> Key {
    Key {
        pk: format!("CAPACITY#{}", capacity.region),
        sk: format!("{}#{}", capacity.written_by, capacity.pool),
    }
}

fn replacement_key(region: &RegionId, instance: &InstanceId) -> Key {
    Key { pk: format!("REPLACEMENT#{region}"), sk: instance.as_str().to_owned() }
}
