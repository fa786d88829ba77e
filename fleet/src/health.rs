//! Evidence of who can serve, and what follows from it.
//!
//! Four kinds of evidence, each judged by a machine of its own and none by another's clock:
//!
//! | evidence | machine | says |
//! |---|---|---|
//! | live requests | [`Breaker`] | Healthy, Ejected or Probing, at once |
//! | active probes | [`Probes`] | healthy, or unhealthy after the fourth failure in a row |
//! | heartbeats | [`Freshness`] | whether an instance's reports still come |
//! | pings | [`Peers`] | which regions' routers answer |
//!
//! An instance takes requests where all that were asked say so. They are not averaged: an instance whose
//! probes pass while its requests fail stays ejected until requests succeed.

mod breaker;
mod freshness;
mod outcome;
mod peers;
mod probes;

pub use breaker::{Admission, Breaker, BreakerState, Change, EjectionConfig, Room};
pub use freshness::Freshness;
pub use outcome::Outcome;
pub use peers::{MAX_OUTSTANDING, PeerChange, PeerConfig, Peers};
pub use probes::{ProbeConfig, ProbeResult, Probes, Verdict};
