//! A region is lost, and those that take its traffic ask for its instances; it is back, and they ask for what
//! they had.

use anyhow::{Context, Result, ensure};
use mrgc_fleet::model::Capacity;
use mrgc_store::{Store, StoreConfig};
use mrgc_tests::{
    cluster::{FRANKFURT, IRELAND, PATIENCE, eventually},
    regions::{Loss, Regions},
};

use crate::support::{alone, logs};

/// As `regions` starts them, and each survivor's half of what is lost.
const INSTANCES: u32 = 2;
const PART: u32 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_asks_for_instances_until_all_traffic_is_back() -> Result<()> {
    let _alone = alone().await;
    let mut regions = Regions::start().await?;
    let played = play(&mut regions).await;
    played.with_context(|| logs(regions.survivors()))
}

async fn play(regions: &mut Regions) -> Result<()> {
    let endpoint = Some(regions.cluster.store_endpoint()?);
    let store = Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await?;
    let traffic = regions.traffic()?;
    regions.lose(Loss::Killed, &traffic).await?;
    regions.failed_over().await?;
    let lost = regions.lost.spec.id;
    for region in [IRELAND.id, FRANKFURT.id] {
        let raised = |capacity: &Capacity| capacity.desired == INSTANCES + PART;
        let raised = asked_for(&store, region, raised).await?;
        let decision = raised.last_decision.context("no decision")?;
        ensure!(decision.failover && decision.from == INSTANCES, "{decision:?}");
        ensure!(decision.reason.contains(lost), "{decision:?}");
    }
    regions.bring_back(Loss::Killed, &traffic).await?;
    regions.are_well().await?;
    for region in [IRELAND.id, FRANKFURT.id] {
        let back = |capacity: &Capacity| capacity.desired == INSTANCES;
        let back = asked_for(&store, region, back).await?;
        let decision = back.last_decision.context("no decision")?;
        ensure!(!decision.failover && decision.from == INSTANCES + PART, "{decision:?}");
    }
    let stats = traffic.load.stop().await;
    ensure!(stats.ok > 0, "{stats}");
    Ok(())
}

async fn asked_for(
    store: &Store,
    region: &str,
    is_it: impl Fn(&Capacity) -> bool,
) -> Result<Capacity> {
    eventually(&format!("what is asked for in {region}"), PATIENCE, || async {
        let mut capacities = store.capacities(&region.into()).await?;
        let capacity = capacities.remove("llama").context("nothing yet")?;
        ensure!(is_it(&capacity), "{capacity:?}");
        Ok(Some(capacity))
    })
    .await
}
