//! Live evidence at work: who fails is taken out, within bounds, and comes back by a few trials.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{PATIENCE, Program, eventually},
    model_server::{Failure, ModelServer},
};
use tokio::task::JoinSet;

use crate::support::{
    ANY_ROUTE, Dead, Lone, Scripted, Setup, counters, failing, header, in_time, model_server,
};

/// Long enough that a test is over before an ejection is.
const LONG_EJECTIONS: &str = "[ejection]\nbase_seconds = 60\n";
/// More than enough that either of two equals is picked first by chance.
const TRIES: usize = 64;
const SERVER_ERRORS: &str = "mrgc_router_ejections_total{cause=\"server_error\"";

/// Sends completions until the server has failed so many.
async fn until_failed(lone: &Lone, server: &ModelServer, failures: u64) -> Result<()> {
    for _ in 0..TRIES {
        if server.counters().failed == failures {
            return Ok(());
        }
        let status = lone.chat(false).send().await?.status();
        ensure!([200, 500].contains(&status.as_u16()), "{status}");
    }
    anyhow::bail!("it has failed {} times only", server.counters().failed)
}

#[tokio::test]
async fn after_five_500s_in_a_row_an_instance_is_out_and_a_few_trials_bring_it_back() -> Result<()>
{
    let (ill, live) = (failing("ill", Failure::InternalError).await?, model_server("live").await?);
    let ejection = "[ejection]\nbase_seconds = 1\nslow_start_seconds = 0\n";
    let setup = Setup::new(&format!("{ANY_ROUTE}{ejection}")).instance("i-ill", ill.address());
    let lone = setup.instance("i-live", live.address()).start().await?;
    until_failed(&lone, &ill, 4).await?;
    assert_eq!(lone.metric(SERVER_ERRORS).await?, 0.0);
    until_failed(&lone, &ill, 5).await?;
    assert_eq!(lone.metric(SERVER_ERRORS).await?, 1.0);
    assert_eq!(lone.metric("mrgc_instance_ejected{instance=\"i-ill\"").await?, 1.0);
    assert_eq!(lone.metric("mrgc_router_trials_total").await?, 0.0);

    // It is tried out when its time is over, and is still ill: one request found out, and it is out for longer.
    eventually("the first trial", PATIENCE, || async {
        lone.chat(false).send().await?;
        Ok((lone.metric("mrgc_router_trials_total").await? == 1.0).then_some(()))
    })
    .await?;
    assert_eq!(lone.metric(SERVER_ERRORS).await?, 2.0);
    assert_eq!(ill.counters().failed, 6);

    ill.set_failure(Failure::None);
    eventually("it is back", PATIENCE, || async {
        let response = lone.chat(false).send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        Ok((lone.metric("mrgc_instance_ejected{instance=\"i-ill\"").await? == 0.0).then_some(()))
    })
    .await?;
    assert_eq!(lone.metric("mrgc_router_trials_total").await?, 4.0, "three that it answered");
    assert_eq!(lone.metric(SERVER_ERRORS).await?, 2.0);
    Ok(())
}

#[tokio::test]
async fn of_a_pool_that_fails_as_a_whole_half_is_kept() -> Result<()> {
    let mut setup = Setup::new(&format!("{ANY_ROUTE}{LONG_EJECTIONS}"));
    let mut servers = Vec::new();
    for n in 0..4 {
        let server = failing("ill", Failure::InternalError).await?;
        setup = setup.instance(&format!("i-{n}"), server.address());
        servers.push(server);
    }
    let lone = setup.start().await?;
    for _ in 0..TRIES {
        let response = lone.chat(false).send().await?;
        ensure!(response.status() == 500, "the instance's own answer, not {}", response.status());
    }
    assert_eq!(lone.metric("mrgc_instance_ejected").await?, 2.0);
    assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 2.0);

    for server in &servers {
        server.set_failure(Failure::None);
    }
    let response = lone.chat(false).send().await?;
    ensure!(response.status() == 200, "whoever was kept serves at once: {}", response.status());
    Ok(())
}

