//! `POST /report`: for an inference server that says itself how it is, on this machine.

use axum::{
    Router, body::Body, extract::State, http::StatusCode, response::Response, routing::post,
};
use bytes::Bytes;

use super::{
    JSON, answer, only_post, problem,
    request::{self, BodyError},
};
use crate::inference::push::{Inbox, MAX_BODY_BYTES, Refused};

/// `inbox` is `None` where no reports are awaited.
pub(super) fn route<S: Clone + Send + Sync + 'static>(inbox: Option<Inbox>) -> Router<S> {
    Router::new().route("/report", post(take).fallback(only_post)).with_state(inbox)
}

async fn take(State(inbox): State<Option<Inbox>>, body: Body) -> Result<Response, BodyError> {
    let Some(inbox) = inbox else {
        let detail = "no reports are awaited: set inference.kind = \"push\" and restart the agent";
        return Ok(problem(StatusCode::CONFLICT, detail));
    };
    let body = request::read(body, MAX_BODY_BYTES).await?;
    Ok(match inbox.take(&body) {
        Ok(()) => answer(StatusCode::NO_CONTENT, JSON, Bytes::new()),
        Err(refused) => {
            let code = match refused {
                Refused::Invalid(_) => StatusCode::BAD_REQUEST,
                Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
            };
            problem(code, &refused.to_string())
        }
    })
}
