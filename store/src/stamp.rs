//! Items that carry a [`Stamp`]: how it is read, and what a write may demand of the one that is stored.

use mrgc_fleet::model::Stamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    error::StoreError,
    item::{self, Item},
    schema::Table,
};

const EPOCH: &str = "epoch";
const SEQUENCE: &str = "sequence";

pub(crate) fn stamp_of(item: &Item) -> Option<Stamp> {
    Some(Stamp { epoch: item::integer(item, EPOCH)?, sequence: item::integer(item, SEQUENCE)? })
}

/// That an item has the stamp that was read, or still none.
pub(crate) fn still(read: Option<Stamp>) -> Condition {
    match read {
        Some(stamp) => Condition::new(
            "#epoch = :epoch AND #sequence = :sequence",
            &[EPOCH, SEQUENCE],
            &[(EPOCH, stamp.epoch), (SEQUENCE, stamp.sequence)],
        ),
        None => Condition::still(SEQUENCE, None),
    }
}

/// That an item is not there, or has a lower stamp.
fn below(stamp: Stamp) -> Condition {
    Condition::new(
        "attribute_not_exists(#pk) OR #epoch < :epoch \
         OR (#epoch = :epoch AND #sequence < :sequence)",
        &[item::PK, EPOCH, SEQUENCE],
        &[(EPOCH, stamp.epoch), (SEQUENCE, stamp.sequence)],
    )
}

impl Store {
    /// Writes a lease holder's record over one with a lower stamp. Over the same or a higher one it is
    /// [`StoreError::Superseded`], unless it is this very record. `optional` names the attributes that may
    /// be absent.
    pub(crate) async fn put_stamped<T>(
        &self,
        table: Table,
        key: &Key,
        record: &T,
        optional: &[&'static str],
        budget_bytes: usize,
    ) -> Result<(), StoreError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let item = self.item(table, key, record)?;
        self.within(table, key, &item, budget_bytes)?;
        let offered = stamp_of(&item).unwrap_or_default();
        let update = Update::record(item, optional);
        match self.update_if(table, update, below(offered)).await? {
            Written::Done => Ok(()),
            Written::Refused(held) if self.is_own_write(held.as_ref(), record) => Ok(()),
            Written::Refused(held) => {
                let call = self.call("UpdateItem", table, key);
                Err(match held.as_ref().and_then(stamp_of) {
                    Some(stored) => StoreError::Superseded { call, offered, stored },
                    None => StoreError::Corrupt { call, reason: "it has no stamp".to_owned() },
                })
            }
        }
    }
}