#[tokio::test]
async fn what_an_instance_refuses_or_puts_off_is_held_against_nobody() -> Result<()> {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
    ] {
        let one = Scripted::start(answer).await?;
        let lone = Setup::new(ANY_ROUTE).instance("i-one", one.address).start().await?;
        for n in 1..=12 {
            let status = lone.chat(false).send().await?.status();
            ensure!(answer.contains(status.as_str()), "{status} for {answer}");
            assert_eq!(one.requests(), n, "tried once each: {answer}");
        }
        assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 0.0, "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn garbage_and_silence_count_as_a_500_does() -> Result<()> {
    let garbage = Scripted::start("SSH-2.0-OpenSSH_9.2\r\n").await?;
    let hung = failing("hung", Failure::Hang).await?;
    for (address, cause) in [(garbage.address, "broken"), (hung.address(), "timed_out")] {
        let live = model_server("live").await?;
        let limits = "[limits]\nfirst_byte_timeout_ms = 300\n";
        let setup = Setup::new(&format!("{ANY_ROUTE}{LONG_EJECTIONS}{limits}"));
        let setup = setup.instance("i-odd", address);
        let lone = setup.instance("i-live", live.address()).start().await?;
        for _ in 0..TRIES {
            let response = lone.chat(false).send().await?;
            ensure!(response.status() == 200, "{}", response.text().await?);
            assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-live");
        }
        let ejections = format!("mrgc_router_ejections_total{{cause={cause:?}");
        assert_eq!(lone.metric(&ejections).await?, 1.0, "{cause}");
        assert_eq!(lone.metric("mrgc_router_retries_total").await?, 5.0, "{cause}");
    }
    Ok(())
}

/// Whoever asks for an answer within a millisecond gets none, and that is nobody's fault.
#[tokio::test]
async fn a_clients_own_deadline_is_no_evidence() -> Result<()> {
    let slow = failing("slow", Failure::Hang).await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-slow", slow.address()).start().await?;
    for _ in 0..12 {
        let sent = lone.chat(false).header("x-mrgc-deadline-ms", "20").send().await?;
        assert_eq!(sent.status(), 504);
    }
    assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 0.0);
    Ok(())
}

#[tokio::test]
async fn connections_that_fail_cost_no_attempt() -> Result<()> {
    let (dead, live) = (Dead::new()?, model_server("live").await?);
    let mut setup = Setup::new(&format!("{ANY_ROUTE}[limits]\nattempts = 1\n"));
    for n in 0..6 {
        setup = setup.instance(&format!("i-dead-{n}"), dead.address);
    }
    let lone = setup.instance("i-live", live.address()).start().await?;
    for _ in 0..8 {
        let response = lone.chat(false).send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-live");
    }
    assert_eq!(live.counters().received, 8, "each was sent once");
    Ok(())
}

#[tokio::test]
async fn a_request_whose_instance_is_killed_while_it_waits_is_served_by_another() -> Result<()> {
    const REQUESTS: usize = 16;
    let (doomed, live) = (failing("doomed", Failure::Hang).await?, model_server("live").await?);
    let setup = Setup::new(ANY_ROUTE).instance("i-doomed", doomed.address());
    let lone = setup.instance("i-live", live.address()).start().await?;
    let mut waiting = JoinSet::new();
    for _ in 0..REQUESTS {
        waiting.spawn(lone.chat(false).send());
    }
    counters(&doomed, "some wait there", |c| c.running > 0).await?;
    drop(doomed);
    while let Some(response) = in_time("an answer", waiting.join_next()).await? {
        let response = response??;
        ensure!(response.status() == 200, "{}", response.text().await?);
        assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-live");
    }
    Ok(())
}

