//! One instance is lost: its probes fail four times, it gets no more requests, is drained and to be replaced;
//! and it is let back when it is well again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mrgc_fleet::model::{Replacement, Timestamp};
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{Cluster, Instance, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually, signal},
    load::{Load, LoadConfig, Pace},
    regions::MODEL,
};
use serde_json::{Value, json};

use crate::support::logs;

const INSTANCES: usize = 4;
const PROBES: Duration = Duration::from_millis(400);
/// The first failure, and three more.
const FAILURES: u32 = 4;
const AUDITED: usize = 100;

/// Heartbeats may stop for as long as they like: what is seen here are probes.
const ROUTER: &str = r#"
[health_check]
interval_seconds = 0.4
timeout_seconds = 0.3
stale_after_seconds = 600.0

[[routes]]
name = "any"
picker = "near_best"
"#;

struct Pool {
    cluster: Cluster,
    router: Router,
    instances: Vec<Instance>,
    store: Store,
    load: Load,
}

impl Pool {
    /// A region of one pool, under traffic.
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let router = cluster.router(VIRGINIA, ROUTER).await?;
        let mut instances = Vec::new();
        for n in 0..INSTANCES {
            let spec = InstanceSpec::new(&format!("i-{n}"), VIRGINIA.id);
            instances.push(cluster.instance(&spec).await?);
        }
        router.sees_ready(&cluster.client, INSTANCES).await?;
        let endpoint = Some(cluster.store_endpoint()?);
        let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
        let load = Load::start(LoadConfig {
            targets: vec![router.data_url("/v1/chat/completions")],
            pace: Pace::PerSecond(50.0),
            streaming_share: 0.5,
            model: MODEL.to_owned(),
            ..LoadConfig::default()
        })?;
        Ok(Self { cluster, router, instances, store, load })
    }

    fn victim(&mut self) -> &mut Instance {
        &mut self.instances[INSTANCES - 1]
    }

    async fn seen(&self, id: &str) -> Result<Value> {
        self.router.get(&self.cluster.client, &format!("/instances/{id}")).await
    }

    async fn drained(&self, id: &str) -> Result<()> {
        eventually("the router drains it by itself", PATIENCE, || async {
            let seen = self.seen(id).await?;
            let desired = &seen["desired"];
            ensure!(desired["state"] == "draining" && desired["automatic"] == true, "{seen}");
            ensure!(seen["ready"] == false, "{seen}");
            Ok(Some(()))
        })
        .await
    }

    async fn replacement(&self, id: &str) -> Result<Replacement> {
        eventually("a replacement is on record", PATIENCE, || async {
            self.store.replacement(&VIRGINIA.id.into(), &id.into()).await.map_err(Into::into)
        })
        .await
    }

    /// None of the requests that the router goes on serving goes there.
    async fn is_left_alone(&self, id: &str) -> Result<()> {
        const REQUESTS: u64 = 50;
        let (before, served) = (self.seen(id).await?, self.load.stats().ok);
        eventually("further requests are served", PATIENCE, || async {
            Ok((self.load.stats().ok > served + REQUESTS).then_some(()))
        })
        .await?;
        let after = self.seen(id).await?;
        ensure!(before["requests"] == after["requests"], "{before} {after}");
        Ok(())
    }

    /// It passes its probes: it serves again, and nobody is to take its place.
    async fn released(&self, id: &str) -> Result<()> {
        eventually("it serves again", PATIENCE, || async {
            let seen = self.seen(id).await?;
            ensure!(seen["ready"] == true && seen["desired"]["state"] == "serving", "{seen}");
            Ok(Some(()))
        })
        .await?;
        eventually("its replacement is called off", PATIENCE, || async {
            let open = self.store.open_replacements(&VIRGINIA.id.into()).await?;
            ensure!(open.is_empty(), "{open:?}");
            Ok(Some(()))
        })
        .await
    }

    /// What the audit trail says was done to it, the last action first.
    async fn actions(&self, id: &str) -> Result<Vec<String>> {
        let all = self.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), AUDITED).await?;
        let subject = format!("instance {id}");
        let by_router = all.into_iter().filter(|r| r.subject == subject);
        by_router
            .map(|record| {
                ensure!(record.operator.starts_with("router "), "{record:?}");
                ensure!(record.reason.is_some(), "{record:?}");
                Ok(record.action)
            })
            .collect()
    }

    async fn no_request_failed(self) -> Result<()> {
        let stats = self.load.stop().await;
        ensure!(stats.failed() + stats.shed == 0 && stats.ok > 0, "{stats}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_without_its_agent_is_drained_and_replaced_and_back_with_it() -> Result<()> {
    let mut pool = Pool::start().await?;
    let id = pool.victim().id.clone();
    let lost_at = Instant::now();
    pool.victim().agent.kill().await?;
    pool.drained(&id).await.with_context(|| logs([&pool.router]))?;
    let condemned_after = lost_at.elapsed();
    ensure!(condemned_after >= PROBES * (FAILURES - 1), "after {condemned_after:?}");
    let replacement = pool.replacement(&id).await?;
    ensure!(replacement.requested_by.starts_with("router "), "{replacement:?}");
    ensure!(replacement.closed.is_none() && !replacement.reason.is_empty(), "{replacement:?}");
    pool.is_left_alone(&id).await?;

    pool.victim().agent.restart(&[]).await?;
    pool.released(&id).await.with_context(|| logs([&pool.router]))?;
    assert_eq!(pool.actions(&id).await?, ["release", "drain"]);
    pool.no_request_failed().await
}

/// It hangs, goes on and hangs again, in one life of its agent: somebody is to take its place each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fails_again_is_replaced_again() -> Result<()> {
    let mut pool = Pool::start().await?;
    let id = pool.victim().id.clone();
    for _ in 0..2 {
        let victim = pool.victim();
        signal("STOP", [&victim.agent, &victim.server]).await?;
        pool.drained(&id).await.with_context(|| logs([&pool.router]))?;
        let open = eventually("a replacement is open", PATIENCE, || async {
            let open = pool.store.open_replacements(&VIRGINIA.id.into()).await?;
            Ok((!open.is_empty()).then_some(open))
        })
        .await
        .with_context(|| logs([&pool.router]))?;
        ensure!(open.len() == 1 && open[0].instance.as_str() == id, "{open:?}");
        let victim = pool.victim();
        signal("CONT", [&victim.agent, &victim.server]).await?;
        pool.released(&id).await.with_context(|| logs([&pool.router]))?;
    }
    assert_eq!(pool.actions(&id).await?, ["release", "drain", "release", "drain"]);
    Ok(())
}

