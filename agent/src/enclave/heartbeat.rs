//! Asking the enclave whether it is there, and what it did since it was asked the last time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mrgc_fleet::{
    histogram::Histogram,
    model::{Measured, Sample},
};
use serde::Deserialize;

use super::{
    Channel,
    status::{Enclave, Heartbeat},
};

/// Of the operations in one answer, these are counted.
const MAX_SAMPLES: usize = 1_024;

/// Beats, and remembers what the enclave told.
#[derive(Debug, Default)]
pub(super) struct Heart {
    failures: u32,
    /// Of operations, so many names are told apart as in a minute of a pool's measurements.
    measured: Measured,
}

/// What it did.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    name: String,
    ms: f64,
}

impl Heart {
    /// Asks the first enclave that runs; `None` where none does.
    pub(super) async fn beat(
        &mut self,
        channel: &Channel,
        enclaves: &[Enclave],
        timeout: Duration,
    ) -> Option<Heartbeat> {
        let enclave = Enclave::first_running(enclaves)?;
        let nonce = format!("{:032x}", fastrand::u128(..));
        let asked = Instant::now();
        let answer = channel.ask(enclave.cid, "heartbeat", &nonce, timeout).await;
        let took_ms = asked.elapsed().as_secs_f64() * 1_000.0;
        Some(match answer {
            Ok(Told { operations }) => {
                self.failures = 0;
                for Operation { name, ms } in operations.iter().take(MAX_SAMPLES) {
                    self.measured.record(&Sample::EnclaveOperation { name, ms: *ms });
                }
                Heartbeat { round_trip_ms: Some(took_ms), error: None, failures: 0 }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let error = Some(error.to_string());
                Heartbeat { round_trip_ms: None, error, failures: self.failures }
            }
        })
    }

    pub(super) fn operations(&self) -> BTreeMap<String, Histogram> {
        self.measured.enclave_operations.clone()
    }
}
