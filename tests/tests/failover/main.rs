//! Failover end to end: real processes of three regions, some of which are killed or stopped under traffic.

#![forbid(unsafe_code)]

mod capacity;
mod cloud;
mod exhausted;
mod forget;
mod holder;
mod hung;
mod instance_loss;
mod late;
mod region_loss;
mod roles;
mod support;
