//! What is known of the enclaves, as data.

use std::collections::BTreeMap;

use mrgc_fleet::histogram::Histogram;
use serde::Serialize;

use crate::signals::Check;

/// The instance's Nitro enclaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Enclaves {
    /// Those in the state RUNNING.
    pub running: u32,
    /// All that `nitro-cli` lists, in whatever state.
    pub listed: u32,
    pub list: Vec<Enclave>,
    /// `/dev/nitro_enclaves`.
    pub device: Check,
    /// The memory that is set aside for enclaves.
    pub allocator: Check,
    /// `None`: no channel to the enclave is configured, or none runs.
    pub heartbeat: Option<Heartbeat>,
    /// What the enclave says of its operations since the agent's start, by name.
    pub operations: BTreeMap<String, Histogram>,
}

impl Default for Enclaves {
    /// None, and nothing is known of what they need.
    fn default() -> Self {
        Self {
            running: 0,
            listed: 0,
            list: Vec::new(),
            device: Check::unasked(),
            allocator: Check::unasked(),
            heartbeat: None,
            operations: BTreeMap::new(),
        }
    }
}

impl Enclaves {
    /// Whether one runs, and answers where it is asked.
    pub fn is_healthy(&self) -> bool {
        self.running > 0 && self.heartbeat.as_ref().is_none_or(|beat| beat.error.is_none())
    }

    /// Why they are not healthy.
    pub fn trouble(&self) -> Option<String> {
        if self.running > 0 {
            return self.heartbeat.as_ref().and_then(|beat| beat.error.clone());
        }
        let states: Vec<_> = self.list.iter().map(|enclave| enclave.state.as_str()).collect();
        let what = match states.as_slice() {
            [] => format!("none of the {} listed is running", self.listed),
            states => {
                let states = states.join(", ");
                format!("none of the {} listed is running: {states}", self.listed)
            }
        };
        let lacks = [&self.device, &self.allocator].into_iter().filter_map(|c| c.reason.as_deref());
        Some([what.as_str()].into_iter().chain(lacks).collect::<Vec<_>>().join("; "))
    }
}

/// One enclave as `nitro-cli` describes it. What an older one leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Enclave {
    pub id: Option<String>,
    pub name: Option<String>,
    /// Its address on vsock.
    pub cid: Option<u32>,
    /// In capitals: RUNNING, TERMINATING, EMPTY.
    pub state: String,
    /// Whether its memory is open to this machine.
    pub debug_mode: Option<bool>,
    pub memory_mib: Option<u64>,
    pub cpus: Option<u64>,
}

impl Enclave {
    pub fn is_running(&self) -> bool {
        self.state == "RUNNING"
    }

    /// The one that is asked, of all that are listed.
    pub fn first_running(enclaves: &[Self]) -> Option<&Self> {
        enclaves.iter().find(|enclave| enclave.is_running())
    }
}

/// How the enclave answered the last time it was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Heartbeat {
    /// From the connection to the answer.
    pub round_trip_ms: Option<f64>,
    /// Why it did not.
    pub error: Option<String>,
    /// In a row, this one included.
    pub failures: u32,
}

/// The enclaves in the answer to `GET /health?detail`.
#[derive(Debug, Serialize)]
pub struct Answer<'a> {
    pub running: u32,
    pub listed: u32,
    pub healthy: bool,
    /// Always `null`: routers verify documents, and `GET /instances` of theirs says what they found.
    pub attested: Option<bool>,
    /// Why it is not healthy.
    pub reason: Option<String>,
    pub enclaves: &'a [Enclave],
    pub device: &'a Check,
    pub allocator: &'a Check,
    pub heartbeat: Option<&'a Heartbeat>,
    pub operations: BTreeMap<&'a str, Operation>,
}

/// How long the enclave took for one kind of operation, over all that it told of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Operation {
    pub count: u64,
    pub mean_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

impl<'a> Answer<'a> {
    pub fn of(enclaves: &'a Enclaves) -> Self {
        let operation = |(name, ms): (&'a String, &Histogram)| {
            let (mean_ms, p99_ms, max_ms) = (ms.mean_ms(), ms.quantile(0.99), ms.max_ms());
            (name.as_str(), Operation { count: ms.count(), mean_ms, p99_ms, max_ms })
        };
        Self {
            running: enclaves.running,
            listed: enclaves.listed,
            healthy: enclaves.is_healthy(),
            attested: None,
            reason: enclaves.trouble(),
            enclaves: &enclaves.list,
            device: &enclaves.device,
            allocator: &enclaves.allocator,
            heartbeat: enclaves.heartbeat.as_ref(),
            operations: enclaves.operations.iter().map(operation).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
