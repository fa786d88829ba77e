//! One probe of one agent: what is asked, and whether the answer passes.
//!
//! Each probe makes a connection of its own, for whether the instance still takes connections is part of
//! what is asked. Nothing an instance answers can hold a probe for longer than its timeout, or make it read
//! more than [`MAX_BODY_BYTES`], or send it anywhere else.

pub mod answers;
mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use mrgc_fleet::{
    health::ProbeResult,
    model::{Health, Lifecycle},
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::config::{HealthCheck, Scheme};

/// What is read of an answer's body.
const MAX_BODY_BYTES: usize = 64 << 10;
const MAX_REDIRECTS: usize = 3;

/// Why a probe did not pass.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] std::io::Error),
    #[error("`{0}` is no host")]
    Host(String),
    #[error("no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer does not contain {0:?}")]
    Body(String),
    #[error("redirects to {0}, which is not followed")]
    Redirect(String),
    #[error("redirects more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// How a probe ended, and the code of what was answered last, if anything was.
#[derive(Clone, Debug)]
pub struct Checked {
    pub result: ProbeResult,
    pub status_code: Option<u16>,
}

/// Probes as they are configured. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prober(Arc<Inner>);

struct Inner {
    config: HealthCheck,
    headers: HeaderMap,
    tls: Option<TlsConnector>,
    counts: Counts,
}

/// Probes since the router started, by what came of them.
#[derive(Debug, Default)]
pub struct Counts {
    pub passed: AtomicU64,
    pub timed_out: AtomicU64,
    pub failed: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Prober {
    /// # Errors
    ///
    /// A `ca_file` that cannot be read, or a system without certificates.
    pub fn new(config: &HealthCheck) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("mrgc-router"));
        for (name, value) in &config.headers {
            let name: HeaderName = name.parse().context("health_check.headers")?;
            headers.insert(name, value.parse().context("health_check.headers")?);
        }
        let tls = match config.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                Some(tls::connector(config.ca_file.as_deref(), config.allow_insecure)?)
            }
        };
        let counts = Counts::default();
        Ok(Self(Arc::new(Inner { config: config.clone(), headers, tls, counts })))
    }

    /// Probes `host:port`.
    pub async fn probe(&self, address: &str) -> ProbeResult {
        let result = self.check(address).await.result;
        let counts = self.counts();
        let count = match &result {
            ProbeResult::Passed => &counts.passed,
            ProbeResult::TimedOut => &counts.timed_out,
            ProbeResult::Failed(_) => &counts.failed,
        };
        count.fetch_add(1, Relaxed);
        result
    }

    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// A probe by hand: it is not counted.
    pub async fn check(&self, address: &str) -> Checked {
        let mut code = None;
        let once = timeout(self.0.config.timeout(), self.0.ask(address, &mut code));
        let result = match once.await {
            Ok(Ok(())) => ProbeResult::Passed,
            Ok(Err(failed)) => ProbeResult::Failed(failed.to_string()),
            Err(_) => ProbeResult::TimedOut,
        };
        Checked { result, status_code: code.map(|code| code.as_u16()) }
    }

    pub fn timeout(&self) -> Duration {
        self.0.config.timeout()
    }
}

impl Inner {
    /// `code` becomes that of the last answer.
    async fn ask(&self, address: &str, code: &mut Option<StatusCode>) -> Result<(), Failed> {
        let mut path = self.config.path.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get(address, &path).await?;
            *code = Some(response.status());
            if !(self.config.follow_redirects && response.status().is_redirection()) {
                return self.judge(response).await;
            }
            path = self.redirected(address, response.headers())?;
        }
        Err(Failed::Redirects)
    }

    async fn get(&self, address: &str, path: &str) -> Result<Response<Incoming>, Failed> {
        let stream = TcpStream::connect(address).await.map_err(Failed::Connect)?;
        let Some(tls) = &self.tls else { return self.exchange(stream, address, path).await };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| Failed::Host(host))?;
        let stream = tls.connect(name, stream).await.map_err(Failed::Tls)?;
        self.exchange(stream, address, path).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: &str,
        path: &str,
    ) -> Result<Response<Incoming>, Failed> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the response's body, or when that is dropped.
        tokio::spawn(connection);
        let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
        request.headers_mut().extend(self.headers.clone());
        if let Ok(host) = HeaderValue::from_str(address) {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        Ok(sender.send_request(request).await?)
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<(), Failed> {
        let status = response.status();
        let expected =
            self.config.expected_codes.iter().any(|codes| codes.contain(status.as_u16()));
        let wanted = self.config.expected_body.as_deref().filter(|_| expected);
        if expected && wanted.is_none() {
            return Ok(());
        }
        let body = read(response.into_body()).await?;
        match wanted {
            Some(wanted) if contains(&body, wanted.as_bytes()) => Ok(()),
            _ if is_well_and_leaves(&body) => Ok(()),
            Some(wanted) => Err(Failed::Body(wanted.to_owned())),
            None => Err(Failed::Status(status)),
        }
    }

    /// The path that an answer redirects to, as long as it is this very listener's.
    fn redirected(&self, address: &str, headers: &HeaderMap) -> Result<String, Failed> {
        let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
        let location = location.unwrap_or_default();
        let refused = || Failed::Redirect(location.to_owned());
        let uri: Uri = location.parse().map_err(|_| refused())?;
        let stays = match (uri.scheme_str(), uri.authority()) {
            (None, None) => true,
            (Some(scheme), Some(authority)) => {
                scheme == self.config.scheme.as_str() && authority.as_str() == address
            }
            _ => false,
        };
        match uri.path_and_query() {
            // A location that begins with two slashes names a host.
            Some(path) if stays && !path.as_str().starts_with("//") => Ok(path.as_str().to_owned()),
            _ => Err(refused()),
        }
    }
}

/// As much of a body as is looked at.
async fn read(mut body: Incoming) -> Result<Vec<u8>, Failed> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            read.extend_from_slice(&data[..data.len().min(MAX_BODY_BYTES - read.len())]);
        }
        if read.len() == MAX_BODY_BYTES {
            break;
        }
    }
    Ok(read)
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

/// Whether an agent that answers 503 says that it drains, as a router may have told it to, and that nothing is
/// wrong with the instance.
fn is_well_and_leaves(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        status: Health,
        lifecycle: Lifecycle,
    }
    serde_json::from_slice::<Answer>(body).is_ok_and(|answer| {
        answer.lifecycle == Lifecycle::Draining && answer.status != Health::Unhealthy
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