#[tokio::test]
async fn no_retry_goes_where_the_request_may_not() -> Result<()> {
    let full = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let (full, dead) = (Scripted::start(full).await?, Dead::new()?);
    let forbidden = model_server("forbidden").await?;
    let frameworks = "frameworks = [\"gdpr\"]\n";
    let mut setup = Setup::new(ANY_ROUTE).instance("i-full", full.address).and(frameworks);
    setup = setup.instance("i-dead", dead.address).and(frameworks);
    let lone = setup.instance("i-forbidden", forbidden.address()).start().await?;
    for _ in 0..12 {
        let request = lone.chat(false).header("x-mrgc-frameworks", "gdpr");
        let status = request.send().await?.status().as_u16();
        ensure!([502, 503].contains(&status), "{status}");
    }
    ensure!(full.requests() > 0);
    assert_eq!(forbidden.counters().received, 0);
    assert_eq!(lone.chat(false).send().await?.status(), 200, "it does serve");
    Ok(())
}

const KEY: &str = "[peers]\nkey = \"a-key-of-these-tests\"\n";

/// A router of us-east-1 between whose neighbours a request with needs can choose.
fn with_neighbours(first: std::net::SocketAddr, second: std::net::SocketAddr) -> Setup {
    Setup::new(&format!("{ANY_ROUTE}{KEY}"))
        .region("eu-west-1", first, &["gdpr"])
        .region("eu-central-1", second, &["gdpr"])
        .instance_in("eu-west-1", "i-first", first)
        .instance_in("eu-central-1", "i-second", second)
}

#[tokio::test]
async fn what_another_regions_instances_could_not_serve_the_next_region_does() -> Result<()> {
    let failed = Scripted::start(
        "HTTP/1.1 502 Bad Gateway\r\nx-mrgc-attempts: 2\r\ncontent-length: 0\r\n\r\n",
    )
    .await?;
    let peer = model_server("peer").await?;
    let lone = with_neighbours(failed.address, peer.address()).start().await?;
    for _ in 0..TRIES {
        let request = lone.chat(false).header("x-mrgc-frameworks", "gdpr");
        let response = request.send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        assert_eq!(header(response.headers(), "x-served-by")?, "peer");
        if failed.requests() > 0 {
            assert_eq!(header(response.headers(), "x-mrgc-attempts")?, "3", "two of them there");
            assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 0.0);
            return Ok(());
        }
    }
    anyhow::bail!("the failing region was never picked first")
}

/// As a region does whose machines all stop: connections stay, and nothing comes.
#[tokio::test]
async fn requests_that_wait_for_a_region_which_falls_silent_move_on() -> Result<()> {
    const REQUESTS: usize = 16;
    let dir = tempfile::tempdir()?;
    let args = ["--print-address", "--slots", "64", "--failure", "hang"].map(str::to_owned);
    let doomed = Program::start(dir.path(), "doomed", "mock-model-server", &args).await?;
    let peer = model_server("peer").await?;
    let lone = with_neighbours(doomed.address("")?, peer.address()).start().await?;
    let mut waiting = JoinSet::new();
    for _ in 0..REQUESTS {
        waiting.spawn(lone.chat(false).header("x-mrgc-frameworks", "gdpr").send());
    }
    let control = format!("http://{}/control", doomed.address("")?);
    eventually("some wait there", PATIENCE, || async {
        let told: serde_json::Value = lone.client.get(&control).send().await?.json().await?;
        let running = told["counters"]["running"].as_u64().context("no count")?;
        Ok((running > 0).then_some(()))
    })
    .await?;
    doomed.signal("STOP").await?;
    let stopped = std::time::Instant::now();
    while let Some(response) = in_time("an answer", waiting.join_next()).await? {
        let response = response??;
        ensure!(response.status() == 200, "{}", response.text().await?);
        assert_eq!(header(response.headers(), "x-served-by")?, "peer");
    }
    let after = stopped.elapsed();
    println!("{after:?} after the region fell silent, all are served elsewhere");
    ensure!(after < Duration::from_secs(10), "{after:?}");
    ensure!(lone.metric("mrgc_router_abandoned_attempts_total").await? > 0.0);
    Ok(())
}
