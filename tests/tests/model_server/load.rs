//! The load client: it counts everything once, and calls nothing ok that was not.

use std::time::{Duration, Instant};

use http::HeaderName;
use mrgc_tests::load::{End, Journal, Load, LoadConfig, Pace, Reason, Stats};
use mrgc_tests::model_server::{Config, Failure, ModelServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{failing, quick, until};

fn config(targets: &[String], requests_max: u64) -> LoadConfig {
    LoadConfig {
        targets: targets.to_vec(),
        connections: 4,
        requests_max: Some(requests_max),
        ..LoadConfig::default()
    }
}

fn assert_all_told(stats: &Stats) {
    assert_eq!(stats.in_flight(), 0, "{stats}");
    assert_eq!(stats.sent, stats.ok + stats.shed + stats.failed(), "{stats}");
}

#[tokio::test]
async fn targets_and_streams_are_shared_out_evenly() -> anyhow::Result<()> {
    let a = ModelServer::start(Config { name: "a".into(), ..quick() }).await?;
    let b = ModelServer::start(Config { name: "b".into(), ..quick() }).await?;
    let stats = Load::start(LoadConfig {
        streaming_share: 0.5,
        count_headers: vec![HeaderName::from_static("x-served-by")],
        ..config(&[a.url(), b.url()], 200)
    })?
    .finish()
    .await;
    assert_all_told(&stats);
    assert_eq!((stats.sent, stats.ok, stats.streamed), (200, 200, 100), "{stats}");
    assert_eq!((stats.latency.count(), stats.first_event.count()), (200, 100));
    assert!(stats.latency.p50() <= stats.latency.p99() && !stats.latency.p50().is_zero());
    let values: Vec<_> =
        stats.values("x-served-by").map(|(value, seen)| (value, seen.count)).collect();
    assert_eq!(values, [("a", 100), ("b", 100)]);
    for server in [a, b] {
        assert_eq!(server.counters().completed, 100);
    }
    Ok(())
}

#[tokio::test]
async fn a_rate_is_kept_and_a_stall_is_not_hidden() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let begun = Instant::now();
    let pace = Pace::PerSecond(200.0);
    let stats = Load::start(LoadConfig { pace, ..config(&[server.url()], 41) })?.finish().await;
    assert_eq!(stats.ok, 41, "{stats}");
    assert!(begun.elapsed() >= Duration::from_millis(200), "{stats}");

    // Ten are due within 10 ms, one at a time takes 200: the last is known to be late.
    server.set_latency_ms(20);
    let pace = Pace::PerSecond(1_000.0);
    let one = LoadConfig { pace, connections: 1, ..config(&[server.url()], 10) };
    let stats = Load::start(one)?.finish().await;
    assert_eq!(stats.ok, 10, "{stats}");
    assert!(stats.latency.max() >= Duration::from_millis(180), "{stats}");
    Ok(())
}

