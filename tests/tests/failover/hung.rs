//! An instance hangs: its machine takes connections and acknowledges what is sent, and nothing ever comes. What
//! waits there is answered by others within seconds, long before its first byte is overdue, and the instance
//! serves again once it goes on.
#![allow(clippy::print_stdout, reason = "how long who waited there did, for who looks on")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{
        Cluster, Instance, InstanceSpec, PATIENCE, Program, Router, VIRGINIA, eventually, signal,
    },
    load::{Journal, Load, LoadConfig, Pace, Record},
    policies::stock_component,
    regions::MODEL,
};
use serde_json::Value;
use tokio::time::Instant;

use crate::support::logs;

const INSTANCES: usize = 3;
/// For who waits where nothing comes, on a busy machine. A first byte is overdue after 120 s.
const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// Nobody waits for so long whose instance works.
const HUNG: Duration = Duration::from_secs(1);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(110);
const ABANDONED: &str = "mrgc_router_abandoned_attempts_total ";

/// By which evidence the instance is condemned: the other kinds come too late to matter.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Reports,
    Staleness,
    Probes,
}

impl By {
    fn config(self) -> String {
        let (probes, timeout, stale_after) = match self {
            Self::Reports => (600.0, 10.0, 600.0),
            Self::Staleness => (600.0, 10.0, 2.0),
            Self::Probes => (0.5, 0.4, 600.0),
        };
        format!(
            "[health_check]\n\
             interval_seconds = {probes:?}\ntimeout_seconds = {timeout:?}\n\
             stale_after_seconds = {stale_after:?}\n\
             [[routes]]\nname = \"any\"\n\
             policies = [{{ name = \"round-robin\", level = \"instance\" }}]\n"
        )
    }

    /// Who of the instance hangs. An agent that goes on tells that its inference server does not answer.
    fn hung(self, instance: &Instance) -> Vec<&Program> {
        match self {
            Self::Reports => vec![&instance.server],
            Self::Staleness | Self::Probes => vec![&instance.agent, &instance.server],
        }
    }
}

struct Pool {
    cluster: Cluster,
    router: Router,
    instances: Vec<Instance>,
}

impl Pool {
    async fn start(by: By) -> Result<Self> {
        let cluster = Cluster::start().await?;
        // Alone, for a router compiles all that it finds when it starts.
        std::fs::write(
            cluster.dir.path().join("round-robin.wasm"),
            stock_component("round-robin")?,
        )?;
        let policies = cluster.dir.path().display().to_string();
        let environment = [
            ("MRGC_ROUTER__POLICIES__DIR", policies.as_str()),
            ("MRGC_ROUTER__POLICIES__SCORE_DEADLINE_MS", "100"),
        ];
        let router = cluster.router_with(VIRGINIA, &by.config(), &environment).await?;
        let mut instances = Vec::new();
        for n in 0..INSTANCES {
            let spec = InstanceSpec::new(&format!("i-{n}"), VIRGINIA.id);
            instances.push(cluster.instance(&spec).await?);
        }
        router.sees_ready(&cluster.client, INSTANCES).await?;
        Ok(Self { cluster, router, instances })
    }

    fn load(&self, journal: &Journal) -> Result<Load> {
        Load::start(LoadConfig {
            targets: vec![self.router.data_url("/v1/chat/completions")],
            pace: Pace::PerSecond(25.0),
            connections: 256,
            streaming_share: 0.5,
            model: MODEL.to_owned(),
            timeout: CLIENT_TIMEOUT,
            journal: Some(journal.clone()),
            ..LoadConfig::default()
        })
    }

    fn victim(&self) -> &Instance {
        &self.instances[0]
    }

    async fn seen(&self) -> Result<Value> {
        let path = format!("/instances/{}", self.victim().id);
        self.router.get(&self.cluster.client, &path).await
    }

    async fn requests_there(&self) -> Result<u64> {
        self.seen().await?["requests"].as_u64().context("no count")
    }

    /// Requests that have left who they waited for.
    async fn abandoned(&self) -> Result<u64> {
        let url = self.router.control_url("/metrics");
        let page = self.cluster.client.get(url).send().await?.text().await?;
        let value = page.lines().find_map(|line| line.strip_prefix(ABANDONED));
        Ok(value.context("no such metric")?.parse()?)
    }

    /// Hangs the instance until nobody waits there any more, and lets it go on; returns when it hung.
    async fn hang(&self, by: By) -> Result<Instant> {
        eventually("it serves", PATIENCE, || async {
            Ok((self.requests_there().await? > 20).then_some(()))
        })
        .await?;
        let hung_at = Instant::now();
        signal("STOP", by.hung(self.victim())).await?;
        eventually("who waits there leaves", PATIENCE, || async {
            Ok((self.abandoned().await? > 0).then_some(()))
        })
        .await?;
        eventually("it gets no more requests", PATIENCE, || async {
            let seen = self.seen().await?;
            ensure!(seen["ready"] == false, "{seen}");
            Ok(Some(()))
        })
        .await?;
        signal("CONT", by.hung(self.victim())).await?;
        let before = self.requests_there().await?;
        eventually("it serves again", PATIENCE, || async {
            let seen = self.seen().await?;
            ensure!(seen["ready"] == true && self.requests_there().await? > before, "{seen}");
            Ok(Some(()))
        })
        .await?;
        Ok(hung_at)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_model_server_that_hangs_is_answered_by_others() -> Result<()> {
    hangs_and_goes_on(By::Reports).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_instance_that_falls_silent_is_answered_by_others() -> Result<()> {
    hangs_and_goes_on(By::Staleness).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_an_instance_that_fails_its_probes_is_answered_by_others() -> Result<()> {
    hangs_and_goes_on(By::Probes).await
}

async fn hangs_and_goes_on(by: By) -> Result<()> {
    let (pool, journal) = (Pool::start(by).await?, Journal::default());
    let load = pool.load(&journal)?;
    let hung_at = pool.hang(by).await.with_context(|| logs([&pool.router]))?;
    let stats = load.stop().await;
    ensure!(stats.failed() + stats.shed == 0 && stats.ok > 0, "{stats}");
    let records = journal.records(0);
    let waited = |record: &Record| record.head.map(|head| head.duration_since(record.sent));
    let moved: Vec<_> = records.iter().filter(|r| waited(r) > Some(HUNG)).collect();
    let longest = moved.iter().filter_map(|r| waited(r)).max();
    println!("{by:?}: {} requests waited there, at most {longest:?}; {stats}", moved.len());
    ensure!(longest.is_some_and(|longest| longest < WAIT_LIMIT), "{longest:?}");
    let retried: Vec<_> = moved.iter().filter(|r| r.attempts > Some(1)).collect();
    ensure!(retried.iter().any(|r| r.sent > hung_at), "nobody was answered by another: {moved:#?}");
    Ok(())
}
