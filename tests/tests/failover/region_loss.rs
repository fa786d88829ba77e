//! A whole region is lost under traffic, killed or stopped, with the store and without it: no request that
//! could be served fails, nothing goes there, and once it is back its traffic comes back in steps.
#![allow(clippy::print_stdout, reason = "what came of the traffic, for who looks on")]

use std::{collections::BTreeSet, ops::Range, time::Duration};

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{PATIENCE, eventually},
    load::Record,
    regions::{Loss, REQUESTS_PER_SECOND, Regions, Traffic},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{alone, logs, mrgc};

/// Traffic before the loss.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the region is away, and the store with it; `MRGC_TEST_LONG`, which `cargo xtask test --long`
/// sets, makes five minutes of it where the store is.
const AWAY: Duration = Duration::from_secs(4);
const LONG_AWAY: Duration = Duration::from_secs(5 * 60);
/// Between two looks at the share that a region has. Steps last much longer.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// By default a recovery's step gives back a quarter.
const LARGEST_RISE: f64 = 0.3;
/// For a region's whole return: steps, each held, and what a busy machine adds.
const RETURN_LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_killed_costs_nothing_and_comes_back_in_steps() -> Result<()> {
    lose_and_return(Loss::Killed, false).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_hangs_costs_nothing_and_comes_back_in_steps() -> Result<()> {
    lose_and_return(Loss::Stopped, false).await
}

/// A router without a memory finds its fleet in the store, so this one comes back first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_killed_while_the_store_is_away_costs_nothing() -> Result<()> {
    lose_and_return(Loss::Killed, true).await
}

/// The store stays away until all traffic is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_hangs_while_the_store_is_away_costs_nothing() -> Result<()> {
    lose_and_return(Loss::Stopped, true).await
}

async fn lose_and_return(loss: Loss, without_store: bool) -> Result<()> {
    let _alone = alone().await;
    let mut regions = Regions::start().await?;
    let traffic = regions.traffic()?;
    let done = play(&mut regions, &traffic, loss, without_store).await;
    let routers = regions.sites().flat_map(|site| &site.routers);
    let (lost, well_at) = done.with_context(|| logs(routers))?;

    let Traffic { load, journal } = traffic;
    let stats = load.stop().await;
    println!("{loss:?}, {:.1} s until all was well; {stats}", (well_at - lost.start).as_secs_f64());
    let records = journal.records(0);
    let failed = regions.failed(&records, &lost, well_at);
    let shown = &failed[..failed.len().min(5)];
    ensure!(failed.is_empty(), "{} failed, lost at {lost:?}: {shown:#?}", failed.len());
    ensure!(journal.left_out() == 0, "too long for the journal");
    is_a_real_load(&records, lost.start..well_at)?;
    is_shown(&regions).await
}

/// When the region was lost, and when all was well again.
async fn play(
    regions: &mut Regions,
    traffic: &Traffic,
    loss: Loss,
    without_store: bool,
) -> Result<(Range<Instant>, Instant)> {
    let is_long = without_store && std::env::var_os("MRGC_TEST_LONG").is_some();
    if without_store {
        regions.cluster.state.kill().await?;
    }
    sleep(BEFORE).await;
    spreads_over_all_regions(regions, traffic)?;
    let lost = regions.lose(loss, traffic).await?;
    regions.failed_over().await?;
    let (settled_at, settled) = (Instant::now(), traffic.journal.len());
    sleep(if is_long { LONG_AWAY } else { AWAY }).await;
    nothing_goes_there(regions, &traffic.journal.records(settled), settled_at)?;

    if without_store && loss == Loss::Killed {
        regions.cluster.restart_state().await?;
    }
    regions.bring_back(loss, traffic).await?;
    returns_in_steps(regions).await?;
    if without_store && loss == Loss::Stopped {
        regions.cluster.restart_state().await?;
    }
    regions.are_well().await.context("after the return")?;
    let well_at = Instant::now();
    goes_there_again(regions, traffic).await?;
    is_told_of(regions).await?;
    Ok((lost, well_at))
}

