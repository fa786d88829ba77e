//! `POST /drain`, `/undrain` and `/clean`: for whoever is on this machine.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::Response,
    routing::post,
};
use serde_json::json as object;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{JSON, answer, json, problem};
use crate::{lifecycle::Order, state::Event};

/// The control loop never waits; longer than this, and it is gone.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Desk {
    /// Where the agent listens: who comes from there is on this machine, too.
    own_address: Option<SocketAddr>,
    events: mpsc::Sender<Event>,
}

pub(super) fn routes<S: Clone + Send + Sync + 'static>(
    own_address: Option<SocketAddr>,
    events: mpsc::Sender<Event>,
) -> Router<S> {
    let route = |order| {
        post(move |State(desk): State<Desk>, Extension(peer): Extension<SocketAddr>| {
            obey(order, desk, peer)
        })
        .fallback(only_post)
    };
    Router::new()
        .route("/drain", route(Order::Drain))
        .route("/undrain", route(Order::Undrain))
        .route("/clean", route(Order::Clean))
        .with_state(Desk { own_address, events })
}

async fn obey(order: Order, desk: Desk, peer: SocketAddr) -> Response {
    let Desk { own_address, events } = desk;
    let ip = peer.ip().to_canonical();
    if !ip.is_loopback() && own_address.is_none_or(|own| own.ip().to_canonical() != ip) {
        let detail = format!("orders are taken from this machine only, and {peer} is another");
        return problem(StatusCode::FORBIDDEN, &detail);
    }
    let (reply, replied) = oneshot::channel();
    let asked = async {
        events.send(Event::Order { order, reply }).await.ok()?;
        replied.await.ok()
    };
    match time::timeout(TIMEOUT, asked).await {
        Ok(Some(Ok(lifecycle))) => {
            answer(StatusCode::OK, JSON, json(&object!({ "lifecycle": lifecycle })))
        }
        Ok(Some(Err(refusal))) => problem(StatusCode::CONFLICT, &refusal.to_string()),
        Ok(None) | Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending"),
    }
}

async fn only_post(method: Method, uri: Uri) -> Response {
    let detail = format!("{} does not take {method}; use POST", uri.path());
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
