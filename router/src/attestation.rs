//! Attestation: what this router itself knows of its region's enclaves.
//!
//! An agent can claim anything of its enclave, so its word is never proof. The router draws a nonce, the
//! agent relays it to its enclave and the enclave's document back, and the router verifies that.
//!
//! ```text
//!  due instance ─ nonce ─► agent ─► enclave ─ NSM ─► document ─► verify ─► board ─► mask ─► snapshot
//! ```
//!
//! Each router judges the instances of its own region, off the data path, and tells the routers of other
//! regions which of its pools have an attested enclave. They send it requests by that; where a request ends,
//! only what that region's router verified itself counts.

mod board;
mod document;
mod error;
mod expected;
mod mask;
mod rounds;
mod verify;

pub use board::{Board, Pace, Verdict};
pub use error::AttestationError;
pub use expected::{AWS_NITRO_ROOT, Measurements, Root};
pub use mask::{Known, Mask};
pub use rounds::{Asker, Attestations, run};
pub use verify::{Attested, Expectation, verify};
