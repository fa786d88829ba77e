//! One request: which path, which failure, which answer.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::body::{AnswerBody, HangUp, Pace, Paced, Pieces};
use super::completion::{self, ChatRequest, Events};
use super::state::{Job, State};
use super::{Failure, metrics};

/// The longest request body that is read; a longer one gets 413.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest filler; above it some lengths have a meaning of their own within hyper.
const FILLER_BYTES_MAX: u64 = 1 << 50;

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const FILLER: HeaderValue = HeaderValue::from_static("application/octet-stream");

type Answer = Result<Response<AnswerBody>, HangUp>;

/// Answers one request; the error closes the connection without an answer.
pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answer {
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::POST, "/v1/chat/completions") => complete(&state, request).await?,
        (&Method::GET, "/v1/models") => {
            respond(StatusCode::OK, JSON, AnswerBody::whole(completion::models(&state)))
        }
        (&Method::GET, "/metrics") => {
            respond(StatusCode::OK, METRICS, AnswerBody::whole(metrics::page(&state)))
        }
        (&Method::GET, "/health") => respond(StatusCode::OK, JSON, AnswerBody::whole("{}")),
        (&Method::GET, "/control") => tell(&state),
        (&Method::POST, "/control") => control(&state, request).await,
        (_, "/v1/chat/completions" | "/v1/models" | "/metrics" | "/health" | "/control") => {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method").answer()
        }
        (_, path) => refuse(StatusCode::NOT_FOUND, format!("there is nothing at {path}")).answer(),
    };
    response.headers_mut().insert(SERVED_BY, state.served_by.clone());
    Ok(response)
}

/// What one completion asked of the mock.
struct Order {
    stream: bool,
    hold: bool,
    filler_bytes: Option<NonZeroU64>,
    echo: Option<completion::Echo>,
}

async fn complete(state: &Arc<State>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let order = match read(body).await.and_then(|body| order(state, &head.headers, &body)) {
        Ok(order) => order,
        Err(refusal) => return Ok(refusal.answer()),
    };
    // Taken before anything is answered, so that a release in answer to the first event counts.
    let mut release = state.next_release();
    let job = Job::admit(state).await;
    let settings = state.settings();
    match settings.failure {
        Failure::InternalError => {
            job.fail();
            let refusal = refuse(StatusCode::INTERNAL_SERVER_ERROR, "the mock was asked to fail");
            return Ok(refusal.answer());
        }
        Failure::Close => {
            job.fail();
            return Err(HangUp);
        }
        Failure::Hang => {
            // It fails when the server is gone, and then there is nobody to keep waiting.
            let _ = release.changed().await;
            job.fail();
            return Err(HangUp);
        }
        Failure::None | Failure::Cut | Failure::Slow => {}
    }
    let latency = settings.latency();
    let cut = settings.failure == Failure::Cut;
    let pieces = match order {
        Order { filler_bytes: Some(bytes), .. } => Pieces::filler(bytes, cut),
        Order { stream: true, echo, .. } => Pieces::Events(Events::new(Arc::clone(state), echo)),
        Order { echo, hold, .. } => {
            if hold {
                let _ = release.changed().await;
            }
            return Ok(plain(state, job, echo, cut, latency).await);
        }
    };
    let kind = if matches!(pieces, Pieces::Events(_)) { EVENTS } else { FILLER };
    let pace = Pace { latency, hold: order.hold.then_some(release), cut };
    let body = AnswerBody::Paced(Box::new(Paced::new(job, pieces, pace)));
    let mut response = respond(StatusCode::OK, kind, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// A completion in one piece; cut, its head claims all of it and half of it comes.
async fn plain(
    state: &State,
    job: Job,
    echo: Option<completion::Echo>,
    cut: bool,
    latency: Duration,
) -> Response<AnswerBody> {
    let whole = completion::whole(state, echo);
    if cut {
        let pieces =
            Pieces::Torn { start: whole.slice(..whole.len() / 2), claimed: whole.len() as u64 };
        let paced = Paced::new(job, pieces, Pace { latency, hold: None, cut });
        return respond(StatusCode::OK, JSON, AnswerBody::Paced(Box::new(paced)));
    }
    let to_first_token = latency / state.tokens;
    pause(to_first_token).await;
    job.first_token();
    pause(latency - to_first_token).await;
    job.complete();
    respond(StatusCode::OK, JSON, AnswerBody::whole(whole))
}

/// Even a timer that is due at once would cost a turn of the runtime.
async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn order(state: &State, headers: &HeaderMap, body: &[u8]) -> Result<Order, Refusal> {
    let request: ChatRequest = serde_json::from_slice(body).map_err(|error| {
        refuse(StatusCode::BAD_REQUEST, format!("the body is not a chat request: {error}"))
    })?;
    if let Some(model) = &request.model
        && *model != state.model
    {
        let message = format!("the model `{model}` does not exist, `{}` does", state.model);
        return Err(refuse(StatusCode::NOT_FOUND, message));
    }
    let filler_bytes = match headers.get("x-mock-bytes") {
        None => request.mock.and_then(|mock| mock.bytes),
        Some(value) => {
            Some(value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                let message =
                    format!("x-mock-bytes is {value:?}, must be a number of bytes above 0");
                refuse(StatusCode::BAD_REQUEST, message)
            })?)
        }
    };
    if let Some(bytes) = filler_bytes
        && bytes.get() > FILLER_BYTES_MAX
    {
        let message = format!("{bytes} bytes were asked for, must be at most {FILLER_BYTES_MAX}");
        return Err(refuse(StatusCode::BAD_REQUEST, message));
    }
    let is_on = |name: &str| headers.get(name).is_some_and(|value| value == "1");
    Ok(Order {
        stream: request.stream,
        hold: is_on("x-mock-hold"),
        filler_bytes,
        echo: is_on("x-mock-echo").then(|| completion::echo(headers)),
    })
}

/// A change of settings. What is left out stays as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    failure: Option<Failure>,
    latency_ms: Option<u64>,
    /// Lets every held request go on, after the other changes.
    #[serde(default)]
    release: bool,
}

async fn control(state: &State, request: Request<Incoming>) -> Response<AnswerBody> {
    let body = match read(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal.answer(),
    };
    let control: Control = match serde_json::from_slice(&body) {
        Ok(control) => control,
        Err(error) => {
            let message = format!("the body is not a control request: {error}");
            return refuse(StatusCode::BAD_REQUEST, message).answer();
        }
    };
    state.change(|settings| {
        settings.failure = control.failure.unwrap_or(settings.failure);
        settings.latency_ms = control.latency_ms.unwrap_or(settings.latency_ms);
    });
    if control.release {
        state.release();
    }
    tell(state)
}

fn tell(state: &State) -> Response<AnswerBody> {
    let told = json!({ "settings": state.settings(), "counters": state.counters() });
    respond(StatusCode::OK, JSON, AnswerBody::whole(told.to_string()))
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {REQUEST_BYTES_MAX} bytes"),
        )),
        Err(error) => Err(refuse(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))),
    }
}

fn respond(status: StatusCode, kind: HeaderValue, body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer that says what was wrong.
struct Refusal {
    status: StatusCode,
    message: String,
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { status, message: message.into() }
}

impl Refusal {
    fn answer(self) -> Response<AnswerBody> {
        let is_ours = self.status.is_server_error();
        let kind = if is_ours { "server_error" } else { "invalid_request_error" };
        let body = completion::error(&self.message, kind, self.status.as_u16());
        respond(self.status, JSON, AnswerBody::whole(body))
    }
}
