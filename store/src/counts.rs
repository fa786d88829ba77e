//! What is counted of a store's calls, from the moment it was connected.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;

/// The counters, and the same as plain numbers.
macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened at the store's bounds since it was connected.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counted! {
    /// Items that could not be read and were skipped.
    corrupt_items,
    /// Writes that the SDK repeated although the first had been done.
    repeated_writes,
    /// Reports that were shortened to fit their budget.
    shortened_reports,
    /// Reports above their budget even so.
    oversized_reports,
    /// Attempts after the first of their call.
    retried,
    /// Answers that throttled, each attempt counted.
    throttled,
    /// Times that the credentials were asked for anew because the service called them expired.
    renewed_credentials,
    /// Read units that listings and batches consumed as the service counts them, in halves.
    read_half_units,
    /// Reads that a replica answered.
    replica_reads,
    /// Times that reads turned from the primary to a replica.
    turned_to_replica,
    /// Calls that failed, retries included: nothing answered at the endpoint.
    failed_unreachable,
    /// The deadline passed.
    failed_timeout,
    /// Throttled in every attempt.
    failed_throttled,
    /// The credentials or their role do not permit the call.
    failed_denied,
    /// Anything else, as a missing table or a fault of the service.
    failed_other,
}

impl Counters {
    /// Counts a call that failed, by its kind.
    pub(crate) fn count_failure(&self, error: &StoreError) {
        let counter = match error {
            StoreError::Unreachable { .. } => &self.failed_unreachable,
            StoreError::Timeout { .. } => &self.failed_timeout,
            StoreError::Throttled { .. } => &self.failed_throttled,
            StoreError::Denied { .. } => &self.failed_denied,
            _ => &self.failed_other,
        };
        add(counter);
    }
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
