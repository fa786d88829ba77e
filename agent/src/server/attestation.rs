//! `POST /attestation`: for routers, who verify what comes back.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::post,
};
use tokio::{sync::watch, time};

use super::{JSON, answer, json, problem};
use crate::{
    enclave::relay::{self, Relay, RelayError},
    state::Snapshot,
};

#[derive(Clone)]
struct Desk {
    relay: Relay,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

pub(super) fn route<S: Clone + Send + Sync + 'static>(
    relay: Relay,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Router<S> {
    Router::new()
        .route("/attestation", post(attest).fallback(only_post))
        .with_state(Desk { relay, snapshots })
}

async fn attest(State(desk): State<Desk>, body: Body) -> Response {
    let body = time::timeout(relay::BODY_TIMEOUT, to_bytes(body, relay::MAX_BODY_BYTES));
    let body = match body.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("a question is at most {} bytes", relay::MAX_BODY_BYTES);
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &detail);
        }
        Err(_) => {
            return problem(StatusCode::REQUEST_TIMEOUT, "the question did not arrive in time");
        }
    };
    let enclaves = desk.snapshots.borrow().signals.enclave.value.clone().unwrap_or_default();
    match desk.relay.ask(&body, &enclaves.list).await {
        Ok(document) => answer(StatusCode::OK, JSON, json(&document)),
        Err(error) => {
            let code = match error {
                RelayError::Invalid(_) => StatusCode::BAD_REQUEST,
                RelayError::NoChannel => StatusCode::NOT_IMPLEMENTED,
                RelayError::NoEnclave => StatusCode::SERVICE_UNAVAILABLE,
                RelayError::Busy => StatusCode::TOO_MANY_REQUESTS,
                RelayError::Channel(_) | RelayError::NoDocument => StatusCode::BAD_GATEWAY,
            };
            problem(code, &error.to_string())
        }
    }
}

async fn only_post(method: Method) -> Response {
    let detail = format!("/attestation does not take {method}; use POST with {{\"nonce\": …}}");
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
