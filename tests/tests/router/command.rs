//! `mrgc` beside real routers: what it shows, asks and orders.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{PATIENCE, Router, binary_path, eventually};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::orders::Pair;

pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn command(router: &Router, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary_path("mrgc")?);
    command.args(arguments).env("MRGC_ROUTER_URL", router.control_url("")).env("USER", "ada");
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

pub(crate) async fn mrgc(router: &Router, arguments: &[&str]) -> Result<Said> {
    let output = timeout(PATIENCE, command(router, arguments)?.output()).await??;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok(Said { code: output.status.code(), out, err })
}

async fn done(router: &Router, arguments: &[&str]) -> Result<String> {
    let Said { code, out, err } = mrgc(router, arguments).await?;
    ensure!(code == Some(0), "mrgc {arguments:?}: {code:?}\n{out}{err}");
    Ok(out)
}

/// A line's words.
pub(crate) fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_drill_from_the_simulation_to_the_timeline() -> Result<()> {
    let pair = Pair::start().await?;
    let virginia = &pair.virginia;
    let simulated = done(virginia, &["failover", "simulate", "us-east-1"]).await?;
    let row = words(simulated.lines().nth(1).context("no row")?);
    ensure!(row.starts_with("llama 0 eu-west-1 100 %") && row.ends_with(" 0"), "{simulated}");

    let start = ["failover", "start", "us-east-1", "--to", "eu-west-1", "--reason", "drill"];
    let refused = mrgc(virginia, &start).await?;
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""));
    ensure!(refused.err.contains("say `--yes`"), "{}", refused.err);
    let started = done(virginia, &[&start[..], &["--yes"]].concat()).await?;
    let expected = "us-east-1: failed over to eu-west-1 by ada (drill); it is FAILOVER_ACTIVE and keeps 0 % \
         of its traffic\n";
    assert_eq!(started, expected);
    let status = done(virginia, &["failover", "status"]).await?;
    let row = status.lines().find(|line| line.starts_with("us-east-1  ")).context("no row")?;
    ensure!(
        words(row).starts_with("us-east-1 FAILOVER_ACTIVE 0 % 1 of 1 0 s failed over to"),
        "{status}"
    );

    let again = mrgc(virginia, &["failover", "unpin", "us-east-1", "--reason", "r", "-y"]).await?;
    assert_eq!(again.code, Some(1));
    ensure!(again.err.contains("failed over and not pinned: recover it"), "{}", again.err);
    let recover = ["failover", "recover", "us-east-1", "--reason", "drill is over", "-y", "--json"];
    let given: Value = serde_json::from_str(&done(virginia, &recover).await?)?;
    assert_eq!(given["replaced"]["reason"], "drill", "{given}");

    let history = eventually("the failover is in the history", PATIENCE, || async {
        let history = done(virginia, &["failover", "history"]).await?;
        Ok(history.contains("as ordered").then_some(history))
    })
    .await?;
    let lines: Vec<String> = history.lines().map(words).collect();
    for expected in [
        "us-east-1 simulate: asked by ada",
        "us-east-1 failover to eu-west-1, immediate: ordered by ada drill",
        "us-east-1 failed over, as ordered, to eu-west-1",
        "us-east-1 recover: ordered by ada drill is over",
    ] {
        ensure!(lines.iter().any(|line| line.contains(expected)), "{expected}\n{history}");
    }
    ensure!(lines[1].contains("simulate"), "what was first comes first:\n{history}");
    Ok(())
}

#[tokio::test]
async fn a_pin_holds_whatever_the_evidence_says_until_it_is_lifted() -> Result<()> {
    let pair = Pair::start().await?;
    let (virginia, ireland) = (&pair.virginia, &pair.ireland);
    let pin = ["failover", "pin", "us-east-1", "degraded", "--reason", "half a network", "--yes"];
    let pinned = "pinned in DEGRADED by ada (half a network)";
    assert_eq!(
        done(virginia, &pin).await?,
        format!("us-east-1: {pinned}; it is DEGRADED and keeps 70 % of its traffic\n")
    );
    for router in [virginia, ireland] {
        shows(router, &["us-east-1 DEGRADED 70 % 1 of 1", pinned]).await?;
    }
    let recover = ["failover", "recover", "us-east-1", "--reason", "r", "--yes"];
    let refused = mrgc(virginia, &recover).await?;
    assert_eq!(refused.code, Some(1));
    ensure!(refused.err.contains("is pinned in DEGRADED: unpin it"), "{}", refused.err);

    let unpin = ["failover", "unpin", "us-east-1", "--reason", "it is whole", "--yes"];
    let unpinned = done(virginia, &unpin).await?;
    let expected =
        format!("us-east-1: left to the evidence by ada (it is whole); before: {pinned};");
    ensure!(unpinned.starts_with(&expected), "{unpinned}");
    for router in [virginia, ireland] {
        let row = shows(router, &["us-east-1 NORMAL 100 % 1 of 1"]).await?;
        ensure!(!row.contains("pinned"), "{row}");
    }
    let history = done(virginia, &["failover", "history"]).await?;
    let lines: Vec<String> = history.lines().map(words).collect();
    for expected in [
        "us-east-1 pin in DEGRADED: ordered by ada half a network",
        "us-east-1 unpin: ordered by ada it is whole",
    ] {
        ensure!(lines.iter().any(|line| line.contains(expected)), "{expected}\n{history}");
    }
    Ok(())
}

