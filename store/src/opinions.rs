//! What several regions may want of one thing, as one item for each that does: an opinion.
//!
//! One item for all would let a global table's later write undo another region's. So a writer reads all
//! opinions, takes the stamp after the highest, and writes its own region's item on the condition that it is
//! what was read. Readers merge.
//!
//! The sort key is the thing's name, `#`, and the writing region.

use std::ops::ControlFlow;

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{RegionId, Stamp};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Store,
    calls::{Key, Update, Written},
    error::StoreError,
    item::{self, Item},
    queries::Partition,
    schema::{EXPIRES_AT, Table},
    stamp::{stamp_of, still},
};

/// Attempts at a conditional write that other writers keep winning.
const ATTEMPTS: u32 = 8;

/// What opinions are about, and where they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) table: Table,
    pub(crate) pk: &'a str,
    pub(crate) name: &'a str,
}

/// What is stored of a subject, as a writer finds it.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Of all regions, expired or not.
    pub(crate) items: Vec<Item>,
    /// Of the writing region.
    pub(crate) own: Option<Stamp>,
    /// Above all of them.
    pub(crate) next: Stamp,
    /// Whether no other region has an opinion.
    pub(crate) is_alone: bool,
}

/// What a writer writes.
#[derive(Debug)]
pub(crate) struct Opinion<T> {
    pub(crate) record: T,
    /// When its item may be removed, in seconds since 1970.
    pub(crate) ends: Option<u64>,
}

impl Store {
    /// Writes a region's opinion: what `form` makes of what is stored, asked again where another writer of
    /// the region came between. It may break off with what is to stay. `optional` names the attributes that
    /// may be absent.
    pub(crate) async fn write_opinion<T>(
        &self,
        subject: Subject<'_>,
        writer: &RegionId,
        optional: &[&'static str],
        form: impl Fn(Stored) -> ControlFlow<T, Opinion<T>>,
    ) -> Result<T, StoreError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let Subject { table, pk, name } = subject;
        let key = Key { pk: pk.to_owned(), sk: format!("{name}#{writer}") };
        for _ in 0..ATTEMPTS {
            let stored = stored(self.opinions(subject).await?, &key);
            let own = stored.own;
            let Opinion { record, ends } = match form(stored) {
                ControlFlow::Continue(opinion) => opinion,
                ControlFlow::Break(stays) => return Ok(stays),
            };
            let mut update =
                Update::record(self.item(table, &key, &record)?, optional).removing(EXPIRES_AT);
            if let Some(end) = ends {
                update = update.setting(EXPIRES_AT, AttributeValue::N(end.to_string()));
            }
            match self.update_if(table, update, still(own)).await? {
                Written::Done => return Ok(record),
                Written::Refused(held) if self.is_own_write(held.as_ref(), &record) => {
                    return Ok(record);
                }
                Written::Refused(_) => {}
            }
        }
        let call = self.call("UpdateItem", table, &key);
        Err(StoreError::Contended { call, attempts: ATTEMPTS })
    }

    /// The items of all that have an opinion on a subject, expired or not.
    pub(crate) async fn opinions(&self, subject: Subject<'_>) -> Result<Vec<Item>, StoreError> {
        let Subject { table, pk, name } = subject;
        let prefix = format!("{name}#");
        let partition = Partition { table, pk, prefix: &prefix, attributes: &[], consistent: true };
        let mut items = Vec::new();
        self.pages(partition, |page| items.extend(page)).await?;
        Ok(items)
    }
}

fn stored(items: Vec<Item>, own: &Key) -> Stored {
    let is_own = |item: &&Item| item::key_of(item).sk == own.sk;
    let highest = items.iter().filter_map(stamp_of).max();
    let epoch = highest.map_or(0, |stamp| stamp.epoch);
    Stored {
        own: items.iter().find(is_own).and_then(stamp_of),
        next: Stamp::next(highest, epoch),
        is_alone: items.iter().all(|item| is_own(&item)),
        items,
    }
}
