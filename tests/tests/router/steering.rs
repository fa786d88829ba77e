//! A region that loses its instances gives its requests away, to those that have room for them.

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{PATIENCE, eventually};
use serde_json::Value;

use crate::support::{
    ANY_ROUTE, Dead, Lone, Scripted, Setup, counters, header, model_server, problem,
};

const SETTINGS: &str = "[peers]\nkey = \"a-key-of-these-tests\"\n[ejection]\nbase_seconds = 60\n";
const NO_CAPACITY: &str = "HTTP/1.1 503 Service Unavailable\r\nx-mrgc-no-capacity: 1\r\n\
    retry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Of the region that takes what home cannot.
const SLOTS: usize = 20;

/// A region of four slots of which one instance in four lives, beside another region.
fn crippled(live: std::net::SocketAddr, dead: &Dead, other: std::net::SocketAddr) -> Setup {
    let mut setup = Setup::new(&format!("{ANY_ROUTE}{SETTINGS}"))
        .region("eu-west-1", other, &[])
        .instance_in("eu-west-1", "i-other", other)
        .instance("i-live", live)
        .and("slots = 1\n");
    for n in 0..3 {
        setup = setup.instance(&format!("i-dead-{n}"), dead.address).and("slots = 1\n");
    }
    setup
}

/// Sends requests that stay here by preference until the router has begun to move them.
async fn until_moving(lone: &Lone) -> Result<()> {
    eventually("requests are moved", PATIENCE, || async {
        let response = lone.chat(false).send().await?;
        ensure!(response.status() == 200, "{} {}", response.status(), response.text().await?);
        Ok((lone.metric("mrgc_router_moved_total").await? > 0.0).then_some(()))
    })
    .await
}

#[tokio::test]
async fn what_a_failing_region_gives_away_goes_to_another_and_says_so() -> Result<()> {
    let (live, dead, other) =
        (model_server("live").await?, Dead::new()?, model_server("other").await?);
    let lone = crippled(live.address(), &dead, other.address()).start().await?;
    until_moving(&lone).await?;
    eventually("the region fails over", PATIENCE, || async {
        lone.chat(false).send().await?;
        let seen = lone.router.get(&lone.client, "/failover").await?;
        Ok((seen["current_state"] == "failover_active").then_some(()))
    })
    .await?;
    // 95 of 100 go now.
    let mut moved = 0;
    for _ in 0..100 {
        let response = lone.chat(false).header("x-mock-echo", "1").send().await?;
        ensure!(response.status() == 200, "{}", response.status());
        if header(response.headers(), "x-served-by")? == "live" {
            continue;
        }
        let completion: Value = response.json().await?;
        let hop = completion["received_headers"]["x-mrgc-hop"].as_str().context("no hop")?;
        let hop: Value = serde_json::from_str(hop)?;
        ensure!(hop["moved"] == true, "{hop}");
        moved += 1;
    }
    ensure!(moved >= 80, "{moved} of 100 were moved");
    Ok(())
}

/// Holds streams of a priority until one is refused for want of room.
async fn fill(lone: &Lone, priority: &str, held: &mut Vec<reqwest::Response>) -> Result<()> {
    while held.len() <= SLOTS {
        let request = lone.chat(true).header("x-mock-hold", "1");
        let response = request.header("x-mrgc-priority", priority).send().await?;
        if response.status() != 200 {
            ensure!(response.headers().contains_key("retry-after"), "{response:?}");
            problem(response, 503, "no-capacity").await?;
            return Ok(());
        }
        held.push(response);
    }
    anyhow::bail!("{} are held in {SLOTS} slots", held.len())
}

/// Of a region's slots, less than half are for the least important, and the last tenth is for what is
/// important.
#[tokio::test]
async fn the_least_important_is_shed_first() -> Result<()> {
    let (dead, other) = (Dead::new()?, model_server("other").await?);
    let setup = Setup::new(&format!("{ANY_ROUTE}{SETTINGS}"))
        .instance("i-dead", dead.address)
        .region("eu-west-1", other.address(), &[])
        .instance_in("eu-west-1", "i-other", other.address())
        .and(&format!("slots = {SLOTS}\n"));
    let lone = setup.start().await?;
    until_moving(&lone).await?;

    let (mut held, mut refused) = (Vec::new(), 0.0);
    for (priority, filled) in [("-100", 9), ("0", 18), ("1", 19), ("10", SLOTS)] {
        fill(&lone, priority, &mut held).await?;
        assert_eq!(held.len(), filled, "at priority {priority}");
        refused += 1.0;
        assert_eq!(lone.metric("mrgc_router_shed_total").await?, refused);
    }
    assert_eq!(other.counters().running as usize, SLOTS);

    other.release();
    counters(&other, "there is room again", |counters| counters.running == 0).await?;
    eventually("ordinary requests are served again", PATIENCE, || async {
        let response = lone.chat(false).send().await?;
        ensure!(response.status() == 200, "{}", response.status());
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn what_nobody_has_room_for_is_shed() -> Result<()> {
    let (live, dead) = (model_server("live").await?, Dead::new()?);
    let full = Scripted::start(NO_CAPACITY).await?;
    let lone = crippled(live.address(), &dead, full.address).start().await?;
    // The other region is full, and what it refuses this one still serves.
    until_moving(&lone).await?;
    assert_eq!(lone.metric("mrgc_router_shed_total").await?, 0.0);

    let mut held = Vec::new();
    while held.len() < 4 {
        let response = lone.chat(true).header("x-mock-hold", "1").send().await?;
        assert_eq!(response.status(), 200);
        held.push(response);
    }
    let refused = eventually("a request is shed", PATIENCE, || async {
        let response = lone.chat(false).send().await?;
        Ok((response.status() != 200).then_some(response))
    })
    .await?;
    ensure!(refused.headers().contains_key("retry-after"));
    problem(refused, 503, "no-capacity").await?;
    assert_eq!(lone.metric("mrgc_router_shed_total").await?, 1.0);
    Ok(())
}
