//! How fast the loss of a whole region is over: three regions of real processes under steady traffic, one of
//! which is killed, or stopped, again and again. `cargo xtask bench failover` builds and runs this.
//!
//! What is measured, from just before the signals: when a surviving router last sent a request, or tried to
//! connect, towards the lost region; how long the slowest request waited; and whether any failed that may not.
//! Routers, agents, model servers, state and load share this machine.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use mrgc_tests::regions::{Loss, REQUESTS_PER_SECOND, Regions, Traffic};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

const RUNS: usize = 20;
const BEFORE: Duration = Duration::from_secs(1);
/// For how long after the loss requests towards the region are looked for.
const WATCHED: Duration = Duration::from_secs(3);
/// Between two looks at how many requests a router has sent there.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
const MAX_LAST_SENT: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Result<ExitCode> {
    let mut regions = Regions::start().await?;
    let mut is_met = true;
    println!("one of three regions lost under {REQUESTS_PER_SECOND} requests/s, {RUNS} times each");
    for loss in [Loss::Killed, Loss::Stopped] {
        let mut runs = Vec::new();
        for run in 1..=RUNS {
            eprintln!("{loss:?}: {run} of {RUNS}");
            runs.push(lose(&mut regions, loss).await.with_context(|| format!("{loss:?} {run}"))?);
        }
        is_met &= report(loss, &runs);
    }
    println!(
        "goal: nothing sent there after {} ms, none failed: {}",
        MAX_LAST_SENT.as_millis(),
        if is_met { "met" } else { "MISSED" }
    );
    Ok(if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of one loss.
#[derive(Debug)]
struct Run {
    last_sent: Duration,
    /// Until the head of its answer, of a request that entered by a survivor.
    slowest: Duration,
    requests: usize,
    failed: usize,
}

async fn lose(regions: &mut Regions, loss: Loss) -> Result<Run> {
    let traffic = regions.traffic()?;
    sleep(BEFORE).await;
    let watching = Watching::start(regions);
    let lost = regions.lose(loss, &traffic).await?;
    let lost_at = lost.instances.start;
    sleep(WATCHED).await;
    let last_sent_at = watching.stop().await?;
    regions.failed_over().await?;
    regions.bring_back(loss, &traffic).await?;
    regions.are_well().await?;
    let well_at = Instant::now();

    let Traffic { load, journal } = traffic;
    load.stop().await;
    let records = journal.records(0);
    let failed = regions.failed(&records, &lost, well_at);
    for record in &failed {
        eprintln!("failed: {record:?}");
    }
    let disturbed = lost_at - BEFORE..lost_at + WATCHED;
    let waits = records
        .iter()
        .filter(|r| regions.entered_by_survivor(r) && disturbed.contains(&r.sent))
        .filter_map(|r| Some(r.head? - r.sent));
    Ok(Run {
        last_sent: last_sent_at.saturating_duration_since(lost_at),
        slowest: waits.max().unwrap_or_default(),
        requests: records.len(),
        failed: failed.len(),
    })
}

/// Follows how many requests the survivors have sent to the region.
struct Watching {
    stop: watch::Sender<bool>,
    routers: JoinSet<Result<Instant>>,
}

impl Watching {
    fn start(regions: &Regions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut routers = JoinSet::new();
        for router in regions.survivors() {
            let (client, url) = (regions.cluster.client.clone(), router.control_url("/stats"));
            routers.spawn(last_sent(client, url, regions.lost.spec.id, stopped.clone()));
        }
        Self { stop, routers }
    }

    /// When the last one was sent, of all routers.
    async fn stop(mut self) -> Result<Instant> {
        self.stop.send_replace(true);
        let mut last = None;
        while let Some(sent_at) = self.routers.join_next().await {
            last = last.max(Some(sent_at??));
        }
        last.context("no router")
    }
}

/// When a router's count of requests to a region was first seen to be what it was in the end.
async fn last_sent(
    client: reqwest::Client,
    url: String,
    region: &str,
    stopped: watch::Receiver<bool>,
) -> Result<Instant> {
    let (mut count, mut at) = (None, Instant::now());
    while !*stopped.borrow() {
        let stats: serde_json::Value = client.get(&url).send().await?.json().await?;
        let sent = &stats["decisions_by_region"][region];
        let sent =
            sent.as_u64().with_context(|| format!("{url} counts no requests to {region}"))?;
        if count != Some(sent) {
            (count, at) = (Some(sent), Instant::now());
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(at)
}

/// Whether the goals were met.
fn report(loss: Loss, runs: &[Run]) -> bool {
    let signal = match loss {
        Loss::Killed => "SIGKILL",
        Loss::Stopped => "SIGSTOP",
    };
    let (p50, max) = spread(runs.iter().map(|run| run.last_sent));
    let (wait_p50, wait_max) = spread(runs.iter().map(|run| run.slowest));
    let (requests, failed) =
        runs.iter().fold((0, 0), |(all, failed), run| (all + run.requests, failed + run.failed));
    println!(
        "  {signal}: last sent there p50 {} ms, max {} ms; slowest answer p50 {} ms, max {} ms; {failed} of \
         {requests} failed",
        p50.as_millis(),
        max.as_millis(),
        wait_p50.as_millis(),
        wait_max.as_millis(),
    );
    max < MAX_LAST_SENT && failed == 0
}

/// The median and the most.
fn spread(durations: impl Iterator<Item = Duration>) -> (Duration, Duration) {
    let mut durations: Vec<Duration> = durations.collect();
    durations.sort();
    let at = |n: usize| durations.get(n).copied().unwrap_or_default();
    (at(durations.len() / 2), at(durations.len().saturating_sub(1)))
}