/// Waits until `mrgc failover status` shows so of us-east-1, and gives its row.
async fn shows(router: &Router, expected: &[&str]) -> Result<String> {
    eventually("the status says so", PATIENCE, || async {
        let status = done(router, &["failover", "status"]).await?;
        let row = status.lines().find(|line| line.starts_with("us-east-1  ")).context("no row")?;
        let row = words(row);
        ensure!(expected.iter().all(|expected| row.contains(expected)), "{status}");
        Ok(Some(row))
    })
    .await
}

#[tokio::test]
async fn a_failover_that_two_regions_saw_is_one() -> Result<()> {
    let mut pair = Pair::start().await?;
    for action in ["start", "recover"] {
        let order = ["failover", action, "us-east-1", "--reason", "drill", "--yes"];
        done(&pair.virginia, &order).await?;
        eventually("both regions have recorded it", PATIENCE, || async {
            let history = pair.virginia.get(&pair.client, "/failover/history").await?;
            let events = history["events"].as_array().context("no events")?;
            let is_over = |event: &Value| event["ended_at"].is_u64() == (action == "recover");
            ensure!(events.len() == 2 && events.iter().all(is_over), "{history}");
            Ok(Some(()))
        })
        .await?;
    }
    let history = done(&pair.virginia, &["failover", "history"]).await?;
    let begun: Vec<&str> = history.lines().filter(|line| line.contains("as ordered")).collect();
    ensure!(begun.len() == 1 && begun[0].contains("2 regions"), "{history}");
    let all = done(&pair.virginia, &["failover", "history", "--all"]).await?;
    for what in ["as ordered", "has its traffic back"] {
        ensure!(all.lines().filter(|line| line.contains(what)).count() == 2, "{what}: {all}");
    }

    // A router that starts has read both records, and counts its region's.
    pair.virginia.program.kill().await?;
    pair.virginia.restart().await?;
    let overview = pair.virginia.get(&pair.client, "/failover").await?;
    assert_eq!(overview["total_failovers"], 1, "{overview}");
    ensure!(overview["average_duration_ms"].is_number(), "{overview}");
    Ok(())
}

#[tokio::test]
async fn tables_and_completions_have_the_regions() -> Result<()> {
    let pair = Pair::start().await?;
    let virginia = &pair.virginia;
    let regions = done(virginia, &["regions"]).await?;
    let rows: Vec<String> = regions.lines().skip(1).map(words).collect();
    assert_eq!(rows.len(), 2, "{regions}");
    for (row, region) in rows.iter().zip(["eu-west-1", "us-east-1"]) {
        ensure!(row.starts_with(&format!("{region} {region} NORMAL 100 % 1 of 1")), "{regions}");
    }
    let lines = done(virginia, &["regions", "--json"]).await?;
    let regions = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(regions[0]["failover"]["state"], "normal", "{lines}");
    ensure!(regions[0]["endpoint"].is_string(), "{lines}");

    let script = done(virginia, &["completions", "bash", "--regions"]).await?;
    ensure!(script.contains("eu-west-1 us-east-1"), "no regions to complete");

    let checked = done(virginia, &["instances", "check", "i-us"]).await?;
    let row = words(checked.lines().nth(1).context("no row")?);
    ensure!(row.starts_with("i-us yes ") && row.contains(" passed 200 "), "{checked}");
    let elsewhere = mrgc(virginia, &["instances", "check", "i-eu"]).await?;
    assert_eq!(elsewhere.code, Some(1));
    ensure!(elsewhere.err.contains("ask one of eu-west-1"), "{}", elsewhere.err);
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_until_it_is_interrupted() -> Result<()> {
    let pair = Pair::start().await?;
    let mut watch = command(&pair.virginia, &["failover", "status", "--watch", "0.1", "--json"])?;
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("no output")?).lines();
    for _ in 0..3 {
        let line = timeout(PATIENCE, lines.next_line()).await??.context("it ended")?;
        let overview: Value = serde_json::from_str(&line)?;
        assert_eq!(overview["region"], "us-east-1");
    }
    let pid = watch.id().context("it ended")?.to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().await?;
    ensure!(killed.success());
    let output = timeout(PATIENCE, watch.wait_with_output()).await??;
    assert_eq!(output.status.code(), Some(130));
    Ok(())
}
