//! Fifty swaps between two policies while a load runs at full speed: no request is lost, and each
//! version decides.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::HeaderName;
use mrgc_tests::{
    cluster::{PATIENCE, eventually},
    load::{Load, LoadConfig, Pace},
    model_server::{Config, ModelServer},
    policies::stock_component,
};
use serde_json::Value;

use crate::support::{CHAT, Lone, MODEL, PolicyFolder, Setup};

const SWAPS: u64 = 50;
/// How long the load runs at least; `MRGC_TEST_SWAP_SECONDS` shortens it for a look.
const SECONDS: u64 = 60;
const INSTANCES: usize = 4;
const POLICIES: HeaderName = HeaderName::from_static("x-mrgc-policies");

/// What one swap took.
struct Swapped {
    /// From the order to swap until the first answer by the new version was complete.
    to_first_decision: Duration,
    prepared: Duration,
    decisions: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_swaps_under_full_load_lose_no_request() -> Result<()> {
    let seconds = std::env::var("MRGC_TEST_SWAP_SECONDS").ok();
    let seconds = seconds.map_or(Ok(SECONDS), |text| text.parse())?;
    let artifacts = [stock_component("score")?, stock_component("round-robin")?];
    let folder = PolicyFolder::new(&[("steering", &artifacts[0])])?;
    let route = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"steering\" }]\n";
    let mut setup = Setup::new(route).policies(folder.path());
    let mut servers = Vec::new();
    for i in 0..INSTANCES {
        let quick = Config { latency_ms: 2, tokens: 4, slots: 64, ..Config::default() };
        let server = ModelServer::start(quick).await?;
        setup = setup.instance(&format!("i-{i}"), server.address());
        servers.push(server);
    }
    let lone = setup.start().await?;
    let load = Load::start(LoadConfig {
        targets: vec![lone.router.data_url(CHAT)],
        pace: Pace::FullSpeed,
        connections: 32,
        streaming_share: 0.5,
        model: MODEL.to_owned(),
        count_headers: vec![POLICIES],
        ..LoadConfig::default()
    })?;

    let started = Instant::now();
    let mut all = Vec::new();
    for swap in 1..=SWAPS {
        all.push(swap_once(&lone, &load, &artifacts[(swap % 2) as usize], swap).await?);
        // Evenly over the time, so that each version has its share of the load.
        let due = started + Duration::from_secs(seconds).mul_f64(swap as f64 / SWAPS as f64);
        tokio::time::sleep_until(due.into()).await;
    }
    let took = started.elapsed();
    let native = lone.metric("mrgc_router_native_scores_total").await?;
    let stats = load.stop().await;

    report(&stats.to_string(), took, &mut all);
    assert_eq!(stats.failed() + stats.shed, 0, "{stats}");
    assert_eq!(stats.sent, stats.ok, "{stats}");
    ensure!(
        stats.streamed * 2 + 64 > stats.ok && stats.streamed * 2 < stats.ok + 64,
        "half streams: {stats}"
    );
    ensure!(took >= Duration::from_secs(seconds), "{took:?}");
    assert_eq!(native, 0.0, "policies decide, not their stand-in");
    for generation in 0..=SWAPS {
        let label = format!("steering@{generation}");
        let seen = stats.values(POLICIES.as_str()).find(|(value, _)| *value == label);
        ensure!(seen.is_some_and(|(_, seen)| seen.count > 0), "no decision by {label}");
    }
    ensure!(
        stats.values(POLICIES.as_str()).count() as u64 == SWAPS + 1,
        "versions that never were"
    );
    Ok(())
}

/// Uploads the next version and waits for its first decisions.
async fn swap_once(lone: &Lone, load: &Load, artifact: &[u8], swap: u64) -> Result<Swapped> {
    let url = lone.router.control_url("/policies/steering");
    let ordered = tokio::time::Instant::now();
    let answer = lone.client.put(url).body(artifact.to_vec()).send().await?;
    let uploaded: Value = answer.error_for_status()?.json().await?;
    assert_eq!(uploaded["generation"], swap);
    let prepared = uploaded["prepared_ms"].as_f64().context("no prepared_ms")?;
    let prepared = Duration::from_secs_f64(prepared / 1000.0);
    let label = format!("steering@{swap}");
    let first = eventually(&format!("{label} decides"), PATIENCE, || async {
        let stats = load.stats();
        let seen = stats.values(POLICIES.as_str()).find(|(value, _)| *value == label);
        Ok(seen.map(|(_, seen)| seen.first))
    })
    .await?;
    let status = lone.get("/policies/steering").await?;
    let decisions = status["decisions"].as_u64().unwrap_or(0);
    ensure!(decisions > 0 && status["faults"] == 0, "{status}");
    Ok(Swapped {
        to_first_decision: (first - ordered).saturating_sub(prepared),
        prepared,
        decisions,
    })
}

#[allow(clippy::print_stdout, reason = "the numbers are what the test is run for")]
fn report(load: &str, took: Duration, all: &mut [Swapped]) {
    let middle = all.len() / 2;
    let last = all.len() - 1;
    println!("{SWAPS} swaps in {took:.1?}: {load}");
    all.sort_by_key(|swapped| swapped.prepared);
    println!("prepared: p50 {:.1?}, max {:.1?}", all[middle].prepared, all[last].prepared);
    all.sort_by_key(|swapped| swapped.to_first_decision);
    let (p50, max) = (all[middle].to_first_decision, all[last].to_first_decision);
    println!("from swap to the first answer by the new version: p50 {p50:.1?}, max {max:.1?}");
    let fewest = all.iter().map(|swapped| swapped.decisions).min();
    println!("decisions of a version by then: at least {}", fewest.unwrap_or(0));
}
