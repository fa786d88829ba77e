//! Upstreams that fail, each beside one that does not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use mrgc_tests::{
    load::{Load, LoadConfig},
    model_server::Failure,
};
use serde_json::Value;

use crate::support::{
    ANY_ROUTE, CHAT, Dead, Lone, MODEL, Scripted, Setup, chat_body, counters, failing, h2, header,
    in_time, model_server, problem,
};

/// More than enough that either of two equals is picked first by chance.
const TRIES: usize = 64;
/// How long a hung upstream is waited for here.
const PATIENCE_LIMITS: &str = "[limits]\nfirst_byte_timeout_ms = 300\n";

fn with_patience() -> Setup {
    Setup::new(&format!("{ANY_ROUTE}{PATIENCE_LIMITS}"))
}

/// Sends completions, all of which must be served by `i-live`, until one took two attempts.
async fn until_retried(lone: &Lone) -> Result<()> {
    for _ in 0..TRIES {
        let response = lone.chat(false).send().await?;
        let headers = response.headers().clone();
        assert_eq!(response.status(), 200, "{}", response.text().await?);
        assert_eq!(header(&headers, "x-mrgc-instance")?, "i-live");
        response.json::<Value>().await?;
        match header(&headers, "x-mrgc-attempts")? {
            "1" => {}
            "2" => return Ok(()),
            other => anyhow::bail!("{other} attempts"),
        }
    }
    anyhow::bail!("the failing one was never picked first")
}

#[tokio::test]
async fn where_nobody_listens_another_instance_serves_and_the_dead_one_is_ejected() -> Result<()> {
    let (dead, live) = (Dead::new()?, model_server("live").await?);
    let setup = Setup::new(ANY_ROUTE).instance("i-dead", dead.address);
    let lone = setup.instance("i-live", live.address()).start().await?;
    until_retried(&lone).await?;
    assert_eq!(lone.metric("mrgc_router_connect_failures_total").await?, 1.0);
    assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 1.0);
    assert_eq!(lone.metric("mrgc_router_retries_total").await?, 1.0);
    assert_eq!(lone.metric("mrgc_instance_ejected{instance=\"i-dead\"").await?, 1.0);
    assert_eq!(lone.metric("mrgc_instance_ejected{instance=\"i-live\"").await?, 0.0);
    let instances = lone.get("/instances").await?;
    let dead =
        instances.as_array().into_iter().flatten().find(|i| i["registration"]["id"] == "i-dead");
    assert_eq!(dead.context("no i-dead")?["ejected"], true, "{instances}");
    // While it is out, nobody pays for it.
    let response = lone.chat(false).send().await?;
    assert_eq!(header(response.headers(), "x-mrgc-attempts")?, "1");
    Ok(())
}

#[tokio::test]
async fn where_all_are_dead_the_client_is_told_and_the_first_that_is_back_serves() -> Result<()> {
    let dead = Dead::new()?;
    let setup = Setup::new(ANY_ROUTE).instance("i-1", dead.address);
    let lone = setup.instance("i-2", dead.address).start().await?;
    for _ in 0..3 {
        let answer = lone.chat(false).send().await?;
        ensure!(answer.headers().contains_key("retry-after"), "{answer:?}");
        let detail = problem(answer, 503, "all-attempts-failed").await?;
        ensure!(detail.contains("cannot connect"), "{detail}");
        ensure!(detail.contains("refused"), "{detail}");
    }
    Ok(())
}

#[tokio::test]
async fn a_hung_upstream_is_left_for_another() -> Result<()> {
    let (hung, live) = (failing("hung", Failure::Hang).await?, model_server("live").await?);
    let setup = with_patience().instance("i-hung", hung.address());
    let lone = setup.instance("i-live", live.address()).start().await?;
    until_retried(&lone).await?;
    counters(&hung, "it is told that nobody waits", |c| c.abandoned > 0 && c.running == 0).await?;
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    Ok(())
}

