//! Answers as they should be when nothing is made to fail.

use anyhow::Context;
use mrgc_tests::model_server::{Config, ModelServer, filler_byte};
use serde_json::{Value, json};

use crate::support::{chat, control, events, get, quick, read_events, until};

#[tokio::test]
async fn a_plain_completion_is_whole_and_says_who_answered() -> anyhow::Result<()> {
    let server = ModelServer::start(Config { name: "blue".into(), ..quick() }).await?;
    let response = chat(&server, false).send().await?;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-served-by"], "blue");
    let completion: Value = response.json().await?;
    assert_eq!(completion["object"], "chat.completion");
    assert_eq!(completion["model"], "mock-model");
    assert_eq!(completion["choices"][0]["message"]["content"], "All that is ");
    assert_eq!(completion["usage"]["completion_tokens"], 3);
    assert_eq!(completion.get("received_headers"), None);
    Ok(())
}

#[tokio::test]
async fn a_stream_is_a_token_an_event_then_the_finish_then_done() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let response = chat(&server, true).send().await?;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let events = events(&response.text().await?)?;
    assert_eq!(events.len(), 5, "{events:?}");
    let chunks = events[..4]
        .iter()
        .map(|event| serde_json::from_str(event))
        .collect::<Result<Vec<Value>, _>>()?;
    let delta = |at: usize| &chunks[at]["choices"][0]["delta"];
    assert_eq!(*delta(0), json!({ "role": "assistant", "content": "All " }));
    assert_eq!(*delta(2), json!({ "content": "is " }));
    assert_eq!(*delta(3), json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
    assert_eq!(events[4], "[DONE]");
    Ok(())
}

#[tokio::test]
async fn a_held_stream_sends_its_second_event_only_once_released() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let mut response = chat(&server, true).header("x-mock-hold", "1").send().await?;
    let first = read_events(&mut response, 1).await?;
    assert_eq!(first.len(), 1, "{first:?}");
    let counters = server.counters();
    assert_eq!((counters.running, counters.completed), (1, 0));

    control(&server, json!({ "release": true })).await?;
    let rest = read_events(&mut response, 4).await?;
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(response.chunk().await?, None);
    until(&server, |counters| counters.completed == 1 && counters.running == 0).await?;
    Ok(())
}

#[tokio::test]
async fn the_request_headers_come_back_when_asked_for() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    for stream in [false, true] {
        let response = chat(&server, stream)
            .header("x-mock-echo", "1")
            .header("x-twice", "a")
            .header("x-twice", "b")
            .send()
            .await?;
        let text = response.text().await?;
        let answer: Value = serde_json::from_str(
            if stream { events(&text)?.swap_remove(0) } else { text }.as_str(),
        )?;
        assert_eq!(answer["received_headers"]["x-twice"], "a, b", "stream: {stream}");
    }
    Ok(())
}

#[tokio::test]
async fn filler_arrives_byte_for_byte() -> anyhow::Result<()> {
    const BYTES: u64 = 20_000_001;
    let server = ModelServer::start(quick()).await?;
    let mut response = chat(&server, false).header("x-mock-bytes", BYTES).send().await?;
    assert_eq!(response.content_length(), Some(BYTES));
    let mut offset = 0;
    while let Some(chunk) = response.chunk().await? {
        for byte in &chunk {
            assert_eq!(*byte, filler_byte(offset), "at {offset}");
            offset += 1;
        }
    }
    assert_eq!(offset, BYTES);
    until(&server, |counters| counters.completed == 1).await?;

    let body = json!({ "mock": { "bytes": 1 } });
    let url = format!("{}/v1/chat/completions", server.url());
    let response = reqwest::Client::new().post(url).json(&body).send().await?;
    assert_eq!(response.bytes().await?.as_ref(), [filler_byte(0)]);
    Ok(())
}

