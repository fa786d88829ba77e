//! The agent's face: `GET /health` and `GET /metrics` out of the latest snapshot, and `GET /livez`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time,
};

use crate::{answer::Answer, metrics, state::Snapshot};

/// Probers and people, many times over.
const MAX_CONNECTIONS: usize = 256;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_HEAD_BYTES: usize = 16 << 10;

/// After a failed accept: most often the process is out of file descriptors for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Snapshots = watch::Receiver<Arc<Snapshot>>;

/// Answers on the listener for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, snapshots: Snapshots) {
    let router = Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(snapshots);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refused = AtomicU64::new(0);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            let refused = refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                tracing::warn!(refused, "closed a connection: {MAX_CONNECTIONS} are open");
            }
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            serve_connection(stream, router).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

async fn health(State(snapshots): State<Snapshots>) -> Response {
    let snapshot = Arc::clone(&snapshots.borrow());
    let code = if snapshot.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_vec(&Answer::of(&snapshot)) {
        Ok(body) => answer(code, "application/json", body),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn livez() -> Response {
    answer(StatusCode::OK, "application/json", br#"{"status":"alive"}"#.to_vec())
}

async fn metrics(State(snapshots): State<Snapshots>) -> Response {
    let snapshot = Arc::clone(&snapshots.borrow());
    answer(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(&snapshot).into_bytes())
}

async fn not_found(uri: Uri) -> Response {
    let detail =
        format!("there is nothing at {}; there are /health, /livez and /metrics", uri.path());
    problem(StatusCode::NOT_FOUND, &detail)
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let detail = format!("{} does not take {method}; use GET", uri.path());
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// RFC 9457.
fn problem(code: StatusCode, detail: &str) -> Response {
    let title = code.canonical_reason().unwrap_or("Error");
    let body =
        json!({ "type": "about:blank", "title": title, "status": code.as_u16(), "detail": detail });
    answer(code, "application/problem+json", body.to_string().into_bytes())
}

fn answer(code: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
