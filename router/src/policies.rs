//! Policies at work: versions, the decks of instances that data threads play with, and the thread that
//! deals them.
//!
//! ```text
//!  snapshot ─┐                             ┌─► data thread 0: Deck { fleet, seats }
//!  upload ───┼─► conductor: spare seats ───┤
//!  death ────┘   observe, then are dealt   └─► data thread 1: Deck { fleet, seats }
//!      ▲                                            │
//!      └──────────── the old deck comes back ◄──────┘
//! ```
//!
//! A data thread never compiles, instantiates or observes: it gets a deck in which all that is done, and
//! swaps it in between two requests.

pub mod bootstrap;
pub mod catalog;
mod conductor;
mod deck;
pub mod translate;
mod version;

pub use conductor::{Conductor, Handle, Status};
pub use deck::{Deck, RouteTable, Seat};
pub use version::Version;
