//! A machine is gone for good, and an operator says so: its region is no longer degraded by it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_fleet::model::Timestamp;
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::cluster::{
    Cluster, InstanceSpec, PATIENCE, Router, VIRGINIA, binary_path, eventually,
};
use tokio::process::Command;

use crate::support::{alone, logs};

/// One of them is no fifth.
const INSTANCES: usize = 4;
const ROUTER: &str = r#"
[health_check]
interval_seconds = 0.4
timeout_seconds = 0.3
stale_after_seconds = 2.0

[failover]
hold_seconds = 1.0
step_seconds = 1.0
evaluation_seconds = 1.0

[[routes]]
name = "any"
"#;
/// Reports come at a pace of their own, so that it is soon clear whether one is missing.
const STEADY: [(&str, &str); 1] = [("MRGC_AGENT__HEARTBEAT__MODE", "fixed")];
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until so many of so many instances take requests, and the region is in a state.
async fn is(cluster: &Cluster, router: &Router, state: &str, of: (usize, usize)) -> Result<()> {
    eventually(&format!("{state}, by {of:?}"), PATIENCE, || async {
        let told = router.get(&cluster.client, "/failover").await?;
        let region = &told["regions"][0];
        let evidence = (&region["evidence"]["healthy"], &region["evidence"]["all"]);
        ensure!(
            region["state"] == state && (evidence.0, evidence.1) == (&of.0.into(), &of.1.into()),
            "{told}"
        );
        Ok(Some(()))
    })
    .await
    .with_context(|| logs([router]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_is_normal_again_once_its_dead_are_forgotten() -> Result<()> {
    let _alone = alone().await;
    let cluster = Cluster::start().await?;
    let router = cluster.router(VIRGINIA, ROUTER).await?;
    let mut instances = Vec::new();
    for n in 0..INSTANCES {
        let spec = InstanceSpec::new(&format!("i-{n}"), VIRGINIA.id);
        instances.push(cluster.instance(&spec).await?);
    }
    let dead = instances.last_mut().context("none")?;
    dead.agent.kill().await?;
    dead.agent.restart(&STEADY).await?;
    is(&cluster, &router, "normal", (INSTANCES, INSTANCES)).await?;
    dead.agent.kill().await?;
    dead.server.kill().await?;
    is(&cluster, &router, "degraded", (INSTANCES - 1, INSTANCES)).await?;
    let endpoint = cluster.store_endpoint()?;
    let config = StoreConfig { endpoint: Some(endpoint.clone()), ..StoreConfig::default() };
    let store = Store::connect(&config).await?;
    let open = || async {
        let open = store.open_replacements(&VIRGINIA.id.into()).await?;
        Ok(Some(open).filter(|open| open.len() == 1))
    };
    eventually("it is to be replaced", PATIENCE, open).await?;

    let args = ["instances", "forget", &dead.id, "--reason", "the board is dead"];
    let mut command = Command::new(binary_path("mrgc")?);
    command.args(args).args(["--operator", "ada", "--endpoint", &endpoint]).kill_on_drop(true);
    let said = tokio::time::timeout(LIMIT, command.output()).await??;
    ensure!(said.status.success(), "{said:?}");
    let told = String::from_utf8(said.stdout)?;
    ensure!(told.contains("forgotten") && told.contains("stays open"), "{told}");
    is(&cluster, &router, "normal", (INSTANCES - 1, INSTANCES - 1)).await?;
    let trail = store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 1).await?;
    ensure!(trail[0].action == "forget" && trail[0].operator == "ada", "{trail:?}");

    let another = InstanceSpec::new("i-another", VIRGINIA.id);
    instances.push(cluster.instance(&another).await?);
    is(&cluster, &router, "normal", (INSTANCES, INSTANCES)).await
}
