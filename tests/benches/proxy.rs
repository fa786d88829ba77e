//! What a proxied request costs: a 1 KB POST through the router, with a route of three WASM policies over
//! 16 instances, against the same through HAProxy and nginx. `cargo xtask bench proxy` builds and runs this.
//!
//! The proxies take turns in each round, on the same upstreams and the same load, so that what else the
//! machine does falls on all of them alike. Figures are medians over the rounds; ratios are to HAProxy's.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

#[path = "proxy/peers.rs"]
mod peers;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use mrgc_tests::load::{Load, LoadConfig, Pace};
use peers::{Proxy, Upstreams};

const ROUNDS: usize = 5;
const THROUGHPUT_FOR: Duration = Duration::from_secs(4);
const LATENCY_REQUESTS: u64 = 3000;
const LATENCY_RATE: f64 = 1000.0;
/// The router's CPU for each request is at most this many times HAProxy's.
const MAX_CPU_RATIO: f64 = 1.1;

fn main() -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let dir = tempfile::tempdir()?;
    let upstreams = Upstreams::start(dir.path()).await?;
    let mut proxies = vec![
        Proxy::haproxy(dir.path(), &upstreams).await?,
        Proxy::nginx(dir.path(), &upstreams).await?,
        Proxy::router(dir.path(), &upstreams).await?,
    ];
    let mut direct = Vec::new();
    for round in 0..ROUNDS {
        eprintln!("round {} of {ROUNDS}", round + 1);
        direct.push(latency(&upstreams.any()).await?);
        let count = proxies.len();
        for turn in 0..count {
            let proxy = &mut proxies[(turn + round) % count];
            let sample = measure(proxy).await.with_context(|| proxy.name.to_owned())?;
            proxy.samples.push(sample);
        }
    }
    Ok(report(&proxies, &direct))
}

/// One round of one proxy.
#[derive(Clone, Copy, Debug)]
struct Sample {
    per_second: f64,
    cpu_us: f64,
    latency: Latency,
    memory_mb: f64,
}

#[derive(Clone, Copy, Debug)]
struct Latency {
    p50_us: f64,
    p99_us: f64,
}

async fn measure(proxy: &Proxy) -> Result<Sample> {
    let before = proxy.cpu()?;
    let requests = peers::wrk(&proxy.url(), THROUGHPUT_FOR).await?;
    let cpu = proxy.cpu()?.saturating_sub(before);
    Ok(Sample {
        per_second: requests as f64 / THROUGHPUT_FOR.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / requests as f64,
        latency: latency(&proxy.url()).await?,
        memory_mb: proxy.memory_mb()?,
    })
}

async fn latency(url: &str) -> Result<Latency> {
    let load = Load::start(LoadConfig {
        targets: vec![url.trim_end_matches(peers::PATH).to_owned()],
        pace: Pace::PerSecond(LATENCY_RATE),
        connections: 16,
        model: peers::MODEL.to_owned(),
        prompt: "x".repeat(900),
        requests_max: Some(LATENCY_REQUESTS),
        ..LoadConfig::default()
    })?;
    let stats = load.finish().await;
    anyhow::ensure!(stats.failed() == 0, "requests failed: {stats}");
    let us = |duration: Duration| duration.as_secs_f64() * 1e6;
    Ok(Latency { p50_us: us(stats.latency.p50()), p99_us: us(stats.latency.p99()) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(proxies: &[Proxy], direct: &[Latency]) -> ExitCode {
    let of = |proxy: &Proxy, value: fn(&Sample) -> f64| {
        median(proxy.samples.iter().map(value).collect())
    };
    let base = |value: fn(&Latency) -> f64| median(direct.iter().map(value).collect());
    let (base_p50, base_p99) = (base(|l| l.p50_us), base(|l| l.p99_us));
    println!(
        "{:>10} {:>10} {:>8} {:>14} {:>8} {:>12} {:>12} {:>10}",
        "proxy", "req/s", "ratio", "CPU µs/req", "ratio", "added p50", "added p99", "memory"
    );
    let peer = &proxies[0];
    for proxy in proxies {
        let (rate, cpu) = (of(proxy, |s| s.per_second), of(proxy, |s| s.cpu_us));
        println!(
            "{:>10} {rate:>10.0} {:>8.2} {cpu:>14.2} {:>8.2} {:>9.0} µs {:>9.0} µs {:>7.1} MB",
            proxy.name,
            rate / of(peer, |s| s.per_second),
            cpu / of(peer, |s| s.cpu_us),
            of(proxy, |s| s.latency.p50_us) - base_p50,
            of(proxy, |s| s.latency.p99_us) - base_p99,
            of(proxy, |s| s.memory_mb),
        );
    }
    println!(
        "latency at {LATENCY_RATE}/s, beyond {base_p50:.0} µs p50 and {base_p99:.0} µs p99 without a proxy"
    );
    let router = &proxies[proxies.len() - 1];
    // Round by round, so that a noisy moment falls on both.
    let ratios = router.samples.iter().zip(&peer.samples).map(|(a, b)| a.cpu_us / b.cpu_us);
    let ratio = median(ratios.collect());
    let met = ratio <= MAX_CPU_RATIO;
    println!(
        "router's CPU for each request: {ratio:.2} × HAProxy's (goal: at most {MAX_CPU_RATIO}): {}",
        if met { "met" } else { "MISSED" }
    );
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
