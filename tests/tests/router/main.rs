//! The router end to end: a real process, real sockets, real policies. What is hostile stands beside
//! what is well.

#![forbid(unsafe_code)]

mod across_regions;
mod bad_input;
mod bodies;
mod config;
mod control_api;
mod dry_run;
mod peers;
mod policies;
mod request_path;
mod support;
mod swap;
mod upstreams;
