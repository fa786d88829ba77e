//! The data plane: one thread per core, each with its own listener, upstream connections, policy
//! instances and counters. Threads share the fleet's snapshot, which they only read, and the slots' counts;
//! they wait for nothing off the data path.
//!
//! ```text
//!  accept ─► receive ─► understand ─► choose region ─► choose instance ─► attempt ─┐
//!            head, body  facts, route   ▲    policies       ▲  policies       │     │
//!                                       │                   └──── failed ◄────┤     │
//!                                       └───────── region failed ◄────────────┘     ▼
//!                                                                         stream, finish
//! ```
//!
//! `client` is the side that accepts, `upstream` the one that attempts; both speak HTTP/1.1 by `wire`.

mod alarm;
mod body;
mod client;
mod decision;
mod exchange;
mod facts;
mod hop;
mod journey;
mod listen;
mod meter;
mod receive;
mod shard;
mod stats;
mod upstream;
mod wire;

pub use listen::{Inputs, Threads, bind, node, start};
pub use meter::{Batch, Served};
pub use stats::{EJECTION_CAUSES, LATENCY_BOUNDS_MS, Totals};
