//! The store dies under traffic and comes back: no request notices.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{Cluster, InstanceSpec, PATIENCE, VIRGINIA, eventually},
    load::{Load, LoadConfig, Pace},
};
use serde_json::Value;

use crate::support::{CHAT, client};

const INSTANCES: usize = 4;
/// `MRGC_TEST_LONG`, which `cargo xtask test --long` sets, makes a minute of it: longer than the silence
/// after which an instance counts as gone.
const OUTAGE: Duration = Duration::from_secs(5);
const LONG_OUTAGE: Duration = Duration::from_secs(60);
/// Agents here send one each second, wait at most as long again before they try anew, and share two cores
/// with other tests.
const HEARTBEATS_RESUME_WITHIN: Duration = Duration::from_secs(2 + 6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_no_request_fails_and_heartbeats_resume_after_it() -> Result<()> {
    let outage = if std::env::var_os("MRGC_TEST_LONG").is_some() { LONG_OUTAGE } else { OUTAGE };
    let (mut cluster, client) = (Cluster::start().await?, client()?);
    let router = cluster.router(VIRGINIA, "[[routes]]\nname = \"any\"\n").await?;
    let mut instances = Vec::new();
    for n in 0..INSTANCES {
        instances.push(cluster.instance(&InstanceSpec::new(&format!("i-{n}"), VIRGINIA.id)).await?);
    }
    router.sees_ready(&client, INSTANCES).await?;
    let load = Load::start(LoadConfig {
        targets: vec![router.data_url(CHAT)],
        pace: Pace::PerSecond(100.0),
        streaming_share: 0.5,
        model: "llama".to_owned(),
        ..LoadConfig::default()
    })?;

    cluster.state.kill().await?;
    let killed = Instant::now();
    let router_health = router.data_url("/health");
    let agent_health = format!("http://{}/health", instances[0].agent_address);
    for url in [&router_health, &agent_health] {
        store_is(&client, url, |status| status != "ok").await?;
    }
    tokio::time::sleep_until((killed + outage).into()).await;

    cluster.restart_state().await?;
    let back = Instant::now();
    let endpoint = Some(cluster.store_endpoint()?);
    let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
    let before = sequences(&store).await?;
    eventually("every heartbeat goes on", PATIENCE, || async {
        let now = sequences(&store).await?;
        Ok(before.iter().zip(&now).all(|(before, now)| now > before).then_some(()))
    })
    .await?;
    let resumed = back.elapsed();
    for url in [&router_health, &agent_health] {
        store_is(&client, url, |status| status == "ok").await?;
    }
    // What the router makes of the state after the outage serves, too.
    router.sees_ready(&client, INSTANCES).await?;

    let stats = load.stop().await;
    println!("away for {outage:?}; heartbeats resumed in {resumed:?}; {stats}");
    assert_eq!(stats.failed() + stats.shed, 0, "{stats}");
    ensure!(stats.ok as f64 > 50.0 * outage.as_secs_f64(), "{stats}");
    ensure!(resumed < HEARTBEATS_RESUME_WITHIN, "heartbeats resumed after {resumed:?}");
    Ok(())
}

/// Waits until a `/health` answers 200 and says of the store what is wanted.
async fn store_is(client: &reqwest::Client, url: &str, wanted: fn(&str) -> bool) -> Result<()> {
    eventually(&format!("{url} tells of the store"), PATIENCE, || async {
        let response = client.get(url).send().await?;
        ensure!(response.status() == 200, "{url} answers {}", response.status());
        let health: Value = response.json().await?;
        Ok(health["checks"]["store"]["status"].as_str().is_some_and(wanted).then_some(()))
    })
    .await
}

/// Of the last report of each instance, by id.
async fn sequences(store: &Store) -> Result<Vec<u64>> {
    let instances = store.instances(&VIRGINIA.id.into()).await?;
    ensure!(instances.len() == INSTANCES, "{} instances are registered", instances.len());
    let sequence = |report: &mrgc_fleet::model::Report| report.sequence;
    Ok(instances.iter().map(|i| i.report.as_ref().map_or(0, sequence)).collect())
}
