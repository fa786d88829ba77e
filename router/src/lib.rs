//! The regional router: forwards each inference request to the best instance, and lets operators see and
//! steer how.
//!
//! `data` is the data plane, `control` the operator's API, `policies` the WASM policies at work; `sync`
//! follows the shared state, `probe` and `ping` look at the fleet itself, `monitor` judges it by all of that, `executor`
//! does what follows, `collect` stores what was measured, and `run` puts them together.
#![forbid(unsafe_code)]

pub mod attestation;
mod cloud;
mod collect;
pub mod config;
mod control;
mod data;
mod executor;
mod failovers;
pub mod flight;
mod health;
mod monitor;
mod ping;
pub mod policies;
mod probe;
mod problem;
mod run;
mod supervisor;
mod sync;

pub use run::{Running, run};