#[tokio::test]
async fn a_dropped_request_is_sent_to_the_next_target_and_each_try_is_on_record()
-> anyhow::Result<()> {
    let (drops, cuts) = (failing(Failure::Close).await?, failing(Failure::Cut).await?);
    let serves = ModelServer::start(quick()).await?;
    let journal = Journal::default();
    let targets = [drops.url(), cuts.url(), serves.url()];
    let stats = Load::start(LoadConfig {
        retries: true,
        journal: Some(journal.clone()),
        connections: 1,
        ..config(&targets, 3)
    })?
    .finish()
    .await;
    assert_all_told(&stats);
    assert_eq!((stats.sent, stats.ok), (4, 1), "{stats}");
    let records = journal.records(0);
    let tries: Vec<_> =
        records.iter().map(|r| (r.request, r.target, r.head.is_some(), r.is_ok())).collect();
    // The first was dropped, and then its answer broke off, which is not tried again.
    let expected =
        [(0, 0, false, false), (0, 1, true, false), (1, 1, true, false), (2, 2, true, true)];
    assert_eq!(tries, expected, "{records:?}");
    assert!(matches!(&records[0].end, End::Failed(why) if why.starts_with("no answer")));
    assert!(records.iter().all(|r| r.sent <= r.ended) && journal.left_out() == 0);
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_closed_gets_nothing_until_it_is_opened() -> anyhow::Result<()> {
    let (a, b) = (ModelServer::start(quick()).await?, ModelServer::start(quick()).await?);
    let everything = LoadConfig { requests_max: None, ..config(&[a.url(), b.url()], 0) };
    let load = Load::start(everything)?;
    until(&a, |counters| counters.completed > 10).await?;
    load.close(0);
    // What was under way when it closed ends first, of each connection.
    let before = a.counters().received + 4;
    let served = b.counters().completed;
    until(&b, |counters| counters.completed > served + 100).await?;
    let closed = a.counters().received;
    assert!(closed <= before, "{closed} of at most {before}");
    load.open(0);
    until(&a, |counters| counters.received > closed + 10).await?;
    assert_all_told(&load.stop().await);
    Ok(())
}

#[tokio::test]
async fn each_failure_is_counted_under_its_reason() -> anyhow::Result<()> {
    let cases = [
        (Failure::InternalError, Reason::Status(500)),
        (Failure::Close, Reason::Send),
        (Failure::Cut, Reason::Body),
        (Failure::Hang, Reason::Timeout),
    ];
    for (failure, reason) in cases {
        let server = failing(failure).await?;
        let stats = Load::start(LoadConfig {
            streaming_share: 0.5,
            timeout: if failure == Failure::Hang {
                Duration::from_millis(50)
            } else {
                Duration::from_secs(20)
            },
            ..config(&[server.url()], 20)
        })?
        .finish()
        .await;
        assert_all_told(&stats);
        assert_eq!(stats.failures.keys().collect::<Vec<_>>(), [&reason], "{failure:?}: {stats}");
        let failures = &stats.failures[&reason];
        assert_eq!((stats.ok, failures.count, failures.samples.len()), (0, 20, 4), "{stats}");
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_gone_fails_every_request() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let load = Load::start(LoadConfig { requests_max: None, ..config(&[server.url()], 0) })?;
    until(&server, |counters| counters.completed > 50).await?;
    let url = server.url();
    drop(server);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !load.stats().failures.contains_key(&Reason::Connect) {
        assert!(Instant::now() < deadline, "{}", load.stats());
        tokio::task::yield_now().await;
    }
    let stats = load.stop().await;
    assert_all_told(&stats);
    assert!(stats.ok > 50, "{stats}");

    let stats = Load::start(config(&[url], 8))?.finish().await;
    assert_eq!(stats.failures[&Reason::Connect].count, 8, "{stats}");
    Ok(())
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight() -> anyhow::Result<()> {
    let server = ModelServer::start(Config { latency_ms: 100, ..quick() }).await?;
    let load = Load::start(LoadConfig { requests_max: None, ..config(&[server.url()], 0) })?;
    until(&server, |counters| counters.running == 4).await?;
    assert!(load.stats().in_flight() > 0);
    let stats = load.stop().await;
    assert_all_told(&stats);
    assert_eq!((stats.ok, stats.failed()), (stats.sent, 0), "{stats}");
    assert_eq!(server.counters().completed, stats.ok);
    assert_eq!(server.counters().abandoned, 0);
    Ok(())
}

/// Answers every connection's first request with these bytes and closes it.
async fn canned(answer: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The requests are short: one read has them whole.
            let mut request = [0; 4_096];
            if stream.read(&mut request).await.is_ok() {
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    Ok(url)
}

#[tokio::test]
async fn half_answers_are_failures_and_shedding_is_told_apart() -> anyhow::Result<()> {
    const SSE: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let full = "HTTP/1.1 503 Full\r\nretry-after: 1\r\nconnection: close\r\n\r\n";
    let down = "HTTP/1.1 503 Down\r\nconnection: close\r\n\r\nno instance";
    let html = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>";
    let no_done = concat!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        "a\r\ndata: {}\n\n\r\n0\r\n\r\n"
    );
    let cut = format!("{SSE}e\r\ndata: [DONE]\n\n\r\n").leak();
    let cases = [
        (full, false, None, ""),
        (down, false, Some(Reason::Status(503)), "no instance"),
        (html, false, Some(Reason::Json), "6 bytes are no JSON"),
        (html, true, Some(Reason::NoDone), "ended after 0 events"),
        (no_done, true, Some(Reason::NoDone), "ended after 1 events"),
        (cut, true, Some(Reason::Body), "broke off after 1 events"),
    ];
    for (answer, streams, reason, needle) in cases {
        let share = if streams { 1.0 } else { 0.0 };
        let one = config(&[canned(answer).await?], 1);
        let stats = Load::start(LoadConfig { streaming_share: share, ..one })?.finish().await;
        assert_all_told(&stats);
        assert_eq!(stats.ok, 0, "{answer}: {stats}");
        assert_eq!(stats.failures.keys().next().copied(), reason, "{answer}: {stats}");
        assert_eq!(stats.shed, u64::from(reason.is_none()), "{answer}: {stats}");
        assert!(stats.to_string().contains(needle), "{needle:?} is not in {stats}");
    }
    Ok(())
}

#[tokio::test]
async fn a_config_that_makes_no_sense_is_refused() {
    let good = config(&["http://127.0.0.1:1".into()], 1);
    let cases = [
        (LoadConfig { targets: vec![], ..good.clone() }, "targets is empty"),
        (LoadConfig { targets: vec!["127.0.0.1:1".into()], ..good.clone() }, "http://"),
        (LoadConfig { targets: vec!["https://a".into()], ..good.clone() }, "http://"),
        (LoadConfig { pace: Pace::PerSecond(0.0), ..good.clone() }, "0 requests per second"),
        (LoadConfig { streaming_share: 1.5, ..good.clone() }, "streaming_share is 1.5"),
        (LoadConfig { connections: 0, ..good }, "connections is 0"),
    ];
    for (config, needle) in cases {
        let error = Load::start(config).expect_err(needle).to_string();
        assert!(error.contains(needle), "{error:?} lacks {needle:?}");
    }
}
