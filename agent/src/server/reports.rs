//! `POST /report`: for an inference server that says itself how it is, on this machine.

use std::net::SocketAddr;

use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    extract::State,
    http::StatusCode,
    response::Response,
    routing::post,
};
use bytes::Bytes;
use tokio::time;

use super::{JSON, answer, only_post, problem};
use crate::inference::push::{BODY_TIMEOUT, Inbox, MAX_BODY_BYTES, Refused};

/// `inbox` is `None` where no reports are awaited.
pub(super) fn route<S: Clone + Send + Sync + 'static>(inbox: Option<Inbox>) -> Router<S> {
    Router::new().route("/report", post(take).fallback(only_post)).with_state(inbox)
}

async fn take(
    State(inbox): State<Option<Inbox>>,
    Extension(peer): Extension<SocketAddr>,
    body: Body,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        let detail = format!("reports are taken from 127.0.0.1 only, and {peer} is another");
        return problem(StatusCode::FORBIDDEN, &detail);
    }
    let Some(inbox) = inbox else {
        let detail = "the agent asks the inference server itself: set inference.kind = \"push\"";
        return problem(StatusCode::CONFLICT, detail);
    };
    let body = match time::timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("a report is at most {MAX_BODY_BYTES} bytes");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &detail);
        }
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the report did not arrive in time"),
    };
    match inbox.take(&body) {
        Ok(()) => answer(StatusCode::NO_CONTENT, JSON, Bytes::new()),
        Err(refused) => {
            let code = match refused {
                Refused::Invalid(_) => StatusCode::BAD_REQUEST,
                Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
            };
            problem(code, &refused.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_may_report() {
        for (peer, code) in [
            ("127.0.0.1:9", StatusCode::CONFLICT),
            ("127.8.8.8:9", StatusCode::CONFLICT),
            ("[::1]:9", StatusCode::CONFLICT),
            ("[::ffff:127.0.0.1]:9", StatusCode::CONFLICT),
            ("10.0.0.5:9", StatusCode::FORBIDDEN),
            ("[::ffff:10.0.0.5]:9", StatusCode::FORBIDDEN),
            ("[fe80::1]:9", StatusCode::FORBIDDEN),
        ] {
            let from = Extension(peer.parse().expect("an address"));
            let response = take(State(None), from, Body::from("{}")).await;
            assert_eq!(response.status(), code, "{peer}");
        }
    }
}
