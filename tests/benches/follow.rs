//! What it costs a router to follow a region of 10,000 instances that each send a heartbeat every 10 s:
//! its CPU and memory, and how long a heartbeat takes to reach its snapshot. `cargo xtask bench follow`
//! builds and runs this.
//!
//! The state engine is the embedded one, in a process of its own, whose figures are told apart. Write and
//! read latencies are this machine's over loopback; DynamoDB's, in its own region, are 5 to 15 ms and 1 to
//! 5 ms.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use mrgc_fleet::model::{RegionId, Registration};
use mrgc_store::{Store, StoreConfig, look_interval};
use mrgc_tests::{
    cluster::{Cluster, PATIENCE, Program, RegionSpec, Router, VIRGINIA, eventually},
    crowd::{Crowd, Heartbeats, heartbeat},
    usage,
};

const INSTANCES: u64 = 10_000;
/// 10,000 writes of 1 KB in 10 s stay under a partition's limit with these.
const SHARDS: u32 = 16;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often a router looks at a small fleet, unless configured otherwise.
const LOOK: Duration = Duration::from_secs(1);
const MEASURED_FOR: Duration = Duration::from_secs(40);
const SAMPLES: u64 = 40;
const LISTINGS: u32 = 10;
/// Of one core.
const MAX_CPU_SHARE: f64 = 0.05;
const MAX_MEMORY_MB: f64 = 200.0;
const ROUTE: &str = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\" }]\n";

fn main() -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let cluster = Cluster::start().await?;
    let store = Store::connect(&StoreConfig {
        endpoint: Some(cluster.store_endpoint()?),
        timeout_ms: 30_000,
        ..StoreConfig::default()
    })
    .await?;
    let region = RegionId::from(VIRGINIA.id);
    let router = cluster.router(RegionSpec { shards: SHARDS, ..VIRGINIA }, ROUTE).await?;
    eprintln!("registering {INSTANCES} instances");
    let crowd = Crowd::register(&store, &region, INSTANCES).await?;
    let heartbeats = crowd.beat(&store, HEARTBEAT)?;
    // Before that, not every instance has reported.
    tokio::time::sleep(HEARTBEAT.mul_f64(1.5)).await;
    eprintln!("measuring for {} s", MEASURED_FOR.as_secs());
    let load = Load::measure(&router.program, &cluster.state, &heartbeats).await?;
    let listing = listing(&store, &region).await?;
    eprintln!("following {SAMPLES} heartbeats into the snapshot");
    let seen = heartbeats_seen(&cluster, &router, &store, crowd.silent()).await?;
    Ok(report(&load, &listing, &heartbeats.writes_us(), &seen))
}

/// What the processes used while heartbeats came.
struct Load {
    router_share: f64,
    router_mb: f64,
    engine_share: f64,
    engine_mb: f64,
    heartbeats_per_second: f64,
}

impl Load {
    async fn measure(router: &Program, engine: &Program, heartbeats: &Heartbeats) -> Result<Self> {
        let (router, engine) = (router.pid().context("pid")?, engine.pid().context("pid")?);
        let (started, sent_before) = (Instant::now(), heartbeats.sent());
        let before = (usage::cpu(router)?, usage::cpu(engine)?);
        tokio::time::sleep(MEASURED_FOR).await;
        let after = (usage::cpu(router)?, usage::cpu(engine)?);
        let elapsed = started.elapsed().as_secs_f64();
        let share = |before: Duration, after: Duration| (after - before).as_secs_f64() / elapsed;
        Ok(Self {
            router_share: share(before.0, after.0),
            router_mb: usage::memory_bytes(router)? as f64 / 1e6,
            engine_share: share(before.1, after.1),
            engine_mb: usage::memory_bytes(engine)? as f64 / 1e6,
            heartbeats_per_second: (heartbeats.sent() - sent_before) as f64 / elapsed,
        })
    }
}

/// Times of listing the whole region, in microseconds, and the read units of one listing.
async fn listing(store: &Store, region: &RegionId) -> Result<(Histogram<u64>, f64)> {
    let mut times = histogram()?;
    let units = || store.counts().read_half_units as f64 / 2.0;
    let before = units();
    for _ in 0..LISTINGS {
        let started = Instant::now();
        let listed = store.instances(region).await?.len() as u64;
        anyhow::ensure!(listed == INSTANCES, "{listed} of {INSTANCES} instances are listed");
        times.saturating_record(started.elapsed().as_micros() as u64);
    }
    Ok((times, (units() - before) / f64::from(LISTINGS)))
}

/// From the moment a heartbeat is written to that at which the router's snapshot holds it, in
/// microseconds, of the one instance for which nobody else writes.
async fn heartbeats_seen(
    cluster: &Cluster,
    router: &Router,
    store: &Store,
    registration: &Registration,
) -> Result<Histogram<u64>> {
    let mut times = histogram()?;
    let path = format!("/instances/{}", registration.id);
    let period = look_interval(LOOK, INSTANCES);
    for sequence in 1..=SAMPLES {
        // Evenly over the router's period: the last heartbeat was seen at its start.
        let part = (sequence * 7 % SAMPLES) as f64 / SAMPLES as f64;
        tokio::time::sleep(period.mul_f64(part)).await;
        store.report(&heartbeat(registration, sequence)).await?;
        let started = Instant::now();
        eventually("the heartbeat is seen", PATIENCE, || async {
            let seen = router.get(&cluster.client, &path).await?;
            Ok((seen["report"]["sequence"] == sequence).then_some(()))
        })
        .await?;
        times.saturating_record(started.elapsed().as_micros() as u64);
    }
    Ok(times)
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

fn report(
    load: &Load,
    (listing, units): &(Histogram<u64>, f64),
    writes: &Histogram<u64>,
    seen: &Histogram<u64>,
) -> ExitCode {
    let ms = |times: &Histogram<u64>, q| times.value_at_quantile(q) as f64 / 1e3;
    println!("{INSTANCES} instances, {:.0} heartbeats/s", load.heartbeats_per_second);
    println!("  router  {:>6.1} % of a core {:>8.1} MB", 100.0 * load.router_share, load.router_mb);
    println!("  engine  {:>6.1} % of a core {:>8.1} MB", 100.0 * load.engine_share, load.engine_mb);
    for (what, times) in
        [("heartbeat to snapshot", seen), ("heartbeat written", writes), ("region listed", listing)]
    {
        println!("  {what:<22} p50 {:>8.1} ms, p99 {:>8.1} ms", ms(times, 0.5), ms(times, 0.99));
    }
    println!("  {units:.0} read units for each listing");
    let met = load.router_share <= MAX_CPU_SHARE && load.router_mb <= MAX_MEMORY_MB;
    println!(
        "goal: at most {:.0} % of a core and {MAX_MEMORY_MB:.0} MB: {}",
        100.0 * MAX_CPU_SHARE,
        if met { "met" } else { "MISSED" }
    );
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
