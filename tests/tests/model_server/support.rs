//! What these tests share.

use std::time::Duration;

use anyhow::Context;
use mrgc_tests::model_server::{Config, Counters, Failure, ModelServer};
use serde_json::{Value, json};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(2);

pub(crate) fn quick() -> Config {
    Config { latency_ms: 0, tokens: 3, ..Config::default() }
}

pub(crate) async fn failing(failure: Failure) -> anyhow::Result<ModelServer> {
    ModelServer::start(Config { failure, ..quick() }).await
}

/// A completion request, to which headers can still be added.
pub(crate) fn chat(server: &ModelServer, stream: bool) -> reqwest::RequestBuilder {
    let messages = json!([{ "role": "user", "content": "hello" }]);
    let body = json!({ "model": "mock-model", "messages": messages, "stream": stream });
    reqwest::Client::new().post(format!("{}/v1/chat/completions", server.url())).json(&body)
}

pub(crate) async fn control(server: &ModelServer, change: Value) -> anyhow::Result<Value> {
    let url = format!("{}/control", server.url());
    let response = reqwest::Client::new().post(url).json(&change).send().await?;
    Ok(response.error_for_status()?.json().await?)
}

pub(crate) async fn get(server: &ModelServer, path: &str) -> anyhow::Result<String> {
    let response = reqwest::get(format!("{}{path}", server.url())).await?;
    Ok(response.error_for_status()?.text().await?)
}

/// Polls the counters until they are as wanted.
pub(crate) async fn until(
    server: &ModelServer,
    wanted: impl Fn(Counters) -> bool,
) -> anyhow::Result<Counters> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let counters = server.counters();
        if wanted(counters) {
            return Ok(counters);
        }
        anyhow::ensure!(Instant::now() < deadline, "still {counters:?} after {DEADLINE:?}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Reads until `wanted` events have come, and gives all that has come.
pub(crate) async fn read_events(
    response: &mut reqwest::Response,
    wanted: usize,
) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    while text.matches("\n\n").count() < wanted {
        let chunk = tokio::time::timeout(DEADLINE, response.chunk()).await??;
        text.push_str(std::str::from_utf8(&chunk.context("the stream ended early")?)?);
    }
    events(&text)
}

pub(crate) fn events(text: &str) -> anyhow::Result<Vec<String>> {
    text.split_terminator("\n\n")
        .map(|event| Ok(event.strip_prefix("data: ").context("an event without data")?.to_owned()))
        .collect()
}
