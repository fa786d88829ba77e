//! The fleet as data, and every decision about it, as pure code.
//!
//! Nothing here does I/O, reads a clock, spawns a thread or awaits: time, randomness and live counts
//! come in as arguments, so every decision can be tested, simulated and replayed. The crate also builds
//! for `wasm32-unknown-unknown`, which proves it.
//!
//! ```text
//!  registrations, reports ─► snapshot ─► views ─┐
//!                                               ├─► guard ─► routing ─► ordered attempts
//!                        request, live counts ──┘               ▲
//!                                                  scores of policies
//! ```
#![forbid(unsafe_code)]

pub mod failover;
pub mod guard;
pub mod health;
pub mod histogram;
pub mod lease;
pub mod model;
pub mod monitor;
pub mod planted;
pub mod routing;
pub mod snapshot;

#[cfg(test)]
pub(crate) mod testing;
