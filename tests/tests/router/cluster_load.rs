//! What routers measure reaches the store, and `GET /cluster` tells it of the whole fleet.

use anyhow::{Context, Result, ensure};
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{Cluster, InstanceSpec, PATIENCE, VIRGINIA, eventually},
    load::{Load, LoadConfig, Pace},
};
use serde_json::Value;

use crate::support::{ANY_ROUTE, CHAT, Setup, chat, client, problem};

const LATENCY_MS: u64 = 30;
const FLUSH_EVERY_SECOND: [(&str, &str); 1] =
    [("MRGC_ROUTER__METRICS__FLUSH_INTERVAL_SECONDS", "1")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_load_and_latencies_show_while_it_serves() -> Result<()> {
    let (mut cluster, client) = (Cluster::start().await?, client()?);
    let router = cluster.router_with(VIRGINIA, ANY_ROUTE, &FLUSH_EVERY_SECOND).await?;
    let busy = InstanceSpec { latency_ms: LATENCY_MS, ..InstanceSpec::new("i-busy", VIRGINIA.id) };
    let mut idle = InstanceSpec::new("i-idle", VIRGINIA.id);
    (idle.pool, idle.model) = ("spare".to_owned(), "spare".to_owned());
    let _instances = (cluster.instance(&busy).await?, cluster.instance(&idle).await?);
    router.sees_ready(&client, 2).await?;
    let load = Load::start(LoadConfig {
        targets: vec![router.data_url(CHAT)],
        pace: Pace::PerSecond(50.0),
        streaming_share: 0.5,
        model: busy.model.clone(),
        ..LoadConfig::default()
    })?;

    let fleet = eventually("the load shows", PATIENCE, || async {
        let fleet = router.get(&client, "/cluster?minutes=2").await?;
        let pool = &fleet["regions"][VIRGINIA.id]["pools"][&busy.pool];
        let measured = pool["requests_per_second"].as_f64() > Some(0.0)
            && pool["average_queue_depth"].is_number()
            && pool["latency"].is_object();
        Ok(measured.then_some(fleet))
    })
    .await?;
    assert_eq!((&fleet["minutes"], &fleet["total"]["instances"]), (&2.into(), &2.into()));
    ensure!(fleet["total"]["requests_per_second"].as_f64() > Some(0.0), "{fleet}");
    let pools = &fleet["regions"][VIRGINIA.id]["pools"];
    let rate = pools[&busy.pool]["requests_per_second"].as_f64().context("no rate")?;
    // Seconds before the load count, too.
    ensure!(rate < 75.0, "{rate} of 50 requests per second: {fleet}");
    let percentile = |name: &str| pools[&busy.pool]["latency"][name].as_f64().context("no latency");
    let (p50, p95, p99) = (percentile("p50_ms")?, percentile("p95_ms")?, percentile("p99_ms")?);
    ensure!(p50 <= p95 && p95 <= p99, "{fleet}");
    // A server that takes so long is not answered for sooner; two shared cores may add much to it.
    let least_ms = LATENCY_MS as f64 * (1.0 - mrgc_fleet::histogram::RELATIVE_ERROR);
    ensure!(p50 >= least_ms && p50 < 1_000.0, "{fleet}");
    // Asked for nothing: that is a rate of 0, and no latency.
    let spare = &pools["spare"];
    assert_eq!((&spare["requests_per_second"], &spare["latency"]), (&0.0.into(), &Value::Null));

    let counts = router.get(&client, "/stats").await?["measurements"].clone();
    assert_eq!((&counts["rejected_samples"], &counts["dropped_items"]), (&0.into(), &0.into()));

    cluster.state.kill().await?;
    problem(client.get(router.control_url("/cluster")).send().await?, 503, "store").await?;
    eventually("failed flushes are counted", PATIENCE, || async {
        let stats = router.get(&client, "/stats").await?;
        Ok((stats["measurements"]["failed_flushes"].as_u64() > Some(0)).then_some(()))
    })
    .await?;
    let stats = load.stop().await;
    assert_eq!(stats.failed() + stats.shed, 0, "{stats}");
    Ok(())
}

/// With the usual interval nothing would be stored for a minute.
#[tokio::test]
async fn a_router_that_stops_stores_what_it_has() -> Result<()> {
    let (cluster, client) = (Cluster::start().await?, client()?);
    let mut router = cluster.router(VIRGINIA, ANY_ROUTE).await?;
    let spec = InstanceSpec::new("i-us", VIRGINIA.id);
    let _instance = cluster.instance(&spec).await?;
    router.sees_ready(&client, 1).await?;
    const REQUESTS: u64 = 20;
    for n in 0..REQUESTS {
        let answer = chat(&client, &router, &spec.model, n % 2 == 0).send().await?;
        ensure!(answer.status() == 200, "{answer:?}");
        answer.bytes().await?;
    }
    router.program.signal("TERM").await?;
    ensure!(router.program.ended().await?.success(), "{}", router.program.log());

    let endpoint = Some(cluster.store_endpoint()?);
    let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
    let pool = store.pool_metrics(&VIRGINIA.id.into(), &spec.pool.as_str().into(), 5).await?;
    assert_eq!(pool.inference_latency().count(), REQUESTS);
    Ok(())
}

#[tokio::test]
async fn a_window_is_of_1_to_60_minutes_and_needs_a_store() -> Result<()> {
    let lone = Setup::new(ANY_ROUTE).start().await?;
    for query in ["minutes=0", "minutes=61", "minutes=-1", "minutes=x", "minute=5"] {
        let url = lone.router.control_url(&format!("/cluster?{query}"));
        let answer = lone.client.get(url).send().await?;
        problem(answer, 400, "bad-request").await.with_context(|| query.to_owned())?;
    }
    let answer = lone.client.get(lone.router.control_url("/cluster")).send().await?;
    problem(answer, 503, "store").await?;
    let stats = lone.router.get(&lone.client, "/stats").await?;
    assert_eq!(stats["measurements"], Value::Null);
    Ok(())
}
