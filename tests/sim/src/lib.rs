//! The fleet under every fault that we can think of: routers, agents and a store on one virtual clock,
//! drawn from one seed.
//!
//! The routers are the fleet's own machines, the very ones that the real router runs; what is simulated is
//! the world around them. A run is a fleet of three to five regions, faults of many kinds for half of its
//! steps, and then peace: everything must be as before within a bound. What must hold at every moment is
//! in `watch`.
//!
//! A run is a function of its seed and its length. One that fails prints both, and can be run again.
#![forbid(unsafe_code)]

mod calls;
mod chaos;
mod clock;
mod dispatcher;
mod executor;
mod faults;
mod flight;
mod journey;
mod machine;
mod network;
mod plan;
mod report;
mod router;
mod serving;
mod slab;
mod store;
mod trace;
mod traffic;
mod watch;
mod world;

pub use faults::{Fault, Tally};
pub use report::{Failure, Summary, run};
pub use watch::{Draws, Violation};
pub use world::STEP_MS;