#[tokio::test]
async fn probes_and_metrics_answer_under_vllm_names() -> anyhow::Result<()> {
    let model = "name \"quoted\"";
    let server = ModelServer::start(Config { model: model.into(), ..quick() }).await?;
    let models: Value = serde_json::from_str(&get(&server, "/v1/models").await?)?;
    assert_eq!(models["data"][0]["id"], model);
    get(&server, "/health").await?;
    let url = format!("{}/v1/chat/completions", server.url());
    for stream in [false, true, true] {
        let body = json!({ "stream": stream });
        reqwest::Client::new().post(&url).json(&body).send().await?.bytes().await?;
    }
    until(&server, |counters| counters.completed == 3).await?;

    let page = get(&server, "/metrics").await?;
    let value = |series: &str| -> anyhow::Result<f64> {
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.with_context(|| format!("no {series} in\n{page}"))?;
        Ok(line.rsplit_once(' ').context("a line without a value")?.1.parse()?)
    };
    let label = r#"model_name="name \"quoted\"""#;
    assert_eq!(value(&format!("vllm:num_requests_running{{{label}}}"))?, 0.0);
    assert_eq!(value(&format!("vllm:num_requests_waiting{{{label}}}"))?, 0.0);
    for name in ["vllm:e2e_request_latency_seconds", "vllm:time_to_first_token_seconds"] {
        assert_eq!(value(&format!("{name}_count{{{label}}}"))?, 3.0);
        assert_eq!(value(&format!("{name}_bucket{{le=\"+Inf\",{label}}}"))?, 3.0);
        assert_eq!(value(&format!("{name}_bucket{{le=\"10.0\",{label}}}"))?, 3.0);
        assert!(value(&format!("{name}_sum{{{label}}}"))? > 0.0);
    }
    Ok(())
}

#[tokio::test]
async fn bad_requests_get_an_error_that_says_what_was_wrong() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let client = reqwest::Client::new();
    let completions = format!("{}/v1/chat/completions", server.url());
    let too_long = vec![b' '; 16 * 1024 * 1024 + 1];
    let cases = [
        (client.post(&completions).body("{\"model\":"), 400, "not a chat request"),
        (client.post(&completions).body("{\"model\":\"other\"}"), 404, "`other` does not exist"),
        (client.post(&completions).body("{\"mock\":{\"bytes\":0}}"), 400, "nonzero"),
        (chat(&server, false).header("x-mock-bytes", "many"), 400, "x-mock-bytes"),
        (chat(&server, false).header("x-mock-bytes", u64::MAX), 400, "must be at most"),
        (client.post(&completions).body(too_long), 413, "longer than"),
        (client.get(&completions), 405, "another method"),
        (client.get(format!("{}/nowhere", server.url())), 404, "/nowhere"),
        (client.post(format!("{}/control", server.url())).body("{\"x\":1}"), 400, "unknown field"),
    ];
    for (request, status, needle) in cases {
        let response = request.send().await?;
        assert_eq!(response.status(), status, "{needle}");
        assert_eq!(response.headers()["x-served-by"], "mock");
        let error: Value = response.json().await?;
        let message = error["error"]["message"].as_str().context("no message")?;
        assert!(message.contains(needle), "{message:?} lacks {needle:?}");
    }
    assert_eq!(server.counters().received, 0);
    Ok(())
}

#[tokio::test]
async fn a_stop_lets_what_runs_finish_and_a_drop_does_not() -> anyhow::Result<()> {
    let server = ModelServer::start(quick()).await?;
    let address = server.address();
    let mut response = chat(&server, true).header("x-mock-hold", "1").send().await?;
    read_events(&mut response, 1).await?;
    let (counters, rest) = tokio::join!(server.stop(), response.text());
    assert!(rest?.ends_with("[DONE]\n\n"));
    assert_eq!((counters.completed, counters.abandoned, counters.running), (1, 0, 0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());

    let server = ModelServer::start(quick()).await?;
    let mut response = chat(&server, true).header("x-mock-hold", "1").send().await?;
    read_events(&mut response, 1).await?;
    drop(server);
    assert!(response.text().await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_config_that_makes_no_sense_is_refused() {
    for config in [Config { slots: 0, ..quick() }, Config { name: "a\nb".into(), ..quick() }] {
        assert!(ModelServer::start(config.clone()).await.is_err(), "{config:?}");
    }
}
