//! The command as a process, against a real engine in this one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod copies;
mod cost;
mod face;
mod instances;
mod router;
mod support;
mod tables;
mod template;
