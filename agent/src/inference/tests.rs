#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use axum::{Router, http::Uri, routing::any};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::signals::Status;

const VLLM: &str = "vllm:num_requests_waiting 2\nvllm:num_requests_running 1\n";
const LLAMA_CPP: &str = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 0\n";
const MODELS: &str = r#"{"object":"list","data":[{"id":"m-1"},{"id":"m-2"}]}"#;

type Pages = Arc<Mutex<Vec<(&'static str, u16, String)>>>;

/// A server with these pages and no others.
struct Served {
    url: String,
    port: u16,
    pages: Pages,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(pages: &[(&'static str, u16, &str)]) -> Self {
        Self::start_at(0, pages).await
    }

    async fn start_at(port: u16, pages: &[(&'static str, u16, &str)]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}");
        let served = Pages::default();
        let pages_of_task = Arc::clone(&served);
        let page = any(async move |uri: Uri| {
            let pages = pages_of_task.lock().unwrap();
            let found = pages.iter().find(|(path, ..)| *path == uri.path());
            let (code, body) =
                found.map_or((404, String::new()), |(_, code, body)| (*code, body.clone()));
            (StatusCode::from_u16(code).unwrap(), body)
        });
        let task = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback_service(page)).await.unwrap();
        });
        let it = Self { url, port, pages: served, task };
        it.show(pages);
        it
    }

    fn show(&self, pages: &[(&'static str, u16, &str)]) {
        let pages = pages.iter().map(|(path, code, body)| (*path, *code, (*body).to_owned()));
        *self.pages.lock().unwrap() = pages.collect();
    }

    async fn stop(self) -> u16 {
        self.task.abort();
        let _ = self.task.await;
        self.port
    }
}

fn poller(kind: Kind, url: Option<&str>, ports: &[u16]) -> Poller {
    poller_beside(1, kind, url, ports)
}

/// Of an agent that listens on this port.
fn poller_beside(own_port: u16, kind: Kind, url: Option<&str>, ports: &[u16]) -> Poller {
    let config = config::Inference {
        source: InferenceSource::Poll(Box::new(InferenceTarget {
            kind,
            url: url.map(str::to_owned),
            metrics_url: None,
            ports: ports.to_vec(),
            metrics: None,
        })),
        required: true,
        poll_interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        latency_window: Duration::from_secs(30),
        silent_polls: 3,
    };
    Poller::new(&config, own_port).unwrap().unwrap()
}

async fn poll(kind: Kind, url: &str) -> signals::Inference {
    poller(kind, Some(url), &[]).poll(Duration::ZERO).await
}

async fn poll_pages(kind: Kind, pages: &[(&'static str, u16, &str)]) -> signals::Inference {
    poll(kind, &Served::start(pages).await.url).await
}

fn waiting(poll: &signals::Inference) -> Option<u32> {
    poll.load.value.as_ref().and_then(|load| load.waiting)
}

#[tokio::test]
async fn load_and_models_are_read() {
    let pages = [("/metrics", 200, VLLM), ("/v1/models", 200, MODELS)];
    let poll = poll_pages(Kind::Auto, &pages).await;
    assert_eq!((poll.server, waiting(&poll)), (Some("vLLM"), Some(2)));
    assert_eq!(poll.models.value.unwrap(), ["m-1", "m-2"]);
    let none = [("/metrics", 200, VLLM), ("/v1/models", 200, r#"{"data":[]}"#)];
    assert_eq!(poll_pages(Kind::Auto, &none).await.models, Reading::ok(vec![]));
}

#[tokio::test]
async fn a_model_that_is_not_ready_is_none() {
    for (code, expected) in [(200, 2), (404, 2), (503, 0), (400, 0), (500, 0)] {
        let pages = [("/metrics", 200, VLLM), ("/v1/models", 200, MODELS), ("/health", code, "")];
        let poll = poll_pages(Kind::Vllm, &pages).await;
        assert_eq!(poll.models.value.unwrap().len(), expected, "{code}");
        let is_error = poll.models.check.status == Status::Error;
        assert_eq!(is_error, expected == 0, "{code}: {:?}", poll.models.check);
    }
}

#[tokio::test]
async fn servers_are_told_apart_by_their_pages() {
    for (pages, expected) in [
        (&[("/metrics", 200, "sglang:num_queue_reqs 0\n")][..], "SGLang"),
        (&[("/v1/metrics", 200, "num_requests_waiting 0\n")], "NIM"),
        (&[("/v1/metrics", 200, VLLM)], "NIM"),
        (
            &[
                ("/metrics", 200, "[]"),
                ("/prometheus/metrics", 200, "trtllm_num_requests_waiting 0\n"),
            ],
            "TensorRT-LLM",
        ),
        (&[("/v1/models", 200, r#"{"data":[{"id":"m","owned_by":"llamacpp"}]}"#)], "llama.cpp"),
        (&[("/v1/models", 200, r#"{"data":[{"id":"m","owned_by":"sglang"}]}"#)], "SGLang"),
        (&[("/info", 200, r#"{"model_id":"m","sha":null}"#)], "TGI"),
        (&[("/api/ps", 200, r#"{"models":[]}"#)], "Ollama"),
        (&[("/v2", 200, r#"{"name":"triton","version":"2.61.0"}"#)], "Triton"),
        (&[("/-/routes", 200, r#"{"/":"app"}"#)], "Ray Serve"),
    ] {
        let poll = poll_pages(Kind::Auto, pages).await;
        assert_eq!(poll.server, Some(expected), "{pages:?}");
    }
    let poll =
        poll_pages(Kind::Auto, &[("/metrics", 200, "up 1\n"), ("/v1/models", 200, MODELS)]).await;
    assert_eq!((poll.server, poll.load.value, poll.reachable), (None, None, true));
    assert!(poll.load.check.reason.unwrap().starts_with("cannot tell which inference server"));
    assert_eq!(poll.models.value.unwrap().len(), 2, "its models are known all the same");
}

#[tokio::test]
async fn a_server_is_found_again_elsewhere() {
    let pages = [("/metrics", 200, VLLM), ("/v1/models", 200, MODELS)];
    let (first, second) = (Served::start(&pages).await, Served::start(&[]).await);
    let mut poller = poller(Kind::Auto, None, &[first.port, second.port]);
    let mut polls = Vec::new();
    for second_of_life in 0..3 {
        polls.push(poller.poll(Duration::from_secs(second_of_life)).await.server);
    }
    assert_eq!(polls, [Some("vLLM"); 3]);

    let port = first.stop().await;
    let poll = poller.poll(Duration::from_secs(3)).await;
    assert!(!poll.reachable && poll.is_silent());
    second.show(&[("/metrics", 200, LLAMA_CPP)]);
    assert_eq!(poller.poll(Duration::from_secs(4)).await.server, Some("llama.cpp"));
    // It stays with what it has found while that answers.
    let again = Served::start_at(port, &pages).await;
    assert_eq!(poller.poll(Duration::from_secs(5)).await.server, Some("llama.cpp"));
    // Another server comes up where the one was, which has no metrics any more.
    second.show(&[("/metrics", 200, "up 1\n")]);
    poller.poll(Duration::from_secs(6)).await;
    assert_eq!(poller.poll(Duration::from_secs(7)).await.server, Some("vLLM"));
    drop(again);
}

#[tokio::test]
async fn the_agents_own_port_is_left_alone() {
    let it = Served::start(&[("/metrics", 200, VLLM)]).await;
    let mut poller = poller_beside(it.port, Kind::Auto, None, &[it.port]);
    let poll = poller.poll(Duration::ZERO).await;
    assert_eq!((poll.server, poll.reachable), (None, false));
    // Ray's metrics are where the agent listens by default.
    let routes = Served::start(&[("/-/routes", 200, r#"{"/":"app"}"#)]).await;
    let mut poller = poller_beside(8080, Kind::RayServe, Some(&routes.url), &[]);
    let poll = poller.poll(Duration::ZERO).await;
    assert!(poll.load.check.reason.unwrap().contains("port 8080 is the agent's own"));
    assert_eq!(poll.models.value.unwrap(), ["app"]);
}

#[tokio::test]
async fn servers_without_metrics_are_asked_otherwise() {
    let slots =
        |text| [("/metrics", 501, "{}"), ("/slots", 200, text), ("/v1/models", 200, MODELS)];
    for (text, running) in [
        (r#"[{"id":0,"is_processing":true},{"id":1,"is_processing":false}]"#, Some(1)),
        (r#"[{"id":0,"state":1},{"id":1,"state":1}]"#, Some(2)),
        ("[]", Some(0)),
        (r#"[{"id":0}]"#, None),
        ("{}", None),
    ] {
        let load = poll_pages(Kind::LlamaCpp, &slots(text)).await.load;
        let found = load.value.map(|load| (load.running, load.waiting));
        assert_eq!(found, running.map(|running| (Some(running), None)), "{text}");
    }
    let tags = r#"{"models":[{"name":"a"},{"name":"b"}]}"#;
    let pages = [("/api/ps", 200, r#"{"models":[{"name":"b"}]}"#), ("/api/tags", 200, tags)];
    let poll = poll_pages(Kind::Ollama, &pages).await;
    assert_eq!(poll.models.value.unwrap(), ["b", "a"], "loaded models first");
    assert_eq!(poll.load.value, Some(Load::default()));
    assert!(poll_pages(Kind::Ollama, &[]).await.is_silent());
}

#[tokio::test]
async fn bad_pages_are_told() {
    let garbage = "\u{1}\u{0}not metrics\n".repeat(3);
    let line = format!("x{{a=\"{}\"}} 1\n", "b".repeat(1_000));
    let large = line.repeat(http::MAX_METRICS_BYTES / line.len() + 1);
    for (code, page, told) in [
        (200, garbage.as_str(), "none of the metrics of vLLM is among the 3 lines"),
        (200, large.as_str(), "/metrics is larger than 4194304 bytes"),
        (307, "", "/metrics answered 307"),
        (500, "", "/metrics answered 500"),
    ] {
        let pages = [("/metrics", code, page), ("/v1/models", 200, "not json")];
        let poll = poll_pages(Kind::Vllm, &pages).await;
        assert!(poll.is_silent() && poll.reachable, "{told}");
        let reason = poll.load.check.reason.unwrap();
        assert!(reason.contains(told), "{reason}");
        let reason = poll.models.check.reason.unwrap();
        assert!(reason.contains("/v1/models is not what it should be: "), "{reason}");
    }
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
    for kind in [Kind::Vllm, Kind::Auto] {
        let poll = poll(kind, &url).await;
        assert!(poll.is_silent() && poll.reachable);
        let reason = poll.load.check.reason.unwrap();
        assert!(reason.ends_with("/metrics did not answer in time"), "{reason}");
    }
}

#[tokio::test]
async fn half_a_page_is_none() {
    for head in ["content-length: 900\r\n", "transfer-encoding: chunked\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n2e\r\n{VLLM}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let poll = poll(Kind::Vllm, &url).await;
        assert_eq!(poll.load.value, None, "{head}");
        let reason = poll.load.check.reason.unwrap();
        assert!(reason.contains("/metrics broke off: "), "{reason}");
    }
}

#[tokio::test]
async fn where_nothing_listens_nothing_is_reachable() {
    let port = Served::start(&[]).await.stop().await;
    let url = format!("http://127.0.0.1:{port}");
    for kind in [Kind::Vllm, Kind::Auto] {
        let poll = poll(kind, &url).await;
        assert!(poll.is_silent() && !poll.reachable);
        assert!(poll.load.check.reason.unwrap().contains("is not reachable: Connection refused"));
    }
    let poll = poller(Kind::Auto, None, &[port]).poll(Duration::ZERO).await;
    assert!(poll.is_silent() && !poll.reachable);
    let reason = poll.load.check.reason.unwrap();
    assert_eq!(reason, format!("no inference server answers on the ports {port}"));
}

#[tokio::test]
async fn the_models_load_is_timed() {
    let loading = [("/metrics", 503, ""), ("/v1/models", 200, MODELS), ("/health", 503, "")];
    let it = Served::start(&loading).await;
    let mut poller = poller(Kind::LlamaCpp, Some(&it.url), &[]);
    let poll = poller.poll(Duration::from_secs(10)).await;
    assert_eq!((poll.models.value.unwrap().len(), poll.model_load_ms), (0, None));
    it.show(&[("/metrics", 200, LLAMA_CPP), ("/v1/models", 200, MODELS), ("/health", 200, "")]);
    let poll = poller.poll(Duration::from_secs(52)).await;
    assert_eq!((poll.models.value.unwrap().len(), poll.model_load_ms), (2, Some(42_000)));
}
