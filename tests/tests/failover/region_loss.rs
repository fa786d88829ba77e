//! A whole region is lost under traffic, its instances first and then its router, killed or stopped, with the
//! store and without it: no request that could be served fails, nothing goes there, and once it is back its
//! traffic comes back in steps.
#![allow(clippy::print_stdout, reason = "what came of the traffic, for who looks on")]

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use mrgc_fleet::{
    failover::{Cause, FailoverEvent, RegionState, RegionStatus},
    model::Timestamp,
};
use mrgc_tests::{
    cluster::{PATIENCE, PEER_KEY, Router, eventually},
    load::Record,
    regions::{HOLD, Loss, Lost, MODEL, REQUESTS_PER_SECOND, Regions, STEP, Traffic},
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{alone, logs, mrgc};

/// Traffic before the loss.
const BEFORE: Duration = Duration::from_secs(2);
/// Requests that survivors send to a region without instances, and that are served elsewhere, before its
/// router goes, too.
const REFUSED_THERE: u64 = 20;
/// More than enough that either of two data threads takes one of so many connections.
const KNOCKS: usize = 16;
/// How long the region is away, and the store with it; `MRGC_TEST_LONG`, which `cargo xtask test --long`
/// sets, makes five minutes of it where the store is.
const AWAY: Duration = Duration::from_secs(4);
const LONG_AWAY: Duration = Duration::from_secs(5 * 60);
/// Between two looks at the share that a region has. Steps last much longer.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What a step of a recovery gives back by default.
const RISE: f64 = 0.25;
/// For a region's whole return: steps, each held, and what a busy machine adds.
const RETURN_LIMIT: Duration = Duration::from_secs(90);

/// What is lost, and how.
#[derive(Clone, Copy, Debug)]
struct Case {
    region: Loss,
    /// From before the region's loss on.
    store: Option<Loss>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_killed_costs_nothing_and_comes_back_in_steps() -> Result<()> {
    lose_and_return(Case { region: Loss::Killed, store: None }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_hangs_costs_nothing_and_comes_back_in_steps() -> Result<()> {
    lose_and_return(Case { region: Loss::Stopped, store: None }).await
}

/// A router without a memory finds its fleet in the store, so this one comes back first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_killed_while_the_store_is_away_costs_nothing() -> Result<()> {
    lose_and_return(Case { region: Loss::Killed, store: Some(Loss::Killed) }).await
}

/// The store takes connections and answers nothing until all traffic is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_hangs_while_the_store_is_silent_costs_nothing() -> Result<()> {
    lose_and_return(Case { region: Loss::Stopped, store: Some(Loss::Stopped) }).await
}

async fn lose_and_return(case: Case) -> Result<()> {
    let _alone = alone().await;
    let mut regions = Regions::start().await?;
    let traffic = regions.traffic()?;
    let done = play(&mut regions, &traffic, case).await;
    let routers = regions.sites().flat_map(|site| &site.routers);
    let (lost, well_at) = done.with_context(|| logs(routers))?;

    let Traffic { load, journal } = traffic;
    let stats = load.stop().await;
    let began = lost.instances.start;
    println!("{case:?}, {:.1} s until all was well; {stats}", (well_at - began).as_secs_f64());
    let records = journal.records(0);
    let failed = regions.failed(&records, &lost, well_at);
    let shown = &failed[..failed.len().min(5)];
    ensure!(failed.is_empty(), "{} failed, lost at {lost:?}: {shown:#?}", failed.len());
    ensure!(journal.left_out() == 0, "too long for the journal");
    is_a_real_load(&records, began..well_at)?;
    is_shown(&regions).await
}

/// When the region was lost, and when all was well again.
async fn play(regions: &mut Regions, traffic: &Traffic, case: Case) -> Result<(Lost, Instant)> {
    let Case { region: loss, store } = case;
    let is_long = store.is_some() && std::env::var_os("MRGC_TEST_LONG").is_some();
    if let Some(loss) = store {
        lose_store(regions, loss).await?;
    }
    sleep(BEFORE).await;
    spreads_over_all_regions(regions, traffic)?;
    let instances = regions.lost.lose_instances(loss).await?;
    its_router_refuses(regions, traffic).await?;
    let routers = regions.lose_routers(loss, traffic).await?;
    regions.failed_over().await?;
    let (settled_at, settled) = (Instant::now(), traffic.journal.len());
    let sent_before = sent_there(regions).await?;
    sleep(if is_long { LONG_AWAY } else { AWAY }).await;
    let sent = sent_there(regions).await? - sent_before;
    ensure!(sent == 0, "{sent} requests were sent to the region that is lost");
    others_serve_all(regions, &traffic.journal.records(settled), settled_at)?;

    if store == Some(Loss::Killed) {
        bring_back_store(regions, Loss::Killed).await?;
    }
    let back_at = now();
    regions.bring_back(loss, traffic).await?;
    returns_in_steps(regions, back_at).await?;
    if store == Some(Loss::Stopped) {
        bring_back_store(regions, Loss::Stopped).await?;
    }
    regions.are_well().await.context("after the return")?;
    let well_at = Instant::now();
    goes_there_again(regions, traffic).await?;
    is_told_of(regions).await?;
    Ok((Lost { instances, routers }, well_at))
}

async fn lose_store(regions: &mut Regions, loss: Loss) -> Result<()> {
    let state = &mut regions.cluster.state;
    match loss {
        Loss::Killed => state.kill().await,
        Loss::Stopped => state.signal("STOP").await,
    }
}

async fn bring_back_store(regions: &mut Regions, loss: Loss) -> Result<()> {
    match loss {
        Loss::Killed => regions.cluster.restart_state().await,
        Loss::Stopped => regions.cluster.state.signal("CONT").await,
    }
}

/// The time of day, by which routers say since when a region is in its state.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_millis() as u64)
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

/// Every answer that was asked for since is another region's.
fn others_serve_all(regions: &Regions, records: &[Record], since: Instant) -> Result<()> {
    let mut served = BTreeSet::new();
    let later = records.iter().filter(|r| r.sent > since && regions.entered_by_survivor(r));
    for record in later {
        ensure!(record.is_ok(), "{record:?}");
        served.insert(record.region.as_deref());
    }
    let others: BTreeSet<_> = regions.others.iter().map(|site| Some(site.spec.id)).collect();
    ensure!(served == others, "{served:?}");
    Ok(())
}

/// Between the loss of its instances and its own, the region's router answers that it has nobody. So what
/// survivors send there goes elsewhere, as does what enters there, and it costs no attempt.
async fn its_router_refuses(regions: &Regions, traffic: &Traffic) -> Result<()> {
    let (client, id) = (&regions.cluster.client, regions.lost.spec.id);
    let router = regions.lost.routers.first().context("no router")?;
    // Those that are only ejected are tried out now and then, which costs attempts.
    eventually("its last snapshot has none that is ready", PATIENCE, || async {
        let page = client.get(router.control_url("/metrics")).send().await?.text().await?;
        let mut ready = page.lines().filter(|line| line.starts_with("mrgc_instance_ready{"));
        Ok(ready.all(|line| line.ends_with(" 0")).then_some(()))
    })
    .await?;
    let is_moved = |seen: &RegionStatus| {
        seen.state == RegionState::FailoverActive
            && seen.share == 0.0
            && seen.evidence.is_some_and(|evidence| evidence.healthy == 0 && evidence.reachable)
    };
    regions.sees(router, id, is_moved).await?;
    eventually("each of its threads refuses", PATIENCE, || async {
        for _ in 0..KNOCKS {
            let refused = knock(regions, router).await?;
            ensure!(refused.status() == 503, "{refused:?}");
            ensure!(refused.headers().contains_key("x-mrgc-no-capacity"), "{refused:?}");
        }
        Ok(Some(()))
    })
    .await?;

    let (since, first) = (Instant::now(), traffic.journal.len());
    let sent_before = sent_there(regions).await?;
    eventually("survivors send requests there", PATIENCE, || async {
        let sent = sent_there(regions).await? - sent_before;
        ensure!(sent >= REFUSED_THERE, "{sent} so far");
        Ok(Some(()))
    })
    .await?;
    let records = traffic.journal.records(first);
    let later: Vec<_> = records.iter().filter(|r| r.sent > since).collect();
    ensure!(later.iter().any(|r| !regions.entered_by_survivor(r)), "nothing entered there");
    for record in later {
        ensure!(record.is_ok() && record.region.as_deref() != Some(id), "{record:?}");
        ensure!(record.attempts == Some(1), "a refusal counted: {record:?}");
    }
    Ok(())
}

/// A request to a region's router, over a connection of its own, from a neighbour that could try another region.
async fn knock(regions: &Regions, router: &Router) -> Result<reqwest::Response> {
    let hop = json!({
        "facts": { "model": MODEL }, "route": "any", "attempts_left": 1, "deadline_ms": 1_000,
        "regions_tried": [], "decision": "d", "elsewhere": true,
    });
    let messages = [json!({ "role": "user", "content": "hello" })];
    let request = regions.cluster.client.post(router.data_url("/v1/chat/completions"));
    let request = request.json(&json!({ "model": MODEL, "messages": messages }));
    let request = request.header("x-mrgc-peer-key", PEER_KEY).header("x-mrgc-hop", hop.to_string());
    Ok(request.header("connection", "close").send().await?)
}

/// Requests that survivors have sent to the region so far.
async fn sent_there(regions: &Regions) -> Result<u64> {
    let mut sent = 0;
    for router in regions.survivors() {
        let stats = router.get(&regions.cluster.client, "/stats").await?;
        let there = &stats["decisions_by_region"][regions.lost.spec.id];
        sent += there.as_u64().with_context(|| format!("no count in {stats}"))?;
    }
    Ok(sent)
}

/// Watches every survivor give the region its share back: not before its evidence was good for a while, not
/// all at once, and each step held.
async fn returns_in_steps(regions: &Regions, back_at: Timestamp) -> Result<()> {
    let limit = Instant::now() + RETURN_LIMIT;
    let mut returns: Vec<_> =
        regions.survivors().map(|router| (router, Return::default())).collect();
    while returns.iter().any(|(_, watched)| !watched.is_over()) {
        ensure!(Instant::now() < limit, "not back within {RETURN_LIMIT:?}: {returns:#?}");
        for (router, watched) in &mut returns {
            let asked = Instant::now();
            let seen = regions.seen(router, regions.lost.spec.id).await?;
            watched.look(&seen, asked..Instant::now());
        }
        sleep(LOOK_INTERVAL).await;
    }
    for (router, watched) in returns {
        watched.check(back_at).with_context(|| format!("{} {watched:#?}", router.region))?;
    }
    Ok(())
}

/// How a region's traffic comes back, as a router tells it look by look.
#[derive(Debug, Default)]
struct Return {
    looked: Option<Instant>,
    shares: Vec<Share>,
    recovering: Option<Since>,
    normal: Option<Since>,
}

#[derive(Debug)]
struct Share {
    of: f64,
    /// From before the last look that did not see it to after the first that did.
    from: Range<Instant>,
}

/// When a state began, by the router that tells of it.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Timestamp,
    /// The first that was seen in it.
    share: f64,
}

impl Return {
    fn look(&mut self, seen: &RegionStatus, look: Range<Instant>) {
        let before = self.looked.replace(look.start).unwrap_or(look.start);
        if self.shares.last().is_none_or(|last| last.of != seen.share) {
            self.shares.push(Share { of: seen.share, from: before..look.end });
        }
        let state = match seen.state {
            RegionState::Recovering => &mut self.recovering,
            RegionState::Normal => &mut self.normal,
            RegionState::Degraded | RegionState::FailoverActive => return,
        };
        if state.is_none_or(|state| state.at != seen.since) {
            *state = Some(Since { at: seen.since, share: seen.share });
        }
    }

    fn is_over(&self) -> bool {
        self.normal.is_some()
    }

    /// Each time is the longest that it can have been, for a look may have come late.
    fn check(&self, back_at: Timestamp) -> Result<()> {
        let mut stepped = None;
        for pair in self.shares.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            let steps = steps(after.of - before.of);
            if steps == 0 {
                stepped = None;
                continue;
            }
            let (since, held) = match stepped {
                Some(stepped) => (stepped, steps),
                None => (after.from.start, steps - 1),
            };
            let took = after.from.end - since;
            ensure!(took >= STEP * held, "from {} to {} in {took:?}", before.of, after.of);
            stepped = Some(after.from.start);
        }
        let began = self.recovering.context("no recovery")?;
        let ended = self.normal.context("no end")?;
        let held = Duration::from_millis(began.at.since_ms(back_at));
        ensure!(held >= HOLD, "traffic came back after {held:?}");
        let took = Duration::from_millis(ended.at.since_ms(began.at));
        ensure!(took >= STEP * steps(1.0 - began.share), "from {began:?} in {took:?}");
        Ok(())
    }
}

