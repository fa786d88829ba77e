//! The fleet's shared state over DynamoDB, and the engine that stands in for it on one machine.
//!
//! There is one code path, the AWS SDK: the real service and the [`embedded`] engine differ by their
//! endpoint only. Each table has a module that says its key layout and its size budget.
//!
//! ```text
//!  registry  follow                                       the life of an instance in calls; what routers read
//!  gpu_instances + desired  routing_state + region_states
//!  regions  policies  autoscaling_state                   one for each table: keys, conditions, records
//!  cleanup_validation  metrics  control
//!        └─────────────┴───────────┘
//!     opinions, stamp, calls, queries, range              what several write; one item: get, put, update, delete;
//!                 │                                       many items
//!      reads ─ client ───── item ───── error              connecting; records as attributes; failures
//!        │        └── retry, credentials                  attempts at one call, and as whom
//!     replicas                                            whom a read asks where its region is gone
//! ```
//!
//! Every item has the string keys `pk` and `sk` and, beside them, its record's fields as typed
//! attributes. Attributes a newer version wrote are ignored, and kept by what writes over existing items; an
//! item that cannot be read is skipped, counted and named by what lists, and is an error to what asked for
//! it. What an instance says of itself and what operators want of it are separate items, so that neither
//! can undo the other. No table has an index.
#![forbid(unsafe_code)]

mod autoscaling_state;
mod budget;
mod calls;
mod check;
mod cleanup_validation;
mod client;
mod clock;
mod config;
mod control;
mod corrupt;
mod counts;
mod credentials;
mod desired;
mod dump;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod follow;
mod gpu_instances;
mod item;
mod metrics;
mod opinions;
mod policies;
mod provision;
mod queries;
mod range;
mod reads;
mod region_states;
mod regions;
mod registry;
mod replicas;
mod retry;
mod routing_state;
mod schema;
mod sizes;
mod stamp;

pub use autoscaling_state::AUTOSCALING_BUDGET_BYTES;
pub use check::{Difference, Differences, Inspection};
pub use cleanup_validation::CLEANUP_BUDGET_BYTES;
pub use client::Store;
pub use config::{Replica, StoreConfig};
pub use control::{AUDIT_BUDGET_BYTES, AuditEntry, FAILOVER_BUDGET_BYTES, LeaseKeeper};
pub use corrupt::CorruptItem;
pub use counts::Counts;
pub use dump::{
    DUMP_VERSION, DumpError, DumpHeader, DumpReader, DumpSummary, Export, ExportChunk,
    ExportOptions, ImportProgress, Imported, OnConflict,
};
pub use error::{Call, Fence, Holder, StoreError};
pub use follow::{Changes, Follower, FollowerConfig, ReadCounts, look_interval};
pub use metrics::{CollectorCounts, MAX_WINDOW_MINUTES, METRICS_BUDGET_BYTES, MetricsCollector};
pub use policies::{MAX_ARTIFACT_BYTES, PolicyVersion};
pub use provision::{ProvisionOptions, ProvisionStep};
pub use reads::ReadingFrom;
pub use region_states::REGION_RECORD_BUDGET_BYTES;
pub use regions::{DEFAULT_SHARDS, SHARDS_FRESH};
pub use registry::Registry;
pub use routing_state::REPORT_BUDGET_BYTES;
pub use schema::{TableDefinition, table_definitions};
pub use sizes::{ItemSizes, typical_item_sizes};
