//! Items that may not be larger than their table says.

use crate::{
    Store,
    calls::Key,
    error::StoreError,
    item::{self, Item},
    schema::Table,
};

impl Store {
    /// That an item keeps to its budget, as DynamoDB counts its size.
    pub(crate) fn within(
        &self,
        table: Table,
        key: &Key,
        item: &Item,
        budget_bytes: usize,
    ) -> Result<(), StoreError> {
        let size_bytes = item::size_bytes(item);
        if size_bytes <= budget_bytes {
            return Ok(());
        }
        let reason = format!(
            "the item has {size_bytes} bytes, and may have {budget_bytes}: shorten its texts"
        );
        Err(StoreError::Invalid { call: self.call("PutItem", table, key), reason })
    }
}
