//! Every refusal, and the one place that maps it to HTTP: problem JSON, RFC 9457.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use mrgc_fleet::{failover::Refused, routing::NoRoute};
use serde::Serialize;

/// Marks a 503 of a router that has no capacity for the request: no evidence of failure.
pub const NO_CAPACITY: &str = "x-mrgc-no-capacity";

/// Why a request was not served.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(String),
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the client sent no more of its body for {idle_ms} ms")]
    BodyTimeout { idle_ms: u64 },
    #[error("no route matches {path}")]
    NoSuchRoute { path: String },
    #[error("no instance serves the model `{model}`")]
    UnknownModel { model: String },
    #[error("the request names no model, and its route names no pool; the pools are: {pools}")]
    NoModel { pools: String },
    #[error("no registered region could satisfy the request's needs: {needs}")]
    CannotComply { needs: String },
    #[error("{reason}; try again later")]
    NoCapacity { reason: NoRoute },
    #[error("every region that could take the request is full; try again later")]
    Full,
    #[error("every attempt failed; the last: {last}")]
    AllFailed { last: String, how: Failure },
    #[error("no answer within {ms} ms; the last attempt: {last}")]
    Deadline { ms: u64, last: String },
    #[error("{path} does not take {method}; see /openapi.json")]
    NoSuchMethod { path: String, method: String },
    #[error("the request has been in this region before")]
    Loop,
    #[error("the peer key is wrong")]
    WrongKey,
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    #[error("the policy is refused: {0}")]
    PolicyRefused(String),
    #[error("{0}")]
    Conflict(String),
    #[error("the router's monitor did not answer within {within} s")]
    NoMonitor { within: u64 },
    #[error("the store did not take it: {0}")]
    Store(String),
    #[error("the store cannot be read: {0}")]
    StoreUnread(String),
}

/// How a request's last attempt failed: what the client is to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody could be connected to: nothing was sent.
    Unreachable,
    Broken,
    TimedOut,
    /// It was told to come back later.
    Full,
}

/// How long a client should wait where nothing is known of when capacity returns.
const RETRY_AFTER_SECONDS: u32 = 1;

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown(region) => Self::NotFound { what: "region", name: region.to_string() },
            Refused::ToItself(_) => Self::BadRequest(refused.to_string()),
            Refused::NoTarget { .. } | Refused::Closed(_) | Refused::Unhealthy { .. } => {
                Self::Conflict(refused.to_string())
            }
        }
    }
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::NoModel { .. } => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NoSuchRoute { .. } | Self::UnknownModel { .. } | Self::NotFound { .. } => {
                StatusCode::NOT_FOUND
            }
            Self::CannotComply { .. } => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
            Self::NoCapacity { .. } | Self::Full | Self::Store(_) | Self::StoreUnread(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::AllFailed { how: Failure::Broken, .. } => StatusCode::BAD_GATEWAY,
            Self::AllFailed { how: Failure::TimedOut, .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::AllFailed { how: Failure::Full | Failure::Unreachable, .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoSuchMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::WrongKey => StatusCode::FORBIDDEN,
            Self::PolicyRefused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::NoMonitor { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable word for programs: the last part of the problem's `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::BodyTooLarge { .. } => "body-too-large",
            Self::BodyTimeout { .. } => "body-timeout",
            Self::NoSuchRoute { .. } => "no-such-route",
            Self::UnknownModel { .. } => "unknown-model",
            Self::NoModel { .. } => "no-model",
            Self::CannotComply { .. } => "cannot-comply",
            Self::NoCapacity { .. } | Self::Full => "no-capacity",
            Self::AllFailed { .. } => "all-attempts-failed",
            Self::Deadline { .. } => "deadline",
            Self::NoSuchMethod { .. } => "no-such-method",
            Self::Loop => "loop",
            Self::WrongKey => "wrong-key",
            Self::NotFound { .. } => "not-found",
            Self::PolicyRefused(_) => "policy-refused",
            Self::Conflict(_) => "conflict",
            Self::NoMonitor { .. } => "no-monitor",
            Self::Store(_) | Self::StoreUnread(_) => "store",
        }
    }

    pub fn response(&self) -> Response<Bytes> {
        let status = self.status();
        let problem = Problem {
            kind: format!("urn:mrgc:problem:{}", self.kind()),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if matches!(self, Self::NoCapacity { .. } | Self::Full) {
            headers.insert(NO_CAPACITY, HeaderValue::from_static("1"));
        }
        response
    }
}

/// RFC 9457.
#[derive(Debug, Serialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
}
