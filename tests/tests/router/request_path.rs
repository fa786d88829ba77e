//! A request that goes well, over HTTP/1.1 and HTTP/2: what the client gets, when it gets it, and what
//! the upstream sees of it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use mrgc_tests::{
    cluster::{PATIENCE, eventually},
    policies,
};
use serde_json::Value;

use crate::support::{
    ANY_ROUTE, CHAT, Lone, MODEL, PolicyFolder, Scripted, Setup, chat_body, counters, h2, header,
    in_time, model_server, problem, raw, until_events,
};

/// What [`model_server`] streams: three tokens, the finish, and `[DONE]`.
const EVENTS: usize = 5;

fn h2_chat(lone: &Lone, stream: bool) -> Result<http::Request<Full<Bytes>>> {
    let body = chat_body(MODEL, stream).to_string();
    Ok(http::Request::post(lone.router.data_url(CHAT))
        .header("content-type", "application/json")
        .body(Full::from(body))?)
}

#[tokio::test]
async fn answers_come_plain_and_streamed_over_http1_and_http2_with_our_headers() -> Result<()> {
    let server = model_server("one").await?;
    let folder = PolicyFolder::new(&[("score", &policies::stock_component("score")?)])?;
    let route = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\" }]";
    let lone = Setup::new(route)
        .instance("i-one", server.address())
        .policies(folder.path())
        .start()
        .await?;
    let mut connection = h2(lone.router.data).await?;
    let mut decisions = Vec::new();
    for stream in [false, true] {
        let over_1 = lone.chat(stream).send().await?;
        ensure!(over_1.version() == http::Version::HTTP_11 && over_1.status() == 200, "{over_1:?}");
        let headers_1 = over_1.headers().clone();
        let body_1 = over_1.bytes().await?;
        let over_2 = connection.send_request(h2_chat(&lone, stream)?).await?;
        ensure!(over_2.version() == http::Version::HTTP_2 && over_2.status() == 200, "{over_2:?}");
        let headers_2 = over_2.headers().clone();
        let body_2 = in_time("the body", over_2.collect()).await??.to_bytes();
        for (headers, body) in [(headers_1, body_1), (headers_2, body_2)] {
            assert_eq!(header(&headers, "x-mrgc-instance")?, "i-one");
            assert_eq!(header(&headers, "x-mrgc-region")?, "us-east-1");
            assert_eq!(header(&headers, "x-mrgc-attempts")?, "1");
            assert_eq!(header(&headers, "x-mrgc-policies")?, "score@0");
            assert_eq!(header(&headers, "x-served-by")?, "one");
            decisions.push(header(&headers, "x-mrgc-decision")?.to_owned());
            check_completion(&headers, &body, stream)?;
        }
    }
    decisions.sort();
    decisions.dedup();
    assert_eq!(decisions.len(), 4, "a decision's id is its own: {decisions:?}");
    assert_eq!(server.counters().completed, 4);
    Ok(())
}

fn check_completion(headers: &http::HeaderMap, body: &[u8], stream: bool) -> Result<()> {
    if stream {
        ensure!(header(headers, "content-type")?.starts_with("text/event-stream"));
        let text = std::str::from_utf8(body)?;
        assert_eq!(text.matches("data: ").count(), EVENTS, "{text}");
        ensure!(text.ends_with("data: [DONE]\n\n"), "{text}");
    } else {
        let completion: Value = serde_json::from_slice(body)?;
        assert_eq!(completion["choices"][0]["message"]["content"], "All that is ");
    }
    Ok(())
}

