//! HTTP/1.1 byte by byte: the tests are the client and the upstream at once, so that each side speaks when
//! the other does not expect it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::PATIENCE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::support::{ANY_ROUTE, CHAT, Lone, Setup, model_server, raw};

/// Longer than a router keeps, so that it streams.
const UPLOAD_BYTES: usize = 2 << 20;

/// A router with one instance, whose part the test plays.
struct Stage {
    lone: Lone,
    instance: TcpListener,
}

impl Stage {
    async fn new() -> Result<Self> {
        let instance = TcpListener::bind("127.0.0.1:0").await?;
        let lone = Setup::new(ANY_ROUTE).instance("i-one", instance.local_addr()?).start().await?;
        Ok(Self { lone, instance })
    }

    async fn client(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.lone.router.data).await?)
    }

    /// The connection of the next request, its head read.
    async fn upstream(&self) -> Result<TcpStream> {
        let (mut stream, _) = timeout(PATIENCE, self.instance.accept()).await??;
        until(&mut stream, "\r\n\r\n").await?;
        Ok(stream)
    }

    /// A client and an upstream, in the middle of an upload whose response has begun.
    async fn mid_upload(&self) -> Result<(TcpStream, TcpStream)> {
        let mut client = self.client().await?;
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {UPLOAD_BYTES}\r\n\r\n");
        client.write_all(head.as_bytes()).await?;
        client.write_all(&vec![b'x'; UPLOAD_BYTES - 1]).await?;
        let mut upstream = self.upstream().await?;
        upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        until(&mut client, "\r\n\r\n").await?;
        Ok((client, upstream))
    }

    async fn is_at_rest(&self) -> Result<()> {
        self.lone.metric_is("mrgc_instance_in_flight", 0.0).await
    }
}

/// Reads up to these bytes, and gives all that came.
async fn until(stream: &mut TcpStream, end: &str) -> Result<String> {
    let mut read = Vec::new();
    let reading = async {
        while !read.windows(end.len()).any(|window| window == end.as_bytes()) {
            ensure!(stream.read_buf(&mut read).await? > 0, "it ends before {end:?}");
        }
        Ok(())
    };
    let done = timeout(PATIENCE, reading).await;
    let read = String::from_utf8_lossy(&read).into_owned();
    done.with_context(|| format!("no {end:?} in {read:?}"))??;
    Ok(read)
}

#[tokio::test]
async fn a_response_that_begins_before_its_request_has_ended_comes_whole() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut client, mut upstream) = stage.mid_upload().await?;
    upstream.write_all(b"6\r\nfirst,\r\n").await?;
    until(&mut client, "first,").await?;
    client.write_all(b"!").await?;
    until(&mut upstream, "!").await?;
    // Only now, long after the request has ended.
    tokio::time::sleep(Duration::from_millis(50)).await;
    upstream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await?;
    until(&mut client, "second\r\n0\r\n\r\n").await?;
    stage.is_at_rest().await
}

#[tokio::test]
async fn whoever_goes_away_in_the_middle_of_an_upload_frees_what_it_held() -> Result<()> {
    let stage = Stage::new().await?;
    let (client, mut upstream) = stage.mid_upload().await?;
    drop(client);
    stage.is_at_rest().await?;
    let mut rest = Vec::new();
    timeout(PATIENCE, upstream.read_to_end(&mut rest)).await.context("it stays open")?.ok();

    let (mut client, upstream) = stage.mid_upload().await?;
    drop(upstream);
    stage.is_at_rest().await?;
    let mut rest = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut rest)).await.context("it stays open")?.ok();
    ensure!(!rest.ends_with(b"0\r\n\r\n"), "what broke off looks whole");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_wants_no_more_of_the_request_is_told_at_once() -> Result<()> {
    let stage = Stage::new().await?;
    let mut client = stage.client().await?;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    client.write_all(format!("{UPLOAD_BYTES:x}\r\n").as_bytes()).await?;
    client.write_all(&vec![b'x'; UPLOAD_BYTES]).await?;
    let mut upstream = stage.upstream().await?;
    let answer =
        "HTTP/1.1 413 Content Too Large\r\ntransfer-encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n";
    upstream.write_all(answer.as_bytes()).await?;
    let told = until(&mut client, "3\r\nbig\r\n0\r\n\r\n").await?;
    ensure!(told.starts_with("HTTP/1.1 413") && told.contains("connection: close"), "{told}");
    stage.is_at_rest().await
}

#[tokio::test]
async fn what_announces_an_answer_is_not_the_answer() -> Result<()> {
    let stage = Stage::new().await?;
    let mut client = stage.client().await?;
    client.write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut upstream = stage.upstream().await?;
    upstream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Co").await?;
    upstream
        .write_all(b"ntinue\r\n\r\nHTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n")
        .await?;
    let told = until(&mut client, "\r\n\r\n").await?;
    ensure!(told.starts_with("HTTP/1.1 204") && !told.contains("content-length"), "{told}");
    // The same connection serves the next one.
    client.write_all(b"HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    until(&mut upstream, "\r\n\r\n").await?;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await?;
    let told = until(&mut client, "\r\n\r\n").await?;
    ensure!(told.contains("content-length: 5"), "{told}");
    stage.is_at_rest().await
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_reach_nobody() -> Result<()> {
    let stage = Stage::new().await?;
    let mut client = stage.client().await?;
    let ask = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";
    client.write_all(ask).await?;
    let mut upstream = stage.upstream().await?;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    upstream.write_all(answer.as_bytes()).await?;
    until(&mut client, "\r\n\r\nok").await?;
    client.write_all(ask).await?;
    // Over another connection.
    let mut upstream = stage.upstream().await?;
    upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await?;
    let told = until(&mut client, "good").await?;
    ensure!(!told.contains("evil"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_waits_for_the_word_to_go_on_gets_it() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let mut client = TcpStream::connect(lone.router.data).await?;
    let body = crate::support::chat_body(crate::support::MODEL, false).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    for _ in 0..2 {
        client.write_all(head.as_bytes()).await?;
        let word = until(&mut client, "\r\n\r\n").await?;
        assert_eq!(word, "HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(body.as_bytes()).await?;
        let told = until(&mut client, "chat.completion").await?;
        ensure!(told.starts_with("HTTP/1.1 200"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() -> Result<()> {
    let server = model_server("one").await?;
    let lone = Setup::new(ANY_ROUTE).instance("i-one", server.address()).start().await?;
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let all =
        get("/health", "") + &get("/nowhere", "") + &get("/v1/models", "connection: close\r\n");
    let answers = raw(lone.router.data, all.as_bytes()).await?;
    let codes: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .filter_map(|answer| answer.get(..3).filter(|code| code.starts_with(['2', '4'])))
        .collect();
    assert_eq!(codes, ["200", "404", "200"], "{answers}");
    Ok(())
}

#[tokio::test]
async fn a_connection_that_never_said_anything_does_not_hold_a_router_up() -> Result<()> {
    let server = model_server("one").await?;
    let setup = Setup::new(&format!("{ANY_ROUTE}[limits]\ndrain_seconds = 600\n"));
    let mut lone = setup.instance("i-one", server.address()).start().await?;
    let _silent = TcpStream::connect(lone.router.data).await?;
    let mut begun = TcpStream::connect(lone.router.data).await?;
    begun.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    until(&mut begun, "\r\n\r\n").await?;
    lone.router.program.signal("TERM").await?;
    let ended = timeout(PATIENCE, lone.router.program.ended()).await.context("it waits")??;
    assert_eq!(ended.code(), Some(0));
    Ok(())
}
