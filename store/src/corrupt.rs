//! Which items could not be read, so that somebody can look at them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{Store, calls::Key};

/// Items that are named; beyond these they are counted only.
const MAX_NAMED: usize = 32;

/// An item that a listing skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptItem {
    /// With its prefix, as in `mrgc-routing-state`.
    pub table: String,
    /// Partition and sort key, as in `us-east-1#2 / i-1`.
    pub key: String,
    pub reason: String,
}

/// The first items that could not be read: reasons by table and key.
#[derive(Debug, Default)]
pub(crate) struct CorruptItems(Mutex<BTreeMap<(String, String), String>>);

impl CorruptItems {
    /// Names an item; false where it is named already.
    pub(crate) fn add(&self, table: &str, key: &Key, reason: &str) -> bool {
        let mut named = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (table.to_owned(), key.to_string());
        if named.contains_key(&name) {
            return false;
        }
        if named.len() < MAX_NAMED {
            named.insert(name, reason.to_owned());
        }
        true
    }
}

impl Store {
    /// The first items that listings skipped since the store was connected, by table and key: at most 32.
    /// How many there were in all is in [`Store::counts`].
    pub fn corrupt_items(&self) -> Vec<CorruptItem> {
        let named = self.0.corrupt.0.lock().unwrap_or_else(PoisonError::into_inner);
        named
            .iter()
            .map(|((table, key), reason)| CorruptItem {
                table: table.clone(),
                key: key.clone(),
                reason: reason.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_once_and_the_list_is_bounded() {
        let named = CorruptItems::default();
        let key = |n: usize| Key { pk: "p".to_owned(), sk: n.to_string() };
        assert!(named.add("t", &key(0), "why"));
        assert!(!named.add("t", &key(0), "why"));
        assert!(named.add("other", &key(0), "why"));
        for n in 1..2 * MAX_NAMED {
            assert!(named.add("t", &key(n), "why"));
        }
        assert!(named.0.lock().is_ok_and(|named| named.len() == MAX_NAMED));
    }
}
