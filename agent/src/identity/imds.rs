//! A client of the EC2 instance metadata service, version 2: a session token by PUT, and pages by GET.
//!
//! The AWS SDK's own client renews a token by the wall clock alone: after a 401 it goes on with the token it
//! has, and a clock that was set back keeps a dead token alive. It does not wait where it is throttled with a
//! 429, and reads bodies of any length. So this one is ours: it renews by the monotonic clock and after a 401.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header::DATE};
use thiserror::Error;

/// One request, its connection included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest that the service grants: 6 hours.
const TOKEN_TTL_SECONDS: u64 = 21_600;

/// Of its life, after which a token is renewed, so that none ends on the way.
const TOKEN_SHARE: f64 = 0.9;

/// The identity document has 1 KB, a list of scheduled events a few.
const MAX_PAGE_BYTES: usize = 64 << 10;

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Why a page was not read.
#[derive(Debug, Error)]
pub(crate) enum ImdsError {
    #[error("IMDS at {endpoint} does not answer: {reason}")]
    Silent { endpoint: String, reason: String },
    #[error("IMDS throttles ({0})")]
    Throttled(StatusCode),
    #[error("IMDS is disabled for this instance (403): set its HttpEndpoint to enabled")]
    Disabled,
    #[error("IMDS answered {code} to {path}")]
    Status { code: StatusCode, path: String },
    #[error("IMDS answered {path} with {reason}")]
    Garbled { path: String, reason: String },
}

impl ImdsError {
    /// Whether something answers there that may answer better a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Throttled(_) => true,
            Self::Status { code, .. } => code.is_server_error(),
            Self::Silent { .. } | Self::Disabled | Self::Garbled { .. } => false,
        }
    }

    /// Whether it says something of this page only.
    pub(crate) fn is_of_one_page(&self) -> bool {
        match self {
            Self::Garbled { .. } => true,
            Self::Status { code, .. } => code.is_client_error(),
            Self::Silent { .. } | Self::Throttled(_) | Self::Disabled => false,
        }
    }
}

/// A page, and what the service's own clock said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) text: String,
    /// The `Date` header.
    pub(crate) date: Option<String>,
}

#[derive(Debug)]
struct Token {
    value: String,
    renew_at: Instant,
}

/// The service, with the session's token.
#[derive(Debug)]
pub(crate) struct Imds {
    http: Client,
    endpoint: String,
    token: Option<Token>,
}

impl Imds {
    /// `endpoint` is as in `http://169.254.169.254`.
    pub(crate) fn new(endpoint: &str) -> reqwest::Result<Self> {
        let http = Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(Self { http, endpoint: endpoint.trim_end_matches('/').to_owned(), token: None })
    }

    /// The page at `path`; `None` where there is none, as there is no notice most of the time.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<Page>, ImdsError> {
        let mut response = self.ask(path).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // The token ended early, as on a machine that slept. A new one is asked for once.
            self.token = None;
            response = self.ask(path).await?;
        }
        match response.status() {
            StatusCode::OK => self.read(path, response).await.map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            code => Err(failure(code, path)),
        }
    }

    async fn ask(&mut self, path: &str) -> Result<Response, ImdsError> {
        let token = self.token().await?;
        let request = self.request(Method::GET, path).header(TOKEN_HEADER, token);
        self.send(request).await
    }

    async fn token(&mut self) -> Result<String, ImdsError> {
        if let Some(token) = self.token.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.value.clone());
        }
        let asked = Instant::now();
        let request = self.request(Method::PUT, TOKEN_PATH).header(TTL_HEADER, TOKEN_TTL_SECONDS);
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(failure(response.status(), TOKEN_PATH));
        }
        let granted = response.headers().get(TTL_HEADER).and_then(|ttl| ttl.to_str().ok());
        let ttl = granted.and_then(|ttl| ttl.parse().ok()).unwrap_or(TOKEN_TTL_SECONDS);
        let value = self.read(TOKEN_PATH, response).await?.text;
        let life = Duration::from_secs(ttl.min(TOKEN_TTL_SECONDS)).mul_f64(TOKEN_SHARE);
        self.token = Some(Token { value: value.clone(), renew_at: asked + life });
        Ok(value)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.endpoint))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ImdsError> {
        request.send().await.map_err(|error| self.silent(&error))
    }

    async fn read(&self, path: &str, mut response: Response) -> Result<Page, ImdsError> {
        let garbled = |reason: String| ImdsError::Garbled { path: path.to_owned(), reason };
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let date = date.map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.silent(&error))? {
            if body.len() + chunk.len() > MAX_PAGE_BYTES {
                return Err(garbled(format!("more than {MAX_PAGE_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(body).map_err(|_| garbled("what is not UTF-8".to_owned()))?;
        Ok(Page { text, date })
    }

    fn silent(&self, error: &reqwest::Error) -> ImdsError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let reason = if error.is_timeout() {
            format!("nothing within {} s", REQUEST_TIMEOUT.as_secs())
        } else {
            cause.to_string()
        };
        ImdsError::Silent { endpoint: self.endpoint.clone(), reason }
    }
}

fn failure(code: StatusCode, path: &str) -> ImdsError {
    match code {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ImdsError::Throttled(code)
        }
        StatusCode::FORBIDDEN => ImdsError::Disabled,
        code => ImdsError::Status { code, path: path.to_owned() },
    }
}