/// In how many steps at least a share rises by so much; none where it falls.
fn steps(rise: f64) -> u32 {
    // Three thirds are not quite a whole.
    (rise / RISE - 1e-6).ceil().max(0.0) as u32
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

/// The store has the failover from its beginning to its end, by the word of each region that saw it.
async fn is_told_of(regions: &Regions) -> Result<()> {
    #[derive(Debug, Deserialize)]
    struct History {
        source: String,
        events: Vec<FailoverEvent>,
    }
    let router = regions.survivors().next().context("no router")?;
    let lost = regions.lost.spec.id;
    let is_whole = |event: &FailoverEvent| {
        event.from.as_str() == lost
            && event.cause == Cause::Automatic
            && event.duration_ms > Some(0)
            && event.ended_at > Some(event.at)
            && event.reason.is_some()
    };
    let others: BTreeSet<_> = regions.others.iter().map(|site| site.spec.id).collect();
    eventually("the store tells of the whole failover", PATIENCE, || async {
        let url = router.control_url("/failover/history");
        let history: History = regions.cluster.client.get(url).send().await?.json().await?;
        ensure!(history.source == "store", "{history:?}");
        let whole = history.events.iter().filter(|event| is_whole(event));
        let by: BTreeSet<_> = whole.map(|event| event.writer_region.as_str()).collect();
        ensure!(others.is_subset(&by), "by {by:?}: {history:?}");
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
