//! The inference server beside the agent: its load from `/metrics`, its models from `/v1/models`.
//!
//! Each poll asks both at once, with one timeout and a bound on each body. An adapter reads the metrics of one
//! kind of server; vLLM's is the only one so far.

mod metrics;
mod vllm;
mod window;

use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::{sync::mpsc, time};

use crate::{
    config,
    signals::{self, Load, Reading},
    state::Event,
};

/// A busy vLLM's page is about 100 KB.
const MAX_METRICS_BYTES: usize = 4 << 20;

const MAX_MODELS_BYTES: usize = 1 << 20;

/// More models than this are not listed: adapters count as models, and there may be thousands.
const MAX_MODELS: usize = 256;

const MAX_MODEL_NAME_BYTES: usize = 256;

/// Polls the server until nobody listens. `start` is the agent's start.
pub(crate) async fn run(
    mut server: Server,
    interval: Duration,
    start: Instant,
    events: mpsc::Sender<Event>,
) {
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let poll = server.poll(start).await;
        if events.send(Event::Inference(poll)).await.is_err() {
            return;
        }
    }
}

/// Why a page could not be had.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// Nothing listens at the address.
    refused: bool,
}

/// The server, as it is polled.
#[derive(Debug)]
pub(crate) struct Server {
    http: reqwest::Client,
    url: String,
    adapter: vllm::Adapter,
}

impl Server {
    pub(crate) fn new(config: &config::Inference) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mrgc-agent/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .timeout(config.timeout)
            .build()?;
        Ok(Self {
            http,
            url: config.url.clone(),
            adapter: vllm::Adapter::new(config.latency_window),
        })
    }

    async fn poll(&mut self, start: Instant) -> signals::Inference {
        let asked = start.elapsed();
        let (metrics, models) = tokio::join!(
            fetch(&self.http, &self.url, "/metrics", MAX_METRICS_BYTES),
            fetch(&self.http, &self.url, "/v1/models", MAX_MODELS_BYTES),
        );
        let refused =
            |page: &Result<_, Failure>| matches!(page, Err(Failure { refused: true, .. }));
        let reachable = !(refused(&metrics) && refused(&models));
        signals::Inference {
            load: self.read_load(metrics, asked),
            models: read_models(models),
            reachable,
            asked,
        }
    }

    fn read_load(&mut self, page: Result<Vec<u8>, Failure>, at: Duration) -> Reading<Load> {
        match page {
            Ok(body) => match str::from_utf8(&body) {
                Ok(text) => self.adapter.read(text, at),
                Err(_) => Reading::missing("/metrics is not text"),
            },
            Err(failure) => Reading::error(failure.reason),
        }
    }
}

/// A page of at most `max_bytes`, in the client's timeout.
async fn fetch(
    http: &reqwest::Client,
    url: &str,
    path: &str,
    max_bytes: usize,
) -> Result<Vec<u8>, Failure> {
    let failure = |reason: String| Failure { reason, refused: false };
    let explain = |error: reqwest::Error| {
        let refused = error.is_connect() && !error.is_timeout();
        let what = if error.is_timeout() {
            "did not answer in time".to_owned()
        } else if refused {
            format!("is not reachable: {}", root_cause(&error))
        } else {
            format!("broke off: {}", root_cause(&error))
        };
        Failure { reason: format!("{url}{path} {what}"), refused }
    };
    let mut response = http.get(format!("{url}{path}")).send().await.map_err(explain)?;
    if !response.status().is_success() {
        return Err(failure(format!("{url}{path} answered {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(explain)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(failure(format!("{url}{path} is larger than {max_bytes} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost reason, as in `Connection refused`: the ones around it repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// OpenAI's list of models, as far as it is needed.
#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

fn read_models(page: Result<Vec<u8>, Failure>) -> Reading<Vec<String>> {
    let body = match page {
        Ok(body) => body,
        Err(failure) => return Reading::error(failure.reason),
    };
    match serde_json::from_slice::<ModelList>(&body) {
        Ok(list) => Reading::ok(
            list.data
                .into_iter()
                .map(|model| model.id)
                .filter(|name| name.len() <= MAX_MODEL_NAME_BYTES)
                .take(MAX_MODELS)
                .collect(),
        ),
        Err(error) => Reading::missing(format!("/v1/models is not a list of models: {error}")),
    }
}

#[cfg(test)]
mod tests;
