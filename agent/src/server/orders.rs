//! `POST /drain`, `/undrain` and `/clean`: for whoever is on this machine.

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, response::Response, routing::post};
use serde_json::json as object;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{JSON, answer, json, only_post, problem};
use crate::{lifecycle::Order, state::Event};

/// The control loop never waits; longer than this, and it is gone.
const TIMEOUT: Duration = Duration::from_secs(5);

type Events = mpsc::Sender<Event>;

pub(super) fn routes<S: Clone + Send + Sync + 'static>(events: Events) -> Router<S> {
    let route =
        |order| post(move |State(events): State<Events>| obey(order, events)).fallback(only_post);
    Router::new()
        .route("/drain", route(Order::Drain))
        .route("/undrain", route(Order::Undrain))
        .route("/clean", route(Order::Clean))
        .with_state(events)
}

async fn obey(order: Order, events: Events) -> Response {
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
