//! The fleet's vocabulary: who is in it, what each says of itself, and what a request asks for.
//!
//! These types are what is stored, sent and shown, so each is plain data with a stable serialised form.

mod autoscaling;
mod cleanup;
mod control;
mod desired;
mod ids;
mod instance;
mod lifecycle;
mod metrics;
mod region;
mod request;

pub use autoscaling::{Capacity, Replacement, ReplacementOutcome, ScalingDecision};
pub use cleanup::{CleanupCheck, CleanupCheckKind, CleanupValidation};
pub use control::{AuditRecord, Lease, Stamp};
pub use desired::{Desired, DesiredState};
pub use ids::{Framework, InstanceId, PoolId, RegionId, Timestamp};
pub use instance::{EnclaveState, Health, Registration, Report, Standing, Writer};
pub use lifecycle::Lifecycle;
pub use metrics::{
    CleanupTally, ClusterHealth, Gauge, Load, MAX_OPERATION_BYTES, MAX_OPERATIONS, Measured,
    Percentiles, PoolMetrics, PoolMinute, RegionLoad, Sample,
};
pub use region::{Location, Region};
pub use request::{Needs, Request};
