//! The policy host against policies that mean harm and against the stock ones, all as WASM.
//!
//! `cargo xtask policies --all` builds what these tests load.

#![forbid(unsafe_code)]

mod artifacts;
mod calls;
mod log;
mod stock;
mod support;
