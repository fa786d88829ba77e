//! The few calls of AWS's services that agents and routers make beside those of the store.
//!
//! ```text
//!  AutoScaling ─┐
//!               ├─► Service ─► signed POST ─► answer, bounded ─► XML
//!  Ec2 ─────────┘      │
//!                      └── Session: region, credentials
//! ```
//!
//! Both services speak AWS's Query protocol. Requests are signed by the SDK's own signer and sent by its own
//! client, as the SDK of either service would be larger than the agent.
#![forbid(unsafe_code)]

mod answer;
mod auto_scaling;
mod credentials;
mod ec2;
mod error;
mod service;

pub use auto_scaling::{AutoScaling, LifecycleAction, Told};
pub use ec2::{Ec2, InstanceStatus, MAX_INSTANCES, is_instance_id};
pub use error::CallError;
pub use service::Session;
