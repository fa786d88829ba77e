//! A page that is written once for each snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::state::Snapshot;

/// The page as it was written last, and for which snapshot.
#[derive(Debug, Default)]
pub(super) struct Page(Mutex<Option<(Arc<Snapshot>, Bytes)>>);

impl Page {
    /// The page for `snapshot`, written if nobody has asked for it before.
    pub(super) fn of(
        &self,
        snapshot: &Arc<Snapshot>,
        write: impl FnOnce(&Snapshot) -> Bytes,
    ) -> Bytes {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*written {
            Some((of, page)) if Arc::ptr_eq(of, snapshot) => page.clone(),
            _ => {
                let page = write(snapshot);
                *written = Some((Arc::clone(snapshot), page.clone()));
                page
            }
        }
    }
}

#[cfg(test)]
mod tests;
