//! The agent's face, out of the latest snapshot.
//!
//! | path | for | answers |
//! |---|---|---|
//! | `/health` | load balancers, routers, monitors | 200 while requests may come, else 503; a few fields that stay |
//! | `/health?detail` | people, `mrgc-agent check` | the same code, and all that is known |
//! | `/readyz` | what waits for a start | 200 once the machine was sampled and the fleet told, or the store is silent |
//! | `/livez` | what restarts a hung agent | 200 while the process answers |
//! | `/metrics` | Prometheus | the text format |
//! | `POST /attestation` | routers | the enclave's document over their nonce, which they verify |
//! | `POST /drain`, `/undrain`, `/clean` | `mrgc-agent drain` and the others, on this machine | where that leads |
//! | `POST /report` | an inference server on this machine that says itself how it is | 204 |
//!
//! Another query than `?detail` is a 400: a prober that asks for what is not there should learn so at its first try.
//! Each page is written once for a snapshot, however often it is asked for.

mod attestation;
mod orders;
mod page;
mod reports;
mod request;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time,
};

use self::page::Page;
use crate::{
    answer::{Brief, Detail, Readiness},
    enclave::relay::Relay,
    inference::push::Inbox,
    metrics,
    process::Process,
    state::{Event, Snapshot},
};

/// Probers and people, many times over.
const MAX_CONNECTIONS: usize = 256;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

const MAX_HEAD_BYTES: usize = 16 << 10;

const JSON: &str = "application/json";

/// After a failed accept: most often the process is out of file descriptors for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All that can be asked for.
struct Faces {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    brief: Page,
    detail: Page,
    metrics: Page,
    /// Connections that were closed at once, since too many were open.
    refused: AtomicU64,
}

impl Faces {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }
}

/// Answers on the listener for as long as it is polled.
pub(crate) async fn serve(
    listener: TcpListener,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: Option<Inbox>,
    relay: Relay,
    events: mpsc::Sender<Event>,
) {
    let own_ip = listener.local_addr().ok().map(|own| own.ip());
    let attestation = attestation::route(relay, snapshots.clone());
    let faces = Arc::new(Faces {
        snapshots,
        brief: Page::default(),
        detail: Page::default(),
        metrics: Page::default(),
        refused: AtomicU64::new(0),
    });
    let router = Router::new()
        .route("/health", get(health))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(request::from_here(own_ip, reports::route(reports).merge(orders::routes(events))))
        .merge(attestation)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(Arc::clone(&faces));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            let refused = faces.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                tracing::warn!(refused, "closed a connection: {MAX_CONNECTIONS} are open");
            }
            continue;
        };
        let router = router.clone().layer(Extension(peer));
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

async fn health(State(faces): State<Arc<Faces>>, RawQuery(query): RawQuery) -> Response {
    let snapshot = faces.snapshot();
    let code = if snapshot.is_serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match query.as_deref() {
        None | Some("") => faces.brief.of(&snapshot, |snapshot| json(&Brief::of(snapshot))),
        Some("detail" | "detail=") => {
            faces.detail.of(&snapshot, |snapshot| json(&Detail::of(snapshot)))
        }
        Some(other) => {
            let detail = format!("/health takes no \"{other}\"; there is /health?detail");
            return problem(StatusCode::BAD_REQUEST, &detail);
        }
    };
    answer(code, JSON, body)
}

async fn livez() -> Response {
    answer(StatusCode::OK, JSON, Bytes::from_static(br#"{"status":"alive"}"#))
}

async fn readyz(State(faces): State<Arc<Faces>>) -> Response {
    let readiness = Readiness::of(&faces.snapshot());
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, JSON, json(&readiness))
}

async fn metrics(State(faces): State<Arc<Faces>>) -> Response {
    let refused = faces.refused.load(Ordering::Relaxed);
    let body = faces.metrics.of(&faces.snapshot(), |snapshot| metrics::text(snapshot).into());
    let own = metrics::of_process(Process::look().as_ref(), refused);
    answer(StatusCode::OK, metrics::CONTENT_TYPE, [&body[..], own.as_bytes()].concat().into())
}

async fn not_found(uri: Uri) -> Response {
    let detail = format!(
        "there is nothing at {}; there are /health, /readyz, /livez and /metrics",
        uri.path()
    );
    problem(StatusCode::NOT_FOUND, &detail)
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    wrong_method(&method, &uri, "GET", "GET, HEAD")
}

async fn only_post(method: Method, uri: Uri) -> Response {
    wrong_method(&method, &uri, "POST", "POST")
}

fn wrong_method(method: &Method, uri: &Uri, right: &str, allowed: &'static str) -> Response {
    let detail = format!("{} does not take {method}; use {right}", uri.path());
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// RFC 9457.
fn problem(code: StatusCode, detail: &str) -> Response {
    let title = code.canonical_reason().unwrap_or("Error");
    let body = serde_json::json!({ "type": "about:blank", "title": title, "status": code.as_u16(), "detail": detail });
    answer(code, "application/problem+json", body.to_string().into())
}

fn json(value: &impl Serialize) -> Bytes {
    // Plain structs with text keys: writing them cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn answer(code: StatusCode, content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
