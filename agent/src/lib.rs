//! The agent on each GPU instance: it knows how the machine is, says so at `GET /health` and in heartbeats,
//! and drains before it goes.
//!
//! ```text
//!  gpu, host, enclave ──┐ readings                            ┌─► answer, metrics ─► server
//!  inference ───────────┤                                     ├─► heartbeat ─► store
//!  notices ─────────────┼─► state ── health, lifecycle ───────┤ snapshots
//!  server: orders ──────┤                                     ├─► cleanup ─► what it found
//!  supervisor: reload ──┘                                     └─► supervisor ─► notify: systemd
//! ```
//!
//! `signals`, `health`, `lifecycle`, `pace`, `state`, `journal`, `answer`, `metrics` and `backoff` are pure: what comes
//! in decides what goes out. The others ask the machine or the network. `identity` says who this instance is,
//! [`run()`] ties all of it together, and [`look()`] looks once, without an agent.
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
pub use run::{RunError, now, run};
