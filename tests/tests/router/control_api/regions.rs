//! `/regions` and `/failover` of one fleet: they do not contradict each other.

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{IRELAND, PATIENCE, VIRGINIA, eventually, signal};
use serde_json::{Value, json};

use crate::{
    command::{mrgc, words},
    orders::Pair,
};

/// What `/regions` says of a region, once it is this.
async fn is(pair: &Pair, region: &str, status: &str) -> Result<Value> {
    eventually(&format!("{region} is {status}"), PATIENCE, || async {
        let path = format!("/regions/{region}/health");
        let health = pair.virginia.get(&pair.client, &path).await?;
        ensure!(health["status"] == status, "{health}");
        Ok(Some(health))
    })
    .await
}

/// The regions that can be relied on: by the list, and by the statistics.
async fn healthy(pair: &Pair) -> Result<Vec<String>> {
    let (router, client) = (&pair.virginia, &pair.client);
    let listed = router.get(client, "/regions?healthy_only=true").await?;
    let ids = listed.as_array().context("no list")?.iter();
    let ids: Vec<_> = ids.filter_map(|r| r["region_id"].as_str().map(str::to_owned)).collect();
    let stats = router.get(client, "/stats").await?;
    assert_eq!(stats["healthy_regions"], ids.len(), "{stats}");
    Ok(ids)
}

#[tokio::test]
async fn a_region_that_is_failed_over_or_falls_silent_is_not_healthy() -> Result<()> {
    let pair = Pair::start().await?;
    for region in [VIRGINIA.id, IRELAND.id] {
        assert_eq!(is(&pair, region, "healthy").await?["ready_instances"], 1);
    }
    assert_eq!(healthy(&pair).await?, [IRELAND.id, VIRGINIA.id]);

    // By the names that the documentation of the API began with.
    let away = json!({
        "from": VIRGINIA.id, "to": IRELAND.id, "strategy": "immediate", "reason": "drill",
        "operator": "ada",
    });
    pair.order(&pair.virginia, "/failover", &away).await?;
    is(&pair, VIRGINIA.id, "unhealthy").await?;
    assert_eq!(healthy(&pair).await?, [IRELAND.id]);
    let back = json!({ "region": VIRGINIA.id, "reason": "drill", "operator": "ada" });
    pair.order(&pair.virginia, "/failover/recover", &back).await?;
    is(&pair, VIRGINIA.id, "healthy").await?;

    // Its router is silent, and its instances go on reporting that they are well.
    signal("STOP", [&pair.ireland.program]).await?;
    is(&pair, IRELAND.id, "unhealthy").await?;
    assert_eq!(healthy(&pair).await?, [VIRGINIA.id]);
    let table = mrgc(&pair.virginia, &["regions"]).await?.out;
    let row = table.lines().find(|line| line.starts_with(IRELAND.id)).map(words);
    let expected = format!("{id} {id} FAILOVER_ACTIVE 0 %", id = IRELAND.id);
    ensure!(row.is_some_and(|row| row.starts_with(&expected)), "{table}");
    Ok(())
}
