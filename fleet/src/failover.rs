//! When a region's traffic goes elsewhere, how much of it, and how it comes back.
//!
//! ```text
//!              healthy < 80 %                      healthy < 30 %, or none
//!  ┌────────┐ ───────────────► ┌──────────┐ ───────────────► ┌─────────────────┐
//!  │ NORMAL │                  │ DEGRADED │                  │ FAILOVER_ACTIVE │
//!  └────────┘                  └──────────┘                  └─────────────────┘
//!      ▲                          │     ▲                        │       ▲
//!      │           ≥ 80 % for 30 s│     │< 80 %      ≥ 80 %      │       │ < 30 %
//!      │                          ▼     │            for 30 s    ▼       │
//!      │  all is back          ┌────────────────────────────────────────────┐
//!      └────────────────────── │ RECOVERING: 25 % more each 30 s            │
//!                              └────────────────────────────────────────────┘
//! ```
//!
//! *Healthy* is the share of instances that take requests among those whose drain is not planned. What a
//! region keeps of its own traffic is its **share**: all of it from 80 %, 70 % of it down to 50 %, then in a
//! line down to 5 % at 30 %, 5 % below that, and nothing where no instance is healthy or no router answers.
//! The numbers are [`Thresholds`].
//!
//! - **Worse at once, better after a while.** A state holds for 30 s, and the evidence for a better one must
//!   be there all that time. So evidence that flaps faster moves the share down once, and not up.
//! - **Back by steps.** A share rises by a quarter at most, and a step lasts 30 s of good evidence, whoever
//!   let it rise: the evidence, an operator, or a lease holder that fell silent. Worse evidence takes all of
//!   it back at once.
//! - **Never onto the next one.** Moved requests go by spare capacity, up to a limit that rises with their
//!   priority; where none can carry them, they are refused ([`steer`]).
//! - **Minimum healthy.** An operator's failover to a region of which less than half takes requests is
//!   refused, unless forced.
//! - **Panic.** Where no region of a request is said to be alive, evidence is set aside: that it is stale is
//!   likelier than the end of the fleet. What instances say of themselves, operators' orders and a network that
//!   does not connect stand.
//! - **No instances, no statement.** A region that has none, or plans the drain of all, has not failed.
//!
//! The machine of one region is [`RegionMachine`]; of all of them, with operators' orders and the lease
//! holder's word, [`Handler`].

mod capacity;
mod handler;
mod history;
mod judge;
mod orders;
mod plan;
mod record;
mod refusal;
mod region;
mod simulate;
mod status;
mod steer;
mod thresholds;
mod watch;

pub use capacity::{Lane, Limit, Steering};
pub use handler::{Handler, Output, Phase};
pub use history::{Cause, FailoverEvent, MAX_EVENTS, Summary};
pub use judge::Evidence;
pub use orders::{RegionOrder, Strategy, Wish};
pub use record::{RECORD_TTL_MS, RegionRecord, accepts};
pub use refusal::Refused;
pub use region::{RegionMachine, RegionState, Transition};
pub use simulate::{PoolSimulation, Simulation, Target};
pub use status::{NextStep, RegionStatus};
pub use steer::{Steered, steer};
pub use thresholds::Thresholds;

use judge::Rating;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod testing;