/// Before the loss every router sends requests to every region, or there would be nothing to lose.
fn spreads_over_all_regions(regions: &Regions, traffic: &Traffic) -> Result<()> {
    let records = traffic.journal.records(0);
    let routes: BTreeSet<_> = records.iter().map(|r| (r.target, r.region.as_deref())).collect();
    let routers = regions.sites().map(|site| site.routers.len()).sum();
    for (target, site) in (0..routers).flat_map(|t| regions.sites().map(move |site| (t, site))) {
        let route = (target, Some(site.spec.id));
        ensure!(routes.contains(&route), "{route:?} is not among {routes:?}");
    }
    Ok(())
}

/// Every answer that was asked for since is another region's, and a first attempt brought it.
fn nothing_goes_there(regions: &Regions, records: &[Record], since: Instant) -> Result<()> {
    let mut served = BTreeSet::new();
    let later = records.iter().filter(|r| r.sent > since && regions.entered_by_survivor(r));
    for record in later {
        ensure!(record.is_ok(), "{record:?}");
        ensure!(record.attempts == Some(1), "it was tried in the region that is lost: {record:?}");
        served.insert(record.region.as_deref());
    }
    let others: BTreeSet<_> = regions.others.iter().map(|site| Some(site.spec.id)).collect();
    ensure!(served == others, "{served:?}");
    Ok(())
}

/// Watches one survivor give the region its share back, and not all at once.
async fn returns_in_steps(regions: &Regions) -> Result<()> {
    let router = regions.survivors().next().context("no router")?;
    let (mut shares, limit) = (vec![0.0], Instant::now() + RETURN_LIMIT);
    while shares.last() != Some(&1.0) {
        ensure!(Instant::now() < limit, "not back within {RETURN_LIMIT:?}: {shares:?}");
        let share = regions.seen(router, regions.lost.spec.id).await?.share;
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        sleep(LOOK_INTERVAL).await;
    }
    let rises = shares.windows(2).map(|pair| pair[1] - pair[0]);
    ensure!(rises.fold(0.0, f64::max) < LARGEST_RISE, "the shares were {shares:?}");
    Ok(())
}

async fn goes_there_again(regions: &Regions, traffic: &Traffic) -> Result<()> {
    let first = traffic.journal.len();
    eventually("survivors send requests there again", PATIENCE, || async {
        let records = traffic.journal.records(first);
        let mut from_survivors = records.iter().filter(|r| regions.entered_by_survivor(r));
        let is_there = from_survivors.any(|r| r.region.as_deref() == Some(regions.lost.spec.id));
        Ok(is_there.then_some(()))
    })
    .await
}

/// The history has the failover from its beginning to its end.
async fn is_told_of(regions: &Regions) -> Result<()> {
    let router = regions.survivors().next().context("no router")?;
    let lost = regions.lost.spec.id;
    eventually("the history tells of the whole failover", PATIENCE, || async {
        let history = router.get(&regions.cluster.client, "/failover/history").await?;
        let is_whole = |event: &Value| {
            event["from_region"] == lost
                && event["writer_region"] != lost
                && event["cause"] == "automatic"
                && event["duration_ms"].as_u64() > Some(0)
                && !event["ended_at"].is_null()
                && event["reason"].is_string()
        };
        ensure!(events(&history).any(is_whole), "{history}");
        Ok(Some(()))
    })
    .await
}

/// The operator's command shows it.
async fn is_shown(regions: &Regions) -> Result<()> {
    let router = regions.survivors().next().context("no router")?;
    let told = mrgc(router, &["failover", "history"]).await?;
    for words in [regions.lost.spec.id, "failed over to", "has its traffic back"] {
        ensure!(told.contains(words), "{told}");
    }
    Ok(())
}

fn events(history: &Value) -> impl Iterator<Item = &Value> {
    let events = history.get("events").unwrap_or(history);
    events.as_array().into_iter().flatten()
}

/// The load was as large as it should have been, of both kinds, also while the region was away.
fn is_a_real_load(records: &[Record], meanwhile: Range<Instant>) -> Result<()> {
    let ok = records.iter().filter(|r| r.is_ok() && meanwhile.contains(&r.sent));
    let (streams, plain): (Vec<_>, Vec<_>) = ok.partition(|r| r.streams);
    let least = 0.4 * REQUESTS_PER_SECOND * (meanwhile.end - meanwhile.start).as_secs_f64();
    for kind in [&streams, &plain] {
        ensure!(kind.len() as f64 > least, "{} streams, {} plain", streams.len(), plain.len());
    }
    Ok(())
}
