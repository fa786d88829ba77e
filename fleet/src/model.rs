//! The fleet's vocabulary: who is in it, what each says of itself, and what a request asks for.
//!
//! These types are what is stored, sent and shown, so each is plain data with a stable serialised form.

mod ids;
mod instance;
mod region;
mod request;

pub use ids::{Framework, InstanceId, PoolId, RegionId, Timestamp};
pub use instance::{EnclaveState, Gpu, Health, Lifecycle, Registration, Report, Standing};
pub use region::{Location, Region};
pub use request::{Needs, Request};
