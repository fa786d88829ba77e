//! The agent on each GPU instance: it knows how the machine is, says so at `GET /health` and in heartbeats,
//! and drains before it goes.
//!
//! ```text
//!  gpu ─────┐                                         ┌─► answer ─► server: GET /health
//!  host ────┤ readings   state ── health, lifecycle ──┤ snapshot
//!  inference┤ ─────────►                              └─► heartbeat ─► store
//!  enclave ─┘
//! ```
//!
//! `signals`, `health`, `lifecycle`, `pace`, `state`, `answer` and `metrics` are pure: what comes in decides what goes out. The others
//! ask the machine, and [`run()`] ties them together.
#![forbid(unsafe_code)]

pub mod answer;
mod backoff;
pub mod config;
mod enclave;
mod gpu;
pub mod health;
mod heartbeat;
mod host;
mod inference;
pub mod lifecycle;
mod metrics;
mod pace;
mod run;
mod server;
pub mod signals;
pub mod state;

pub use run::{RunError, run};
