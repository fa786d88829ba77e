//! The agent as a process: real sockets, the real NVML wrapper over a double, a real DynamoDB engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod check;
mod cleanup;
mod cli;
mod drain;
mod enclave;
#[allow(dead_code, reason = "the store's own tests use all of it")]
#[path = "../../../store/tests/front.rs"]
mod front;
mod gpu;
mod health;
mod identity;
mod imds;
mod inference;
mod lifecycle;
mod metrics;
mod notices;
mod notify;
mod outage;
mod pace;
mod reload;
mod signals;
mod store;
mod support;