#[tokio::test]
async fn the_first_event_arrives_before_the_upstream_sends_the_second() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;

    let mut response = lone.chat(true).header("x-mock-hold", "1").send().await?;
    let first = until_events(&mut response, 1).await?;
    assert_eq!(first.len(), 1, "the second is held back: {first:?}");
    assert_eq!(server.counters().running, 1);
    server.release();
    let rest = until_events(&mut response, EVENTS - 1).await?;
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(response.chunk().await?, None);

    let mut connection = h2(lone.router.data).await?;
    let mut request = h2_chat(&lone, true)?;
    request.headers_mut().insert("x-mock-hold", http::HeaderValue::from_static("1"));
    let mut response = connection.send_request(request).await?;
    let first = in_time("the first event", response.frame()).await?.context("no frame")??;
    assert_eq!(first.data_ref().map(|data| data.ends_with(b"\n\n")), Some(true));
    assert_eq!(server.counters().running, 1);
    server.release();
    let rest = in_time("the rest", response.collect()).await??.to_bytes();
    ensure!(rest.ends_with(b"data: [DONE]\n\n"), "{rest:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_a_stream_frees_what_it_held() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    lone.chat(true).send().await?.bytes().await?;
    assert_eq!(lone.metric("mrgc_router_client_gone_total").await?, 0.0, "that one stayed");

    let mut response = lone.chat(true).header("x-mock-hold", "1").send().await?;
    until_events(&mut response, 1).await?;
    lone.metric_is("mrgc_instance_in_flight", 1.0).await?;
    drop(response);
    counters(&server, "the upstream notices", |c| c.abandoned == 1 && c.running == 0).await?;
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    lone.metric_is("mrgc_router_client_gone_total", 1.0).await?;

    // Over HTTP/2 a stream is reset and its connection goes on.
    let mut connection = h2(lone.router.data).await?;
    let mut request = h2_chat(&lone, true)?;
    request.headers_mut().insert("x-mock-hold", http::HeaderValue::from_static("1"));
    let mut response = connection.send_request(request).await?;
    in_time("the first event", response.frame()).await?.context("no frame")??;
    drop(response);
    counters(&server, "the upstream notices", |c| c.abandoned == 2 && c.running == 0).await?;
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    lone.metric_is("mrgc_router_client_gone_total", 2.0).await?;
    let after = connection.send_request(h2_chat(&lone, false)?).await?;
    assert_eq!(after.status(), 200);
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_answer_frees_what_it_held() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let waiting = tokio::spawn(lone.chat(false).header("x-mock-hold", "1").send());
    counters(&server, "the request arrives", |c| c.running == 1).await?;
    lone.metric_is("mrgc_instance_in_flight", 1.0).await?;
    waiting.abort();
    counters(&server, "the upstream notices", |c| c.abandoned == 1 && c.running == 0).await?;
    lone.metric_is("mrgc_instance_in_flight", 0.0).await?;
    lone.metric_is("mrgc_router_client_gone_total", 1.0).await?;
    assert_eq!(lone.chat(false).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn an_upstream_sees_none_of_our_headers_nor_those_of_a_connection() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let request = lone
        .chat(false)
        .header("x-mock-echo", "1")
        .header("authorization", "Bearer client's own")
        .header("x-request-id", "kept")
        .header("x-mrgc-session", "s")
        .header("x-mrgc-priority", "5")
        .header("x-mrgc-origin", "52.5,13.4")
        .header("x-mrgc-hop", "{\"regions_tried\":[\"us-east-1\"]}")
        .header("x-mrgc-made-up", "1")
        .header("connection", "x-of-this-hop, keep-alive")
        .header("x-of-this-hop", "1")
        .header("proxy-connection", "keep-alive")
        .header("te", "trailers");
    let completion: Value = request.send().await?.error_for_status()?.json().await?;
    let received = completion["received_headers"].as_object().context("no echo")?;
    assert_eq!(received["authorization"], "Bearer client's own");
    assert_eq!(received["x-request-id"], "kept");
    let private =
        ["x-mrgc-", "x-of-this-hop", "proxy-connection", "keep-alive", "te", "connection"];
    for name in received.keys() {
        let is_private =
            private.iter().any(|p| name == p || (p.ends_with('-') && name.starts_with(p)));
        ensure!(!is_private, "{name} reached the upstream: {received:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_upstream_cannot_speak_for_the_router() -> Result<()> {
    let upstream = Scripted::start(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-mrgc-instance: i-other\r\nx-mrgc-decision: d\r\n\
         x-mrgc-no-capacity: 1\r\nx-mrgc-made-up: 1\r\nconnection: close, x-of-this-hop\r\n\
         x-of-this-hop: 1\r\nx-own: kept\r\n\r\nok",
    )
    .await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", upstream.address).start().await?;
    let response = lone.chat(false).send().await?;
    let headers = response.headers();
    assert_eq!(header(headers, "x-mrgc-instance")?, "i-one");
    assert_eq!(header(headers, "x-own")?, "kept");
    ensure!(header(headers, "x-mrgc-decision")? != "d");
    for name in ["x-mrgc-no-capacity", "x-mrgc-made-up", "x-of-this-hop"] {
        ensure!(!headers.contains_key(name), "{name} reached the client: {headers:?}");
    }
    assert_eq!(response.text().await?, "ok");
    Ok(())
}

#[tokio::test]
async fn a_client_that_claims_to_be_a_router_needs_the_key() -> Result<()> {
    let server = model_server("one").await?;
    for peers in ["", "[peers]\nkey = \"a-key-of-this-test-only\""] {
        let setup = Setup::new(&format!("{ANY_ROUTE}{peers}"));
        let lone = setup.instance("i-one", server.address()).start().await?;
        let claim =
            lone.chat(false).header("x-mrgc-peer-key", "guessed").header("x-mrgc-hop", "{}");
        problem(claim.send().await?, 403, "wrong-key").await?;
        let claim = lone.chat(false).header("x-mrgc-peer-key", "");
        problem(claim.send().await?, 403, "wrong-key").await?;
        assert_eq!(server.counters().received, 0);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_completion_is_forwarded_too() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let models = lone.client.get(lone.router.data_url("/v1/models?limit=1")).send().await?;
    assert_eq!(header(models.headers(), "x-served-by")?, "one");
    assert_eq!(models.json::<Value>().await?["data"][0]["id"], MODEL);
    let nothing = lone.client.get(lone.router.data_url("/nowhere")).send().await?;
    assert_eq!(nothing.status(), 404);
    ensure!(
        nothing.text().await?.contains("there is nothing at /nowhere"),
        "the upstream's own words"
    );
    // Over HTTP/1.0, and without a Host header.
    let old = raw(lone.router.data, b"GET /v1/models HTTP/1.0\r\n\r\n").await?;
    ensure!(old.starts_with("HTTP/1.0 200") && old.contains(MODEL), "{old}");
    Ok(())
}

#[tokio::test]
async fn health_is_the_routers_own() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let response = lone.client.get(lone.router.data_url("/health")).send().await?;
    assert_eq!(response.status(), 200);
    let health: Value = response.json().await?;
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["region"], "us-east-1");
    assert_eq!(health["checks"]["fleet"]["status"], "ok");
    Ok(())
}

#[tokio::test]
async fn a_router_that_is_told_to_stop_ends_its_streams_first() -> Result<()> {
    let server = model_server("one").await?;
    let mut lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let mut response = lone.chat(true).header("x-mock-hold", "1").send().await?;
    until_events(&mut response, 1).await?;
    lone.router.program.signal("TERM").await?;
    eventually("it drains", PATIENCE, || async {
        Ok(lone.router.program.log().contains("draining").then_some(()))
    })
    .await?;
    server.release();
    let rest = until_events(&mut response, EVENTS - 1).await?;
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
    drop(response);
    assert_eq!(lone.router.program.ended().await?.code(), Some(0));
    Ok(())
}
