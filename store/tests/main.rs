//! The store against a real engine over its real protocol, each test with an engine and a file of its own.
#![allow(clippy::panic, clippy::unwrap_used)]

mod failures;
mod instances;
mod policies;
mod regions;
mod support;
