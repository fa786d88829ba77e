//! What these tests share: a router over a fleet of its own, clients of several kinds, and upstreams that
//! misbehave byte by byte.

mod upstream;
mod wire;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{PATIENCE, Router, eventually, router_process_with},
    model_server::{Config, Counters, Failure, ModelServer},
    policies::stock_component,
};
use serde_json::{Value, json};

pub(crate) use upstream::{Dead, Scripted};
pub(crate) use wire::{h2, raw, until_events};

/// The model that mock servers serve, and the pool of those that a [`Lone`] router has.
pub(crate) const MODEL: &str = "mock-model";
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A policy's deadlines, longer than a busy machine takes away from a thread.
pub(crate) const PATIENT_POLICIES: [(&str, &str); 2] = [
    ("MRGC_ROUTER__POLICIES__SCORE_DEADLINE_MS", "100"),
    ("MRGC_ROUTER__POLICIES__OBSERVE_DEADLINE_MS", "1000"),
];

/// A route for everything, decided by the native score.
pub(crate) const ANY_ROUTE: &str = "[[routes]]\nname = \"any\"\n";

/// A router that knows a static fleet, of region us-east-1 unless the setup lists others.
#[derive(Debug)]
pub(crate) struct Lone {
    pub(crate) router: Router,
    pub(crate) client: reqwest::Client,
    _dir: tempfile::TempDir,
}

/// What a [`Lone`] router is started with.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    toml: String,
    policies: Option<PathBuf>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Setup {
    /// Routes and what else is wanted, as TOML.
    pub(crate) fn new(toml: &str) -> Self {
        Self { toml: format!("{toml}\n"), ..Self::default() }
    }

    /// An instance of us-east-1.
    pub(crate) fn instance(self, id: &str, address: SocketAddr) -> Self {
        self.instance_in("us-east-1", id, address)
    }

    pub(crate) fn instance_in(mut self, region: &str, id: &str, address: SocketAddr) -> Self {
        self.toml += &format!(
            "[[instances]]\nid = {id:?}\nregion = {region:?}\npool = \"mock\"\n\
             address = \"{address}\"\nmodels = [\"{MODEL}\"]\n"
        );
        self
    }

    /// More of what was said last, as TOML.
    pub(crate) fn and(mut self, toml: &str) -> Self {
        self.toml += toml;
        self
    }

    /// A further region, whose router is at `address`.
    pub(crate) fn region(mut self, id: &str, address: SocketAddr, frameworks: &[&str]) -> Self {
        self.toml += &format!(
            "[[regions]]\nregion_id = {id:?}\nendpoint = \"http://{address}\"\nframeworks = {frameworks:?}\n"
        );
        self
    }

    /// Where its policies are; there are none otherwise.
    pub(crate) fn policies(mut self, folder: &Path) -> Self {
        self.policies = Some(folder.to_owned());
        self.environment.extend(PATIENT_POLICIES);
        self
    }

    /// A variable of the environment, over those before it.
    pub(crate) fn environment(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    pub(crate) async fn start(self) -> Result<Lone> {
        let dir = tempfile::tempdir()?;
        let policies = self.policies.unwrap_or_else(|| dir.path().join("policies"));
        let config = format!(
            "region = \"us-east-1\"\n\
             [listen]\ndata = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\nthreads = 2\n\
             [policies]\ndir = {policies:?}\n\
             [[regions]]\nregion_id = \"us-east-1\"\nendpoint = \"http://192.0.2.1:8000\"\n\
             frameworks = [\"soc2\"]\n\
             {}",
            self.toml
        );
        let program = router_process_with(dir.path(), "router", &config, &self.environment).await?;
        let (data, control) = (program.address("data")?, program.address("control")?);
        let region = "us-east-1".to_owned();
        let router = Router { region, program, data, control };
        Ok(Lone { router, client: client()?, _dir: dir })
    }
}

pub(crate) fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?)
}

/// A client that opens a connection for each request, so that all data threads get their turn.
pub(crate) fn fresh_client() -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    Ok(builder.pool_max_idle_per_host(0).build()?)
}

/// A completion's body.
pub(crate) fn chat_body(model: &str, stream: bool) -> Value {
    let messages = json!([{ "role": "user", "content": "hello" }]);
    json!({ "model": model, "messages": messages, "stream": stream })
}

