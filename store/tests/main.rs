//! The store against a real engine over its real protocol, each test with an engine and a file of its own.
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod attempts;
mod autoscaling;
mod cleanup;
mod control;
mod desired;
mod dump;
mod examples;
mod failover;
mod failures;
mod fencing;
mod follow;
mod front;
mod instances;
mod metrics;
mod outage;
mod policies;
mod provision;
mod regions;
mod registry;
mod replication;
mod replicator;
mod support;
mod tombstones;
mod versions;
