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
use serde_json::json;

use super::{Channel, Enclave, channel::ChannelError, status::Heartbeat};

/// Of the operations in one answer, these are counted.
const MAX_SAMPLES: usize = 1_024;

/// Beats, and remembers what the enclave told.
#[derive(Debug, Default)]
pub(super) struct Heart {
    failures: u32,
    /// Of operations, so many names are told apart as in a minute of a pool's measurements.
    measured: Measured,
}

#[derive(Deserialize)]
struct Answer {
    nonce: String,
    #[serde(default)]
    error: Option<String>,
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
        let enclave = enclaves.iter().find(|enclave| enclave.is_running())?;
        let asked = Instant::now();
        let answer = ask(channel, enclave.cid, timeout).await;
        let took_ms = asked.elapsed().as_secs_f64() * 1_000.0;
        Some(match answer {
            Ok(operations) => {
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

async fn ask(
    channel: &Channel,
    cid: Option<u32>,
    timeout: Duration,
) -> Result<Vec<Operation>, ChannelError> {
    let nonce = format!("{:032x}", fastrand::u128(..));
    let question = json!({ "type": "heartbeat", "nonce": nonce });
    let answer: Answer = channel.ask(cid, &question, timeout).await?;
    if answer.nonce != nonce {
        return Err(ChannelError::OtherNonce);
    }
    match answer.error {
        Some(error) => Err(ChannelError::Refused(error)),
        None => Ok(answer.operations),
    }
}