#[tokio::test]
async fn where_all_hang_the_client_is_told_in_time() -> Result<()> {
    let hung = failing("hung", Failure::Hang).await?;
    let lone = with_patience().instance("i-hung", hung.address()).start().await?;
    let response = lone.chat(false).send().await?;
    ensure!(response.status() == 504, "{}", response.text().await?);

    let lone = Setup::new(ANY_ROUTE).instance("i-hung", hung.address()).start().await?;
    let started = Instant::now();
    let response = lone.chat(false).header("x-mrgc-deadline-ms", "200").send().await?;
    problem(response, 504, "deadline").await?;
    ensure!(started.elapsed() < Duration::from_secs(10), "its own deadline, not the router's");
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    counters(&hung, "it is told that nobody waits", |c| c.abandoned == 2 && c.running == 0).await?;
    Ok(())
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_or_within_its_head_is_left_for_another()
-> Result<()> {
    let live = model_server("live").await?;
    let closes = failing("closes", Failure::Close).await?;
    let setup = Setup::new(ANY_ROUTE).instance("i-closes", closes.address());
    until_retried(&setup.instance("i-live", live.address()).start().await?).await?;

    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
    ] {
        let odd = Scripted::start(answer).await?;
        let setup = Setup::new(ANY_ROUTE).instance("i-odd", odd.address);
        let lone = setup.instance("i-live", live.address()).start().await?;
        until_retried(&lone).await.with_context(|| answer.to_owned())?;
        assert_eq!(lone.metric("mrgc_router_client_gone_total").await?, 0.0);
    }
    let alone = Scripted::start("HTTP/1.1 200 OK\r\ncontent-le").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-odd", alone.address).start().await?;
    problem(lone.chat(false).send().await?, 502, "all-attempts-failed").await?;
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_cut_reaches_the_client_as_broken() -> Result<()> {
    let (cut, live) = (failing("cut", Failure::Cut).await?, model_server("live").await?);
    let lone = Setup::new(ANY_ROUTE).instance("i-cut", cut.address()).start().await?;
    for stream in [false, true] {
        let response = lone.chat(stream).send().await?;
        assert_eq!(response.status(), 200);
        let read = in_time("the body", response.bytes()).await?;
        ensure!(read.is_err(), "a cut body looks whole: {read:?}");

        let mut connection = h2(lone.router.data).await?;
        let request = http::Request::post(lone.router.data_url(CHAT))
            .header("content-type", "application/json")
            .body(Full::from(chat_body(MODEL, stream).to_string()))?;
        // The stream's reset may overtake its head.
        let read = async { connection.send_request(request).await?.collect().await };
        let read = in_time("the body", read).await?;
        ensure!(read.is_err(), "a cut body looks whole over HTTP/2");
    }
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    assert_eq!(lone.metric("mrgc_router_client_gone_total").await?, 0.0, "the upstream's fault");
    assert_eq!(lone.metric("mrgc_router_retries_total").await?, 0.0, "the client has seen a part");

    let lone = Setup::new(ANY_ROUTE).instance("i-live", live.address()).start().await?;
    assert_eq!(lone.chat(true).send().await?.text().await?.matches("data: ").count(), 5);
    Ok(())
}

#[tokio::test]
async fn a_body_that_stops_in_the_middle_is_ended() -> Result<()> {
    let server = model_server("one").await?;
    let limits = "[limits]\nidle_timeout_ms = 300";
    let setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    let lone = setup.instance("i-one", server.address()).start().await?;
    let response = lone.chat(true).header("x-mock-hold", "1").send().await?;
    let read = in_time("the body", response.bytes()).await?;
    ensure!(read.is_err(), "it looks whole: {read:?}");
    counters(&server, "the upstream notices", |c| c.abandoned == 1).await?;
    assert_eq!(lone.chat(true).send().await?.text().await?.matches("data: ").count(), 5);
    Ok(())
}

#[tokio::test]
async fn an_upstreams_500_is_its_answer_and_its_503_is_not_while_others_are_left() -> Result<()> {
    let (broken, live) =
        (failing("broken", Failure::InternalError).await?, model_server("live").await?);
    let lone = Setup::new(ANY_ROUTE).instance("i-broken", broken.address()).start().await?;
    let response = lone.chat(false).send().await?;
    assert_eq!(response.status(), 500);
    assert_eq!(header(response.headers(), "x-mrgc-attempts")?, "1");
    ensure!(
        response.text().await?.contains("the mock was asked to fail"),
        "the upstream's own words"
    );
    assert_eq!(broken.counters().received, 1);

    for answer in [
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nfull",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n",
    ] {
        let full = Scripted::start(answer).await?;
        let setup = Setup::new(ANY_ROUTE).instance("i-full", full.address);
        let lone = setup.instance("i-live", live.address()).start().await?;
        until_retried(&lone).await?;
        assert_eq!(lone.metric("mrgc_router_client_gone_total").await?, 0.0, "{answer}");
        lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn where_every_instance_is_full_the_client_hears_it() -> Result<()> {
    let full =
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nfull";
    let full = Scripted::start(full).await?;
    let setup = Setup::new(ANY_ROUTE).instance("i-1", full.address);
    let lone = setup.instance("i-2", full.address).start().await?;
    let response = lone.chat(false).send().await?;
    ensure!(response.status() == 503, "{} {}", response.status(), response.text().await?);
    ensure!(response.headers().contains_key("retry-after"));
    assert_eq!(full.requests(), 2, "both were asked");
    Ok(())
}

#[tokio::test]
async fn attempts_end_at_their_limit() -> Result<()> {
    let odd = Scripted::start("HTTP/1.1 2").await?;
    let limits = "[limits]\nattempts = 2";
    let mut setup = Setup::new(&format!("{ANY_ROUTE}{limits}"));
    for i in 0..5 {
        setup = setup.instance(&format!("i-{i}"), odd.address);
    }
    let lone = setup.start().await?;
    problem(lone.chat(false).send().await?, 502, "all-attempts-failed").await?;
    assert_eq!(odd.requests(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closes_after_each_answer_loses_no_request() -> Result<()> {
    const REQUESTS: u64 = 4000;
    let closes = Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", closes.address).start().await?;
    let load = Load::start(LoadConfig {
        targets: vec![lone.router.data_url(CHAT)],
        connections: 16,
        requests_max: Some(REQUESTS),
        model: MODEL.to_owned(),
        ..LoadConfig::default()
    })?;
    let stats = load.finish().await;
    assert_eq!(stats.ok, REQUESTS, "{stats}");
    assert_eq!(lone.metric("mrgc_router_ejections_total").await?, 0.0);
    Ok(())
}
