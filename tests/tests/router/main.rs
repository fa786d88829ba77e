//! The router end to end: a real process, real sockets, real policies, and each way to fail beside one
//! that goes well.

#![forbid(unsafe_code)]

mod across_regions;
mod attestation;
mod bad_input;
mod bodies;
mod cluster_load;
mod command;
mod config;
mod confirm;
mod control_api;
mod dry_run;
mod failing;
mod http1;
mod in_flight;
mod orders;
mod out;
mod outage;
mod peers;
mod policies;
mod request_path;
mod start;
mod steering;
mod support;
mod swap;
mod upstreams;
