//! What a new snapshot of 10,000 instances does to the requests that are in flight while it is published:
//! their latency against that of all others of the same run. `cargo xtask bench publish` builds and runs this.
//!
//! All instances but one are nowhere and only send heartbeats; the requests go to the one. The route's policy
//! observes every snapshot. State, heartbeats, load and router share this machine, at all times alike.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use mrgc_fleet::model::RegionId;
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{Cluster, InstanceSpec, RegionSpec, Router, VIRGINIA},
    crowd::Crowd,
    load::{Journal, Load, LoadConfig, Pace, Record},
    usage,
};
use tokio::time::{Instant, sleep};

const INSTANCES: u64 = 10_000;
const SHARDS: u32 = 16;
const HEARTBEAT: Duration = Duration::from_secs(10);
const MEASURED_FOR: Duration = Duration::from_secs(60);
const REQUESTS_PER_SECOND: f64 = 500.0;
/// Between two looks at the snapshot's version.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Around the moment in which a new version is seen: made before, observed by policies after.
const DISTURBED: Duration = Duration::from_millis(50);
/// What takes longer is counted as this.
const LONGEST_US: u64 = 60_000_000;
const MAX_ADDED_P99: Duration = Duration::from_millis(2);
/// A large fleet is looked at four times less often: about once a second.
const ROUTER: &str = r#"
[follow]
interval_seconds = 0.25

[[routes]]
name = "any"
policies = [{ name = "score" }]
"#;

fn main() -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let cluster = Cluster::start().await?;
    let endpoint = Some(cluster.store_endpoint()?);
    let config = StoreConfig { endpoint, timeout_ms: 30_000, ..StoreConfig::default() };
    let store = Store::connect(&config).await?;
    let router = cluster.router(RegionSpec { shards: SHARDS, ..VIRGINIA }, ROUTER).await?;
    eprintln!("registering {INSTANCES} instances");
    let crowd = Crowd::register(&store, &RegionId::from(VIRGINIA.id), INSTANCES).await?;
    let _heartbeats = crowd.beat(&store, HEARTBEAT)?;
    let spec =
        InstanceSpec { latency_ms: 0, slots: 256, ..InstanceSpec::new("i-serves", VIRGINIA.id) };
    let _instance = cluster.instance(&spec).await?;
    sleep(HEARTBEAT.mul_f64(1.5)).await;

    let journal = Journal::default();
    let load = Load::start(LoadConfig {
        targets: vec![router.data_url("/v1/chat/completions")],
        pace: Pace::PerSecond(REQUESTS_PER_SECOND),
        model: spec.model.clone(),
        journal: Some(journal.clone()),
        ..LoadConfig::default()
    })?;
    eprintln!("measuring for {} s", MEASURED_FOR.as_secs());
    let published = publications(&cluster, &router).await?;
    let stats = load.stop().await;
    ensure!(stats.failed() + stats.shed == 0, "requests failed: {stats}");
    let memory_bytes = usage::memory_bytes(router.program.pid().context("pid")?)?;
    report(&journal.records(0), &published, memory_bytes)
}

/// When new snapshots were seen.
async fn publications(cluster: &Cluster, router: &Router) -> Result<Vec<Instant>> {
    let (mut version, mut seen, end) = (None, Vec::new(), Instant::now() + MEASURED_FOR);
    while Instant::now() < end {
        let stats = router.get(&cluster.client, "/stats").await?;
        let new = stats["snapshot"].as_u64().context("/stats tells no snapshot")?;
        if version.replace(new).is_some_and(|old| old != new) {
            seen.push(Instant::now());
        }
        sleep(LOOK_INTERVAL).await;
    }
    ensure!(!seen.is_empty(), "no snapshot was published");
    Ok(seen)
}

fn report(records: &[Record], published: &[Instant], memory_bytes: u64) -> Result<ExitCode> {
    let histogram = || Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3);
    let (mut in_flight, mut others) = (histogram()?, histogram()?);
    for record in records {
        let head = record.head.context("an answer without a head")?;
        let is_near = |at: &&Instant| record.sent <= **at + DISTURBED && head + DISTURBED >= **at;
        let times =
            if published.iter().any(|at| is_near(&at)) { &mut in_flight } else { &mut others };
        times.saturating_record(u64::try_from((head - record.sent).as_micros())?);
    }
    println!(
        "{INSTANCES} instances, {} snapshots in {} s, {REQUESTS_PER_SECOND} requests/s, {:.1} MB",
        published.len(),
        MEASURED_FOR.as_secs(),
        memory_bytes as f64 / 1e6
    );
    for (what, times) in [("while one is published", &in_flight), ("all others", &others)] {
        let us = |q| times.value_at_quantile(q);
        println!(
            "  {what:<24} {:>6} requests, p50 {:>6} µs, p99 {:>6} µs, max {:>6} µs",
            times.len(),
            us(0.5),
            us(0.99),
            times.max()
        );
    }
    let p99 = |times: &Histogram<u64>| Duration::from_micros(times.value_at_quantile(0.99));
    let met = p99(&in_flight) <= p99(&others) + MAX_ADDED_P99;
    println!(
        "goal: at most {} ms more at p99: {}",
        MAX_ADDED_P99.as_millis(),
        if met { "met" } else { "MISSED" }
    );
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
