//! Pages of the inference server: one timeout, a bound on each body, and a reason where one cannot be had.

use std::time::Duration;

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::metrics::{Page, Reader};

/// A busy vLLM's page is about 100 KB.
pub(super) const MAX_METRICS_BYTES: usize = 4 << 20;

/// Lists of models, slots and the like.
pub(super) const MAX_JSON_BYTES: usize = 1 << 20;

/// Load, models and readiness: each keeps its connection.
const PAGES_AT_ONCE: usize = 3;

/// Why a page could not be had.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Nothing listens at the address.
    Refused,
    TimedOut,
    /// Another code than 2xx.
    Status(StatusCode),
    /// It ended early, is too large, or is something else than it should be.
    Broken,
}

/// The client for one server.
#[derive(Clone, Debug)]
pub(super) struct Client(reqwest::Client);

impl Client {
    /// Redirects are not followed: the server is beside the agent, or it is none.
    pub(super) fn new(timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("mrgc-agent/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(PAGES_AT_ONCE)
            .timeout(timeout)
            .build()?;
        Ok(Self(client))
    }

    /// A page of metrics, read as it arrives.
    pub(super) async fn metrics(&self, url: &str, mut reader: Reader) -> Result<Page, Failure> {
        self.read(url, self.0.get(url), MAX_METRICS_BYTES, |chunk| reader.push(chunk)).await?;
        Ok(reader.finish())
    }

    pub(super) async fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T, Failure> {
        self.read_json(url, self.0.get(url)).await
    }

    /// Asks by POST with a JSON body.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &'static str,
    ) -> Result<T, Failure> {
        let request = self.0.post(url).header("content-type", "application/json").body(body);
        self.read_json(url, request).await
    }

    /// The page's code; what it says does not matter.
    pub(super) async fn code(&self, url: &str) -> Result<StatusCode, Failure> {
        let response = self.0.get(url).send().await.map_err(|error| explain(url, &error))?;
        Ok(response.status())
    }

    async fn read_json<T: DeserializeOwned>(
        &self,
        url: &str,
        request: RequestBuilder,
    ) -> Result<T, Failure> {
        let mut body = Vec::new();
        self.read(url, request, MAX_JSON_BYTES, |chunk| body.extend_from_slice(chunk)).await?;
        serde_json::from_slice(&body).map_err(|error| Failure {
            kind: FailureKind::Broken,
            reason: format!("{url} is not what it should be: {error}"),
        })
    }

    async fn read(
        &self,
        url: &str,
        request: RequestBuilder,
        max_bytes: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let mut response: Response = request.send().await.map_err(|error| explain(url, &error))?;
        let status = response.status();
        if !status.is_success() {
            let reason = format!("{url} answered {status}");
            return Err(Failure { kind: FailureKind::Status(status), reason });
        }
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(url, &error))? {
            bytes += chunk.len();
            if bytes > max_bytes {
                let reason = format!("{url} is larger than {max_bytes} bytes");
                return Err(Failure { kind: FailureKind::Broken, reason });
            }
            take(&chunk);
        }
        Ok(())
    }
}

fn explain(url: &str, error: &reqwest::Error) -> Failure {
    let (kind, what) = if error.is_timeout() {
        (FailureKind::TimedOut, "did not answer in time".to_owned())
    } else if error.is_connect() {
        (FailureKind::Refused, format!("is not reachable: {}", root_cause(error)))
    } else {
        (FailureKind::Broken, format!("broke off: {}", root_cause(error)))
    };
    Failure { kind, reason: format!("{url} {what}") }
}

/// The innermost reason, as in `Connection refused`: the ones around it repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
