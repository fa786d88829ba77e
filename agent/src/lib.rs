//! The agent on each GPU instance: it knows how the machine is, says so at `GET /health` and in heartbeats,
//! and drains before it goes.
//!
//! ```text
//!  gpu ─────┐                                         ┌─► answer ─► server: GET /health
//!  host ────┤ readings   state ── health, lifecycle ──┤ snapshot
//!  inference┤ ─────────►                              ├─► heartbeat ─► store
//!  enclave ─┤                                         └─► cleanup ─► its findings, as a reading
//!  notices ─┘ what the cloud announces
//! ```
//!
//! `signals`, `health`, `lifecycle`, `pace`, `state`, `answer` and `metrics` are pure: what comes in decides what goes out. The others
//! ask the machine, and [`run()`] ties them together.
#![forbid(unsafe_code)]

pub mod answer;
mod backoff;
pub mod cleanup;
pub mod config;
pub mod enclave;
pub mod gpu;
pub mod health;
mod heartbeat;
mod host;
mod identity;
mod inference;
pub mod journal;
pub mod lifecycle;
mod look;
mod metrics;
pub mod notices;
pub mod notify;
mod pace;
mod process;
pub mod reload;
mod run;
mod server;
pub mod signals;
pub mod state;
pub mod supervisor;

pub use look::look;
pub use run::{RunError, run};
