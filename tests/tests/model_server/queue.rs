//! Slots: what runs, what waits, and that clients who go away leave no trace in either.

use std::time::{Duration, Instant};

use mrgc_tests::model_server::{Config, ModelServer};
use tokio::task::JoinHandle;

use crate::support::{chat, get, quick, read_events, until};

/// A client of its own, whose connection closes when it is aborted.
fn held(server: &ModelServer) -> JoinHandle<reqwest::Result<reqwest::Response>> {
    tokio::spawn(chat(server, false).header("x-mock-hold", "1").send())
}

#[tokio::test]
async fn requests_beyond_the_slots_wait_their_turn() -> anyhow::Result<()> {
    let server = ModelServer::start(Config { slots: 2, ..quick() }).await?;
    let running = [held(&server), held(&server)];
    until(&server, |counters| counters.running == 2).await?;
    let waiting = [held(&server), held(&server), held(&server)];
    until(&server, |counters| counters.waiting == 3).await?;
    let page = get(&server, "/metrics").await?;
    assert!(page.contains("vllm:num_requests_running{model_name=\"mock-model\"} 2.0\n"), "{page}");
    assert!(page.contains("vllm:num_requests_waiting{model_name=\"mock-model\"} 3.0\n"), "{page}");

    waiting[0].abort();
    until(&server, |counters| counters.waiting == 2 && counters.abandoned == 1).await?;
    assert_eq!(server.counters().running, 2);

    running[0].abort();
    until(&server, |counters| counters.waiting == 1 && counters.abandoned == 2).await?;
    assert_eq!(server.counters().running, 2);

    server.release();
    let after = until(&server, |counters| counters.completed == 3).await?;
    assert_eq!((after.received, after.waiting, after.running), (5, 0, 0));
    for client in running.into_iter().chain(waiting) {
        if let Ok(response) = client.await {
            assert_eq!(response?.status(), 200);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_its_stream_frees_the_slot() -> anyhow::Result<()> {
    let server = ModelServer::start(Config { slots: 1, ..quick() }).await?;
    let mut response = chat(&server, true).header("x-mock-hold", "1").send().await?;
    read_events(&mut response, 1).await?;
    drop(response);
    until(&server, |counters| counters.abandoned == 1 && counters.running == 0).await?;
    assert_eq!(chat(&server, false).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_a_long_answer_ends_it() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let mut response = chat(&server, false).header("x-mock-bytes", 1_u64 << 50).send().await?;
    response.chunk().await?;
    drop(response);
    until(&server, |counters| counters.abandoned == 1 && counters.running == 0).await?;
    Ok(())
}

#[tokio::test]
async fn tokens_are_spread_over_the_latency() -> anyhow::Result<()> {
    let latency = Duration::from_millis(200);
    let server = ModelServer::start(Config { latency_ms: 200, tokens: 4, ..quick() }).await?;
    let begun = Instant::now();
    let mut response = chat(&server, true).send().await?;
    read_events(&mut response, 1).await?;
    assert!(begun.elapsed() >= latency / 4, "first after {:?}", begun.elapsed());
    assert!(response.text().await?.ends_with("[DONE]\n\n"));
    assert!(begun.elapsed() >= latency, "done after {:?}", begun.elapsed());

    let begun = Instant::now();
    chat(&server, false).send().await?.bytes().await?;
    assert!(begun.elapsed() >= latency, "whole after {:?}", begun.elapsed());
    Ok(())
}
