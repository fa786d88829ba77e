//! The enclaves' part of `GET /metrics`.

use super::status::Enclaves;
use crate::metrics::Exposition;

const QUANTILES: [(&str, f64); 3] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)];

/// `None`: what `nitro-cli` lists is not known.
pub(crate) fn write(text: &mut Exposition, enclaves: Option<&Enclaves>) {
    let running = enclaves.map(|enclaves| enclaves.running);
    let listed = enclaves.map(|enclaves| enclaves.listed);
    text.gauge("mrgc_agent_enclaves", "Nitro enclaves, in whatever state.", listed);
    text.gauge("mrgc_agent_enclaves_running", "Nitro enclaves that run.", running);

    let beat = enclaves.and_then(|enclaves| enclaves.heartbeat.as_ref());
    let is_up = beat.map(|beat| u8::from(beat.error.is_none()));
    text.gauge("mrgc_agent_enclave_up", "1 while the enclave answers.", is_up);
    text.gauge(
        "mrgc_agent_enclave_round_trip_seconds",
        "What the enclave took to answer the last time.",
        beat.and_then(|beat| beat.round_trip_ms).map(|ms| ms / 1_000.0),
    );

    let name = "mrgc_agent_enclave_operation_seconds";
    text.family(name, "summary", "Operations by what the enclave says, since the agent's start.");
    for (operation, ms) in enclaves.iter().flat_map(|enclaves| &enclaves.operations) {
        for (label, quantile) in QUANTILES {
            if let Some(value) = ms.quantile(quantile) {
                let labels = [("operation", operation.as_str()), ("quantile", label)];
                text.labelled(name, &labels, value / 1_000.0);
            }
        }
        let labels = [("operation", operation.as_str())];
        text.labelled(&format!("{name}_sum"), &labels, ms.sum_ms() / 1_000.0);
        text.labelled(&format!("{name}_count"), &labels, ms.count());
    }
}