/// The agent is there and tells that the model server is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_model_server_is_gone_is_drained_and_replaced() -> Result<()> {
    let mut pool = Pool::start().await?;
    let id = pool.victim().id.clone();
    pool.victim().server.kill().await?;
    pool.drained(&id).await.with_context(|| logs([&pool.router]))?;
    let replacement = pool.replacement(&id).await?;
    ensure!(replacement.reason.contains("503"), "{replacement:?}");
    pool.is_left_alone(&id).await?;
    assert_eq!(pool.actions(&id).await?, ["drain"]);
    pool.no_request_failed().await
}

/// Where most of a pool fails its probes, draining it would take away what still serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_whose_agents_are_all_gone_is_not_drained_and_goes_on() -> Result<()> {
    let mut pool = Pool::start().await?;
    for instance in &mut pool.instances {
        instance.agent.kill().await?;
    }
    eventually("all have failed their probes", PATIENCE, || async {
        for instance in &pool.instances {
            let seen = pool.seen(&instance.id).await?;
            ensure!(seen["ready"] == false, "{seen}");
        }
        Ok(Some(()))
    })
    .await?;
    let served = pool.load.stats().ok;
    eventually("they serve all the same", PATIENCE, || async {
        Ok((pool.load.stats().ok > served + 50).then_some(()))
    })
    .await?;
    let open = pool.store.open_replacements(&VIRGINIA.id.into()).await?;
    ensure!(open.len() <= 1, "{open:?}");
    let wished = pool.router.get(&pool.cluster.client, "/instances").await?;
    let wished = wished.as_array().context("no list")?;
    let drained = wished.iter().filter(|i| i["desired"]["state"] == json!("draining")).count();
    ensure!(drained <= 1, "{drained} of {INSTANCES} are drained");
    pool.no_request_failed().await
}
