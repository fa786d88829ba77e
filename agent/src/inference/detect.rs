//! Which server it is that answers, by what its pages contain.

use serde::Deserialize;

use super::{
    http::{Client, Failure, FailureKind},
    metrics::Reader,
    models::{OllamaModels, OpenAiModels, RayRoutes, TgiInfo},
    servers::{self, Server},
};
use crate::config::InferenceKind as Kind;

/// Where requests are served by those that have their metrics at another port.
const SERVING_PORT: u16 = 8000;

/// A server, and where its pages are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) server: &'static Server,
    pub(super) url: String,
    /// Of its metrics.
    pub(super) metrics_url: String,
}

/// `GET /v2` of Triton.
#[derive(Deserialize)]
struct KserveServer {
    name: String,
}

/// The server at `url`; `None`: it is none that is known. What refuses or hangs is a failure. `metrics_url` is
/// where its metrics are, when that was configured.
pub(super) async fn identify(
    http: &Client,
    url: &str,
    metrics_url: Option<&str>,
) -> Result<Option<Found>, Failure> {
    if let Some(metrics_url) = metrics_url {
        let server = match by_metrics(http, metrics_url, "").await? {
            Some(server) => Some(server),
            None => by_other_pages(http, url).await,
        };
        return Ok(server.map(|server| expected(server, url, Some(metrics_url))));
    }
    if let Some(server) = by_metrics(http, url, "/metrics").await? {
        let is_apart = server.metrics_port.is_some_and(|port| port_of(url) == Some(port));
        let serving = if is_apart { with_port(url, SERVING_PORT) } else { url.to_owned() };
        return Ok(Some(Found { server, url: serving, metrics_url: format!("{url}/metrics") }));
    }
    let server = if by_metrics(http, url, "/v1/metrics").await?.is_some() {
        servers::of(Kind::Nim)
    } else if by_metrics(http, url, "/prometheus/metrics").await?.is_some() {
        servers::of(Kind::TensorrtLlm)
    } else {
        by_other_pages(http, url).await
    };
    Ok(server.map(|server| expected(server, url, None)))
}

/// The server at `url`, which is known to be this one.
pub(super) fn expected(server: &'static Server, url: &str, metrics_url: Option<&str>) -> Found {
    let metrics_url = match (metrics_url, server.metrics_port) {
        (Some(url), _) => url.to_owned(),
        (None, Some(port)) => format!("{}{}", with_port(url, port), server.load.path()),
        (None, None) => format!("{url}{}", server.load.path()),
    };
    Found { server, url: url.to_owned(), metrics_url }
}

async fn by_metrics(
    http: &Client,
    url: &str,
    path: &str,
) -> Result<Option<&'static Server>, Failure> {
    match http.metrics(&format!("{url}{path}"), Reader::new(&[], &[])).await {
        Ok(page) => Ok(page.server),
        Err(Failure { kind: FailureKind::Status(_) | FailureKind::Broken, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// For a server without metrics, or with none yet: many show them with the first request only.
async fn by_other_pages(http: &Client, url: &str) -> Option<&'static Server> {
    let at = |path: &str| format!("{url}{path}");
    // First: what the proxy does not know it hands to an application, which has to serve it.
    if http.json::<RayRoutes>(&at("/-/routes")).await.is_ok() {
        return servers::of(Kind::RayServe);
    }
    let models = http.json::<OpenAiModels>(&at("/v1/models")).await.ok();
    if let Some(server) = models.and_then(|models| servers::by_owner(models.owner()?)) {
        return Some(server);
    }
    let kind = if http.json::<TgiInfo>(&at("/info")).await.is_ok() {
        Kind::Tgi
    } else if http.json::<OllamaModels>(&at("/api/ps")).await.is_ok() {
        Kind::Ollama
    } else if http.json::<KserveServer>(&at("/v2")).await.is_ok_and(|it| it.name == "triton") {
        Kind::Triton
    } else {
        return None;
    };
    servers::of(kind)
}

fn port_of(url: &str) -> Option<u16> {
    reqwest::Url::parse(url).ok()?.port_or_known_default()
}

/// Whether the agent itself listens there.
pub(super) fn is_own(url: &str, own_port: u16) -> bool {
    let Ok(parsed) = reqwest::Url::parse(url) else { return false };
    let is_local = match parsed.host_str() {
        Some(host) => host == "localhost" || host == "[::1]" || host.starts_with("127."),
        None => false,
    };
    is_local && parsed.port_or_known_default() == Some(own_port)
}

/// The same host at another port.
fn with_port(url: &str, port: u16) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
    // It fails for URLs without a host only, and there are none.
    let _ = parsed.set_port(Some(port));
    parsed.as_str().trim_end_matches('/').to_owned()
}
