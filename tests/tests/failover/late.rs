//! A region fails bit by bit: its traffic moves later than it should have, by its first failure, and that is
//! told.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{Instance, PATIENCE, eventually},
    regions::Regions,
};
use tokio::time::sleep;

use crate::support::{alone, logs, mrgc};

/// More than the failover timeout of 1 s.
const BETWEEN: Duration = Duration::from_millis(1_500);
const LATE: &str = "mrgc_router_late_failovers_total ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_took_longer_than_its_timeout_is_told() -> Result<()> {
    let _alone = alone().await;
    let mut regions = Regions::start().await?;
    let played = play(&mut regions).await;
    let routers = regions.sites().flat_map(|site| &site.routers);
    played.with_context(|| logs(routers))
}

async fn kill(instance: &mut Instance) -> Result<()> {
    instance.agent.kill().await?;
    instance.server.kill().await
}

async fn play(regions: &mut Regions) -> Result<()> {
    // Requests find out first.
    let traffic = regions.traffic()?;
    let id = regions.lost.spec.id;
    kill(&mut regions.lost.instances[0]).await?;
    let router = regions.lost.routers.first().context("no router")?;
    let is_half = |healthy, all| healthy == 1 && all == 2;
    regions
        .sees(router, id, |seen| seen.evidence.is_some_and(|it| is_half(it.healthy, it.all)))
        .await?;
    sleep(BETWEEN).await;
    kill(&mut regions.lost.instances[1]).await?;
    let router = regions.lost.routers.first().context("no router")?;
    regions.sees(router, id, |seen| seen.share == 0.0).await?;
    eventually("it is counted", PATIENCE, || async {
        let url = router.control_url("/metrics");
        let page = regions.cluster.client.get(url).send().await?.text().await?;
        let late = page.lines().find_map(|line| line.strip_prefix(LATE)).context("no count")?;
        ensure!(late == "1", "{late}");
        Ok(Some(()))
    })
    .await?;
    let told = router.get(&regions.cluster.client, "/failover").await?;
    ensure!(told["late_failovers"] == 1, "{told}");
    let shown = mrgc(router, &["failover", "status"]).await?;
    ensure!(shown.contains("1 late"), "{shown}");
    ensure!(router.program.log().contains("a failover was late"), "not in the log");
    let stats = traffic.load.stop().await;
    ensure!(stats.ok > 0, "{stats}");
    Ok(())
}
