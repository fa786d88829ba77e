//! The agent as a process: real sockets, the real NVML wrapper over a double, a real DynamoDB engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod cli;
mod drain;
mod gpu;
mod health;
mod store;
mod support;
