//! What the end-to-end tests, the demo and the benchmarks stand on: a model server that can be made
//! to fail, and a client that sends a steady load and tells exactly what came of it.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod crowd;
pub mod demo;
pub mod load;
pub mod model_server;
pub mod policies;
pub mod regions;
pub mod usage;
