//! The agent as a process: real sockets, the real NVML wrapper over a double, a real DynamoDB engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cli;
mod drain;
#[allow(dead_code, reason = "the store's own tests use all of it")]
#[path = "../../../store/tests/front.rs"]
mod front;
mod gpu;
mod health;
mod outage;
mod pace;
mod store;
mod support;
