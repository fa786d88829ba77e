//! `POST /attestation`: for routers, who verify what comes back.

use std::sync::Arc;

use axum::{
    Router, body::Body, extract::State, http::StatusCode, response::Response, routing::post,
};
use tokio::sync::watch;

use super::{
    JSON, answer, json, only_post, problem,
    request::{self, BodyError},
};
use crate::{
    enclave::relay::{MAX_BODY_BYTES, Relay, RelayError},
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

async fn attest(State(desk): State<Desk>, body: Body) -> Result<Response, BodyError> {
    let body = request::read(body, MAX_BODY_BYTES).await?;
    let enclaves = desk.snapshots.borrow().signals.enclave.value.clone().unwrap_or_default();
    Ok(match desk.relay.ask(&body, &enclaves.list).await {
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
    })
}