impl Lone {
    /// A completion request, to which headers can still be added.
    pub(crate) fn chat(&self, stream: bool) -> reqwest::RequestBuilder {
        chat(&self.client, &self.router, MODEL, stream)
    }

    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.client, &self.router, name).await
    }

    /// Waits until a metric is what it should be.
    pub(crate) async fn metric_is(&self, name: &str, wanted: f64) -> Result<()> {
        eventually(&format!("{name} is {wanted}"), PATIENCE, || async {
            let is = self.metric(name).await?;
            ensure!(is == wanted, "{name} is {is}");
            Ok(Some(()))
        })
        .await
    }

    /// A control endpoint's JSON.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.router.get(&self.client, path).await
    }
}

pub(crate) fn chat(
    client: &reqwest::Client,
    router: &Router,
    model: &str,
    stream: bool,
) -> reqwest::RequestBuilder {
    client.post(router.data_url(CHAT)).json(&chat_body(model, stream))
}

/// The sum of the samples that begin so: a metric's name, or its name with its first labels.
pub(crate) async fn metric(client: &reqwest::Client, router: &Router, start: &str) -> Result<f64> {
    let page = client.get(router.control_url("/metrics")).send().await?.text().await?;
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(start)?;
        let ends_there = rest.starts_with([' ', '{', ',', '}']) || start.ends_with('"');
        line.rsplit_once(' ').filter(|_| ends_there)?.1.parse::<f64>().ok()
    });
    let samples: Vec<f64> = samples.collect();
    ensure!(!samples.is_empty(), "there is no metric {start}");
    Ok(samples.iter().sum())
}

/// A header's text; an error where it is not there.
pub(crate) fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Result<&'a str> {
    let value = headers.get(name).with_context(|| format!("no header {name} in {headers:?}"))?;
    Ok(value.to_str()?)
}

/// Expects problem JSON of a status and a kind, and gives its detail.
pub(crate) async fn problem(
    response: reqwest::Response,
    status: u16,
    kind: &str,
) -> Result<String> {
    let got = response.status().as_u16();
    let content_type = header(response.headers(), "content-type").unwrap_or("(none)").to_owned();
    let text = response.text().await?;
    ensure!(got == status, "expected {status} {kind}, got {got}: {text}");
    ensure!(content_type == "application/problem+json", "{content_type} for {text}");
    problem_in(&text, status, kind)
}

/// The detail of problem JSON that has to have this status and kind.
pub(crate) fn problem_in(text: &str, status: u16, kind: &str) -> Result<String> {
    let body: Value = serde_json::from_str(text).with_context(|| format!("{text:?} is no JSON"))?;
    ensure!(body["type"] == format!("urn:mrgc:problem:{kind}"), "expected {kind}: {body}");
    ensure!(body["status"] == status, "{body}");
    ensure!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{body}");
    let detail = body["detail"].as_str().filter(|detail| !detail.is_empty());
    Ok(detail.with_context(|| format!("no detail: {body}"))?.to_owned())
}

/// A mock model server in this process, quick to answer.
pub(crate) async fn model_server(name: &str) -> Result<ModelServer> {
    failing(name, Failure::None).await
}

pub(crate) async fn failing(name: &str, failure: Failure) -> Result<ModelServer> {
    let quick = Config { latency_ms: 0, tokens: 3, slots: 64, ..Config::default() };
    ModelServer::start(Config { name: name.to_owned(), failure, ..quick }).await
}

/// Waits until a model server's counters are as wanted.
pub(crate) async fn counters(
    server: &ModelServer,
    what: &str,
    wanted: impl Fn(Counters) -> bool,
) -> Result<Counters> {
    eventually(what, PATIENCE, || async {
        let counters = server.counters();
        ensure!(wanted(counters), "{counters:?}");
        Ok(Some(counters))
    })
    .await
}

/// A folder of components, each under the name by which routes use it. A router compiles them all when it
/// starts: it starts sooner with those it needs alone.
#[derive(Debug)]
pub(crate) struct PolicyFolder {
    dir: tempfile::TempDir,
    name: String,
}

impl PolicyFolder {
    pub(crate) fn new(components: &[(&str, &[u8])]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, component) in components {
            std::fs::write(dir.path().join(format!("{name}.wasm")), component)?;
        }
        let name = dir.path().display().to_string();
        Ok(Self { dir, name })
    }

    /// The stock policy `score` alone.
    pub(crate) fn score() -> Result<Self> {
        Self::new(&[("score", &stock_component("score")?)])
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What makes a router of a cluster take its policies from here, patiently.
    pub(crate) fn environment(&self) -> [(&str, &str); 3] {
        let [score, observe] = PATIENT_POLICIES;
        [score, observe, ("MRGC_ROUTER__POLICIES__DIR", &self.name)]
    }
}

/// Fails what takes longer than anything here should.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T> {
    let limit: Duration = PATIENCE;
    tokio::time::timeout(limit, work).await.with_context(|| format!("{what}: not within {limit:?}"))
}
