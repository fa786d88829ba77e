//! Loads, inspects and calls routing policies: the one place that embeds wasmtime.
//!
//! ```text
//!   bytes ─► Policy::load ─► Instance::new(config) ─► observe ─► score, score, …
//!            size, imports,   config accepted,         view's     deadline, memory limit,
//!            interface        memory limit             candidates  every fault classified
//! ```
//!
//! A policy runs with no WASI and one import, a bounded log. Whatever it does (loops, traps, allocates
//! without end, answers nonsense) comes back as a [`Fault`] within the deadline; the instance is
//! then dead and is remade by its owner. The router and the `mrgc` command share this crate.
#![forbid(unsafe_code)]

pub mod cases;
mod deadline;
mod engine;
mod error;
mod instance;
mod limits;
mod policy;
mod ticker;

pub use engine::Engine;
pub use error::{Fault, LoadError};
pub use instance::{Instance, Loads, Scores};
pub use limits::Limits;
pub use policy::{Manifest, Policy};

/// What the WIT in `sdk/wit` generates. Arguments are borrowed, so a call copies straight into the guest.
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub use bindings::exports::mrgc::policy::routing::{
    Candidate, Enclave, Health, Level, Location, Needs, Request,
};
