//! The mock model server and the load client, over real sockets: what all other end-to-end tests
//! believe has to be true first.

#![forbid(unsafe_code)]

mod failures;
mod load;
mod process;
mod queue;
mod serving;
mod support;
