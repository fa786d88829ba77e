#![allow(clippy::unwrap_used)]

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::signals::Status;

const PAGE: &str = "vllm:num_requests_waiting 2\nvllm:num_requests_running 1\n";

/// Serves the pages, and polls them once.
async fn poll(pages: Router) -> signals::Inference {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, pages).await });
    poll_at(url).await
}

async fn poll_at(url: String) -> signals::Inference {
    let config = config::Inference {
        url,
        required: true,
        poll_interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        latency_window: Duration::from_secs(30),
        silent_polls: 3,
    };
    Server::new(&config).unwrap().poll(Instant::now()).await
}

fn pages(metrics: &'static str, models: &'static str) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { metrics }))
        .route("/v1/models", get(move || async move { models }))
}

#[tokio::test]
async fn both_pages_are_read() {
    let poll = poll(pages(PAGE, r#"{"object":"list","data":[{"id":"m-1"},{"id":"m-2"}]}"#)).await;
    let load = poll.load.value.unwrap();
    assert_eq!((load.waiting, load.running), (Some(2), Some(1)));
    assert_eq!(poll.models.value.unwrap(), ["m-1", "m-2"]);
}

#[tokio::test]
async fn a_list_without_models_is_known_to_be_empty() {
    assert_eq!(poll(pages(PAGE, r#"{"data":[]}"#)).await.models.value, Some(vec![]));
}

#[tokio::test]
async fn garbled_pages_are_missing_with_a_reason() {
    let poll = poll(pages("\u{1}not metrics", "not json")).await;
    assert!(poll.is_silent());
    assert_eq!(poll.load.check.status, Status::Missing);
    assert_eq!(poll.models.check.status, Status::Missing);
    assert!(poll.models.check.reason.unwrap().starts_with("/v1/models is not a list of models"));
}

#[tokio::test]
async fn pages_that_are_too_large_are_refused() {
    let pages = Router::new()
        .route("/metrics", get(|| async { "x 1\n".repeat(MAX_METRICS_BYTES / 4 + 1) }))
        .route("/v1/models", get(|| async { " ".repeat(MAX_MODELS_BYTES + 1) }));
    let poll = poll(pages).await;
    for check in [poll.load.check, poll.models.check] {
        assert!(check.reason.as_ref().unwrap().contains("is larger than"), "{check:?}");
    }
}

#[tokio::test]
async fn error_codes_and_redirects_are_told() {
    let poll = poll(Router::new().route(
        "/metrics",
        get(|| async { axum::response::Redirect::temporary("http://example.com/") }),
    ))
    .await;
    assert!(poll.load.check.reason.unwrap().contains("answered 307"));
    assert!(poll.models.check.reason.unwrap().contains("answered 404"));
    assert!(poll.reachable);
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // The request is taken; then comes a head, and never the body that it promises.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
            open.push(stream);
        }
    });
    let poll = poll_at(url).await;
    assert!(poll.is_silent() && poll.reachable);
    let reason = poll.load.check.reason.unwrap();
    assert!(reason.ends_with("/metrics did not answer in time"), "{reason}");
}

#[tokio::test]
async fn where_nothing_listens_nothing_is_reachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let poll = poll_at(url).await;
    assert!(poll.is_silent() && !poll.reachable);
    assert!(poll.load.check.reason.unwrap().contains("is not reachable: Connection refused"));
}
