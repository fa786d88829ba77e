//! The regional router: forwards each inference request to the best instance, and lets operators see and
//! steer how.
//!
//! `data` is the data plane, `control` the operator's API, `policies` the WASM policies at work; `sync`
//! follows the shared state, `watch` looks at the fleet itself, `collect` stores what was measured, and `run`
//! puts them together.
#![forbid(unsafe_code)]

pub mod attestation;
mod collect;
pub mod config;
mod control;
mod data;
pub mod flight;
mod health;
pub mod policies;
mod problem;
mod run;
mod supervisor;
mod sync;
mod watch;

pub use run::{Running, run};
