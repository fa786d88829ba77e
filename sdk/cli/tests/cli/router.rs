//! What asks a router, where none answers as one should. With real routers it is tested beside them.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{command, mrgc, said};

const EVERY: [&[&str]; 5] = [
    &["regions"],
    &["failover", "status"],
    &["failover", "history"],
    &["failover", "recover", "us-east-1", "--reason", "r", "--operator", "ada", "--yes"],
    &["instances", "check", "i-1"],
];

#[tokio::test]
async fn a_router_that_is_not_there_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for arguments in EVERY {
        let said = said(command().args(arguments).env("MRGC_ROUTER_URL", &url)).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{arguments:?}: {said:?}");
        let expected = format!("cannot ask the router at {url}/: check that it runs");
        assert!(said.err.contains(&expected), "{arguments:?}: {}", said.err);
    }
}

/// Answers each connection with these bytes and, where they are not whole, no more.
async fn answering(answer: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = connection.read(&mut [0; 4_096]).await;
                let _ = connection.write_all(&answer).await;
                let _ = connection.read(&mut [0; 1]).await;
            });
        }
    });
    (url, serving)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into()
}

#[tokio::test]
async fn what_is_no_router_is_told_from_one_that_refuses() {
    let problem = r#"{"type":"urn:x","title":"t","status":409,"detail":"\u001b[2Jnot now"}"#;
    for (answer, code, expected) in [
        (http("200 OK", "<html>"), 1, "is it an MRGC router's?"),
        (http("200 OK", "{}"), 1, "is it an MRGC router's?"),
        (http("404 Not Found", "nginx"), 1, "answers 404 Not Found: is it an MRGC router's"),
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), 1, "cannot ask the router"),
        (http("409 Conflict", problem), 1, "mrgc: \u{fffd}[2Jnot now"),
        (http("400 Bad Request", problem), 2, "mrgc: \u{fffd}[2Jnot now"),
    ] {
        let (url, serving) = answering(answer).await;
        let said = mrgc(&["failover", "status", "--router", &url]).await;
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(expected), "{expected:?} is not in {}", said.err);
        serving.abort();
    }
}

#[tokio::test]
async fn a_router_without_regions_is_told_from_an_empty_table() {
    let (url, serving) = answering(http("200 OK", "[]")).await;
    for arguments in [&["regions"][..], &["regions", "--json"]] {
        let said = said(command().args(arguments).args(["--router", &url])).await;
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
        assert!(said.err.starts_with("no region is registered: list them"), "{}", said.err);
    }
    serving.abort();
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4_096]).await;
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
        let chunk = vec![b' '; 1 << 20];
        while connection.write_all(&chunk).await.is_ok() {}
    });
    let said = mrgc(&["regions", "--router", &url]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("answers more than"), "{}", said.err);
    let ended = tokio::time::timeout(Duration::from_secs(30), serving).await;
    assert!(ended.is_ok(), "the connection stayed open");
}
