//! How large items are, for what a fleet's state costs.

use mrgc_fleet::model::{Registration, Report};
use serde_json::json;

use crate::{calls::Key, item};

/// Sizes of an ordinary instance's items as the service counts them: keys and attributes' names included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemSizes {
    /// In `routing-state`, written with each heartbeat.
    pub report_bytes: usize,
    /// In `gpu-instances`, written when the instance joins.
    pub registration_bytes: usize,
}

/// Encodes a healthy instance with one model, whose every measurement is there. The error says what no
/// longer fits the records.
pub fn typical_item_sizes() -> Result<ItemSizes, String> {
    let report: Report = serde_json::from_value(json!({
        "id": "i-1234567890abcdef0", "region": "us-east-1", "generation": 3, "sequence": 259_200,
        "at": 1_760_000_000_000_u64, "lifecycle": "available", "health": "healthy",
        "queue_depth": 2, "running": 24, "avg_latency_ms": 152.345_678_901_234_5,
        "time_to_first_token_ms": 31.123_456_789_012_34, "enclave": "running",
        "models": ["meta-llama/Llama-3.1-70B-Instruct"],
        "gpu_utilization": 0.912_345_678_901_234_5, "gpu_memory_free_bytes": 85_899_345_920_u64,
        "next_within_ms": 30_000,
    }))
    .map_err(|error| format!("a report: {error}"))?;
    let report = Report { routing_score: report.score(), ..report };
    let registration: Registration = serde_json::from_value(json!({
        "id": "i-1234567890abcdef0", "region": "us-east-1", "pool": "llama-70b",
        "address": "10.66.10.50:8000", "health_address": "10.66.10.50:8080",
        "zone": "us-east-1a", "provider": "aws", "instance_type": "p5.48xlarge", "slots": 64,
        "cost_per_hour": 98.32, "frameworks": ["hipaa", "soc2"],
        "ami_id": "ami-0123456789abcdef0", "subnet_id": "subnet-12345",
        "registered_at": 1_760_000_000_000_u64, "generation": 3,
    }))
    .map_err(|error| format!("a registration: {error}"))?;
    let key = Key { pk: format!("{}#12", report.region), sk: report.id.to_string() };
    Ok(ItemSizes {
        report_bytes: item::size_bytes(&item::encode(&key, &report)?),
        registration_bytes: item::size_bytes(&item::encode(&key, &registration)?),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::REPORT_BUDGET_BYTES;

    /// The largest report of the tests of `routing_state`.
    const FULL_REPORT_BYTES: usize = 527;

    #[test]
    fn typical_items_are_between_bare_and_full() {
        let sizes = typical_item_sizes().unwrap();
        assert!((161..=FULL_REPORT_BYTES).contains(&sizes.report_bytes), "{sizes:?}");
        assert!(sizes.registration_bytes > 200, "{sizes:?}");
        assert!(sizes.registration_bytes < REPORT_BUDGET_BYTES, "{sizes:?}");
    }
}
