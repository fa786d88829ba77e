//! The stock policies' own sources, compiled natively. Their crates are `cdylib`s alone, so that they
//! get LTO as WASM, and nothing can depend on a `cdylib`.

// Their unit tests run in their own crates.
#![cfg(not(test))]
#![allow(unreachable_pub, dead_code, missing_debug_implementations)]

#[path = "../../../policies/score/src/lib.rs"]
pub mod score;
