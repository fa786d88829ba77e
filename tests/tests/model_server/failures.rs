//! Each way of failing, as a client meets it.

use std::time::{Duration, Instant};

use mrgc_tests::model_server::{Failure, ModelServer, Settings};
use serde_json::json;

use crate::support::{chat, control, failing, get, quick, read_events, until};

#[tokio::test]
async fn internal_errors_are_500_plain_and_streaming() -> anyhow::Result<()> {
    let server = failing(Failure::InternalError).await?;
    for stream in [false, true] {
        let response = chat(&server, stream).send().await?;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-served-by"], "mock");
    }
    assert_eq!(server.counters().failed, 2);
    get(&server, "/health").await?;
    get(&server, "/metrics").await?;
    Ok(())
}

#[tokio::test]
async fn a_closed_connection_gives_no_answer() -> anyhow::Result<()> {
    let server = failing(Failure::Close).await?;
    for stream in [false, true] {
        assert!(chat(&server, stream).send().await.is_err());
    }
    assert_eq!(server.counters().failed, 2);
    Ok(())
}

#[tokio::test]
async fn a_cut_answer_starts_and_breaks_off() -> anyhow::Result<()> {
    let server = failing(Failure::Cut).await?;
    let response = chat(&server, false).send().await?;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());

    let mut response = chat(&server, true).send().await?;
    read_events(&mut response, 1).await?;
    assert!(response.chunk().await.is_err());

    let response = chat(&server, false).header("x-mock-bytes", 1_000).send().await?;
    assert_eq!(response.content_length(), Some(1_000));
    assert!(response.bytes().await.is_err());
    until(&server, |counters| counters.failed == 3 && counters.running == 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_hung_request_keeps_its_slot_until_its_client_leaves() -> anyhow::Result<()> {
    let server = failing(Failure::Hang).await?;
    let client = tokio::spawn(chat(&server, false).send());
    until(&server, |counters| counters.running == 1).await?;
    client.abort();
    until(&server, |counters| counters.running == 0 && counters.abandoned == 1).await?;

    let client = tokio::spawn(chat(&server, true).send());
    until(&server, |counters| counters.running == 1).await?;
    server.release();
    assert!(client.await?.is_err());
    Ok(())
}

#[tokio::test]
async fn slow_takes_a_second_at_least() -> anyhow::Result<()> {
    let server = failing(Failure::Slow).await?;
    let begun = Instant::now();
    assert_eq!(chat(&server, false).send().await?.status(), 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn failures_are_switched_while_it_runs() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    assert_eq!(chat(&server, false).send().await?.status(), 200);
    let told = control(&server, json!({ "failure": "500", "latency_ms": 7 })).await?;
    assert_eq!(told["settings"], json!({ "failure": "500", "latency_ms": 7 }));
    assert_eq!(told["counters"]["completed"], 1);
    assert_eq!(server.settings(), Settings { failure: Failure::InternalError, latency_ms: 7 });
    assert_eq!(chat(&server, false).send().await?.status(), 500);
    server.set_failure(Failure::None);
    assert_eq!(chat(&server, false).send().await?.status(), 200);

    for name in ["none", "500", "hang", "close", "cut", "slow"] {
        let told = control(&server, json!({ "failure": name })).await?;
        assert_eq!(told["settings"], json!({ "failure": name, "latency_ms": 7 }));
    }
    Ok(())
}
