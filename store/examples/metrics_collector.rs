//! Metrics of a pool, recorded, stored and read back as one distribution and as the cluster's health.
//!
//! ```text
//! cargo run -p mrgc-store --features embedded --example metrics_collector [-- --endpoint URL]
//! ```

mod common;

use std::io::Write;

use mrgc_fleet::model::{PoolId, Region, RegionId};
use mrgc_store::{MetricsCollector, Store};

use common::{Result, State};

/// The window that is read, the present minute included.
const WINDOW_MINUTES: u32 = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let state = State::of_arguments().await?;
    run(&state.store, &mut std::io::stdout()).await?;
    state.close().await
}

pub async fn run(store: &Store, out: &mut impl Write) -> Result<()> {
    let region = RegionId::from("us-east-1");
    let pool = PoolId::from("model-a");
    // The summary is of the regions that operators registered.
    let home: Region = serde_json::from_value(serde_json::json!({
        "region_id": region, "name": "US East (N. Virginia)", "endpoint": "http://10.66.0.10:8080",
    }))?;
    store.put_region(&home).await?;

    let collector = MetricsCollector::new(store.clone(), region.clone(), "router-1");
    collector.record_rps(&pool, 45.2);
    collector.record_model_load_time(&pool, 32.5);
    // Each request's latency, not a percentile: percentiles of several programs cannot be put together.
    for n in 1..=100 {
        collector.record_inference_latency(&pool, 100.0 + f64::from(n));
    }
    // Programs call `flush` about once a minute, for the minutes that are over. This one will not wait.
    collector.flush_all().await?;

    let metrics = store.pool_metrics(&region, &pool, WINDOW_MINUTES).await?;
    if let Some(latency) = metrics.latency_percentiles() {
        let (p50, p95, p99) = (latency.p50_ms, latency.p95_ms, latency.p99_ms);
        writeln!(out, "Latency of {pool}: P50 {p50:.0} ms, P95 {p95:.0} ms, P99 {p99:.0} ms")?;
    }
    if let Some(mean_ms) = metrics.model_load().mean_ms() {
        writeln!(out, "Model load time: {:.1} s", mean_ms / 1_000.0)?;
    }

    let health = store.cluster_health_summary(WINDOW_MINUTES).await?;
    writeln!(out, "Total RPS: {}", measured(health.total.requests_per_second))?;
    writeln!(out, "Total Instances: {}", health.total.instances)?;
    writeln!(out, "Avg Queue Depth: {}", measured(health.total.average_queue_depth()))?;
    Ok(())
}

/// What nobody measured is not 0.
fn measured(value: Option<f64>) -> String {
    value.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.2}"))
}
