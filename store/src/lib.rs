//! The fleet's shared state over DynamoDB, and the engine that stands in for it on one machine.
//!
//! There is one code path, the AWS SDK: the real service and the [`embedded`] engine differ by their
//! endpoint only. Each table has a module that says its key layout and its size budget.
//!
//! ```text
//!  gpu_instances  routing_state  regions  policies     one for each table: keys, conditions, records
//!        └─────────────┴────────────┴────────┘
//!                        calls                         get, put, delete, query
//!             client ───── item ───── error            connecting; records as attributes; failures
//! ```
//!
//! Every item has the string keys `pk` and `sk` and, beside them, its record's fields as typed
//! attributes. Attributes a newer version wrote are ignored; an item that cannot be read is skipped and
//! counted by what lists, and is an error to what asked for it. No table has an index.
#![forbid(unsafe_code)]

mod calls;
mod client;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod gpu_instances;
mod item;
mod policies;
mod regions;
mod routing_state;
mod schema;

pub use client::{Counts, Store, StoreConfig};
pub use error::{Call, Fence, StoreError};
pub use policies::{MAX_ARTIFACT_BYTES, PolicyVersion};
pub use regions::DEFAULT_SHARDS;
pub use routing_state::REPORT_BUDGET_BYTES;
