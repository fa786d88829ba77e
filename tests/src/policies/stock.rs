//! The stock policies' own sources, compiled natively. Their crates are `cdylib`s alone, so that they
//! get LTO as WASM, and nothing can depend on a `cdylib`. So a policy's modules name each other from
//! `super::`, not from `crate::`.

// Their unit tests run in their own crates.
#![cfg(not(test))]
#![allow(unreachable_pub, dead_code)]

#[path = "../../../policies/capacity/src/lib.rs"]
pub mod capacity;
#[path = "../../../policies/compliance/src/lib.rs"]
pub mod compliance;
#[path = "../../../policies/cost/src/lib.rs"]
pub mod cost;
#[path = "../../../policies/geo/src/lib.rs"]
pub mod geo;
#[path = "../../../policies/health/src/lib.rs"]
pub mod health;
#[path = "../../../policies/latency/src/lib.rs"]
pub mod latency;
#[path = "../../../policies/round-robin/src/lib.rs"]
pub mod round_robin;
#[path = "../../../policies/score/src/lib.rs"]
pub mod score;
