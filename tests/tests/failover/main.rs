//! Failover end to end: real processes of three regions, some of which are killed or stopped under traffic.

#![forbid(unsafe_code)]

mod cloud;
mod exhausted;
mod holder;
mod hung;
mod instance_loss;
mod region_loss;
mod roles;
mod support;
