//! A router's control API, as its client: which router, and what it answers.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Usage, table::harmless};

/// Where a router listens for its operator unless configured otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:9000";
const URL_VARIABLE: &str = "MRGC_ROUTER_URL";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longer than a router waits for the store or for a probe by hand.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Far above a list of 10,000 instances.
const MAX_ANSWER_BYTES: usize = 64 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct RouterArgs {
    /// A router's control API [env: MRGC_ROUTER_URL] [default: http://127.0.0.1:9000]
    #[arg(long, value_name = "URL")]
    router: Option<String>,
}

/// A router that is asked.
#[derive(Debug)]
pub(crate) struct Router {
    base: Url,
    client: reqwest::Client,
}

/// What is wrong, as the router words it (RFC 9457).
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
}

impl RouterArgs {
    pub(crate) fn open(&self) -> Result<Router> {
        let written = self.router.clone().or_else(|| std::env::var(URL_VARIABLE).ok());
        Router::at(written.as_deref().unwrap_or(DEFAULT_URL))
    }
}

impl Router {
    pub(crate) fn at(written: &str) -> Result<Self> {
        let url = Url::parse(written).ok().filter(|url| url.scheme() == "http" && url.has_host());
        let Some(mut base) = url else {
            let reason = format!(
                "`{written}` is no router's control API: give it as http://HOST:PORT, in `--router` or \
                 {URL_VARIABLE}"
            );
            return Err(Usage(reason).into());
        };
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self { base, client })
    }

    /// `path` is a list of segments, so that a name with a `/` in it stays one.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        self.query(path, &[]).await
    }

    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, u32)],
    ) -> Result<T> {
        let mut url = self.url(path)?;
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, &value.to_string());
        }
        self.ask(self.client.get(url)).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T> {
        self.ask(self.client.post(self.url(path)?).json(body)).await
    }

    fn url(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => bail!("{} has no paths", self.base),
        };
        Ok(url)
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let base = &self.base;
        let advice = "check that it runs, and `--router`";
        let cannot = || format!("cannot ask the router at {base}: {advice}");
        let mut response = request.send().await.with_context(cannot)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.with_context(cannot)? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                bail!("the router at {base} answers more than {MAX_ANSWER_BYTES} bytes");
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(refusal(base, status, &bytes));
        }
        let unreadable = || format!("cannot read the answer of {base}: is it an MRGC router's?");
        serde_json::from_slice(&bytes).with_context(unreadable)
    }
}

/// What was asked for wrongly is told apart from what the router cannot do.
fn refusal(base: &Url, status: StatusCode, body: &[u8]) -> anyhow::Error {
    let Ok(Problem { detail }) = serde_json::from_slice(body) else {
        return anyhow!("{base} answers {status}: is it an MRGC router's control API?");
    };
    let detail = harmless(&detail);
    if status == StatusCode::BAD_REQUEST { Usage(detail).into() } else { anyhow!("{detail}") }
}
