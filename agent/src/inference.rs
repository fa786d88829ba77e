//! The inference server beside the agent: how busy it is, and which models it serves.
//!
//! ```text
//!  searching ──a page tells which server it is──► known ──polls──┐
//!      ▲  ▲───nothing there, or nothing known───┘   │ ▲──────────┘
//!      └──────gone, or none of its metrics──────────┘
//! ```
//!
//! What a server says, and where, is data (`servers`); one adapter reads it. Each poll asks for the load, the
//! models and whether the model is ready at once, with one timeout and a bound on each body. A server that is
//! configured by its kind is not searched for; one that reports itself is not polled (`push`).

mod adapter;
mod detect;
mod http;
mod loading;
pub(crate) mod metrics;
mod models;
pub(crate) mod push;
mod servers;
mod slots;
mod window;

use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use tokio::sync::{mpsc, watch};

use self::{
    adapter::Adapter,
    detect::Found,
    http::{Client, Failure, FailureKind},
    loading::Loading,
    metrics::Page,
    servers::{LoadPage, ModelPage, Server},
    slots::Slot,
};
use crate::{
    config::{self, InferenceKind as Kind, InferenceSource, InferenceTarget},
    reload::{Cadence, Live},
    signals::{self, Check, Load, Reading},
    state::Event,
};

/// Between two looks at which server it is, where the last one did not tell, or the metrics are not its own.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// What takes longer at a port that may not even be the server's hangs: the next port has its turn.
const MAX_SEARCH_TIMEOUT: Duration = Duration::from_millis(500);

/// Polls the server until nobody listens. `start` is the agent's start.
pub(crate) async fn run(
    mut poller: Poller,
    settings: watch::Receiver<Live>,
    start: Instant,
    events: mpsc::Sender<Event>,
) {
    let mut ticks = Cadence::new(settings, |settings| settings.inference_poll_interval);
    loop {
        ticks.tick().await;
        let poll = poller.poll(start.elapsed()).await;
        if events.send(Event::Inference(poll)).await.is_err() {
            return;
        }
    }
}

/// Follows one server, which it may have to find first.
#[derive(Debug)]
pub(crate) struct Poller {
    http: Client,
    search_http: Client,
    target: InferenceTarget,
    latency_window: Duration,
    own_port: u16,
    known: Option<Known>,
    next_search: Duration,
    /// What the last search came to.
    nothing: Nothing,
    loading: Loading,
}

/// No server was found, and why.
#[derive(Clone, Debug, Default)]
struct Nothing {
    reason: String,
    /// Something is there all the same, which does not say what it is.
    is_there: bool,
}

/// A server that is known.
#[derive(Debug)]
struct Known {
    found: Found,
    adapter: Adapter,
    /// Where its metrics should be the agent itself listens.
    own_port: Option<u16>,
    /// Its last page told of a KV cache.
    has_engine: bool,
}

impl InferenceTarget {
    /// Whether it is left open which server it is.
    fn is_open(&self) -> bool {
        self.url.is_none() || self.kind == Kind::Auto
    }

    fn accepts(&self, server: &Server) -> bool {
        self.kind == Kind::Auto || self.kind == server.kind
    }

    /// Where a server may be.
    fn candidates(&self, own_port: u16) -> Vec<String> {
        let port = |port: &u16| format!("http://127.0.0.1:{port}");
        match &self.url {
            Some(url) => vec![url.clone()],
            None => self.ports.iter().filter(|port| **port != own_port).map(port).collect(),
        }
    }
}

/// What a server said about its load.
enum Said {
    Metrics(Page),
    Slots(Vec<Slot>),
    Nothing,
}

impl Poller {
    /// `None`: the server reports itself. `own_port` is the one that the agent listens on.
    pub(crate) fn new(
        config: &config::Inference,
        own_port: u16,
    ) -> Result<Option<Self>, reqwest::Error> {
        let InferenceSource::Poll(target) = &config.source else { return Ok(None) };
        let mut poller = Self {
            http: Client::new(config.timeout)?,
            search_http: Client::new(match target.url {
                Some(_) => config.timeout,
                None => config.timeout.min(MAX_SEARCH_TIMEOUT),
            })?,
            target: InferenceTarget::clone(target),
            latency_window: config.latency_window,
            own_port,
            known: None,
            next_search: Duration::ZERO,
            nothing: Nothing::default(),
            loading: Loading::default(),
        };
        if let (Some(url), Some(server)) = (&target.url, servers::of(target.kind)) {
            let found = detect::expected(server, url, target.metrics_url.as_deref());
            poller.known = Some(poller.meet(found));
        }
        Ok(Some(poller))
    }

    /// Asks once, `at` since the agent's start.
    async fn poll(&mut self, at: Duration) -> signals::Inference {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => match self.search(at).await {
                Ok(found) => self.meet(found),
                Err(nothing) => return self.without_server(nothing, at).await,
            },
        };
        let poll = known.poll(&self.http, at, &mut self.loading).await;
        if self.target.is_open() && !poll.reachable {
            tracing::info!(server = known.found.server.name, "the inference server is gone");
            self.next_search = at;
            return poll;
        }
        // Another server may be at its port by now.
        if self.target.is_open()
            && poll.load.value.is_none()
            && let Ok(found) = self.search(at).await
        {
            self.next_search = at + SEARCH_INTERVAL;
            if found != known.found {
                known = self.meet(found);
            }
        }
        self.known = Some(known);
        poll
    }

    fn meet(&self, found: Found) -> Known {
        let Found { server, url, metrics_url } = &found;
        tracing::info!(server = server.name, url, metrics_url, "follows the inference server");
        let adapter = match &self.target.metrics {
            Some(names) => Adapter::configured(names, self.latency_window),
            None => Adapter::of(server, self.latency_window),
        };
        let own_port = Some(self.own_port).filter(|port| detect::is_own(&found.metrics_url, *port));
        Known { found, adapter, own_port, has_engine: false }
    }

    /// Looks which server answers where one may be, unless a look did not help a moment ago.
    async fn search(&mut self, at: Duration) -> Result<Found, Nothing> {
        if at < self.next_search {
            return Err(self.nothing.clone());
        }
        let (mut answers, mut failure) = (false, None);
        for url in self.target.candidates(self.own_port) {
            let metrics_url = self.target.metrics_url.as_deref();
            match detect::identify(&self.search_http, &url, metrics_url).await {
                Ok(Some(found)) if self.target.accepts(found.server) => return Ok(found),
                Ok(_) => answers = true,
                Err(new) if new.kind == FailureKind::Refused => {
                    failure.get_or_insert(new);
                }
                Err(new) => failure = Some(new),
            }
        }
        let hangs = failure.as_ref().is_some_and(|failure| failure.kind != FailureKind::Refused);
        if answers || hangs {
            self.next_search = at + SEARCH_INTERVAL;
        }
        self.nothing = match &self.target.url {
            Some(url) if answers => Nothing {
                reason: format!("cannot tell which inference server {url} is: set inference.kind"),
                is_there: true,
            },
            Some(_) => {
                Nothing { reason: failure.map_or_else(String::new, |f| f.reason), is_there: hangs }
            }
            None => Nothing {
                reason: format!(
                    "no inference server answers on the ports {}",
                    list(&self.target.ports)
                ),
                is_there: hangs,
            },
        };
        Err(self.nothing.clone())
    }

    /// A server that tells neither its kind nor its load may still tell its models.
    async fn without_server(&mut self, nothing: Nothing, at: Duration) -> signals::Inference {
        let Nothing { reason, mut is_there } = nothing;
        let models = match &self.target.url {
            Some(url) if is_there => {
                let list = models::list(&self.http, url, &[ModelPage::OpenAi]).await;
                is_there = !is_refused(&list);
                read_models(list, None)
            }
            _ => Reading::error(reason.clone()),
        };
        self.loading.observe(is_ready(&models, is_there), at, None);
        signals::Inference {
            model_load_ms: self.loading.took_ms(),
            reachable: is_there,
            ..signals::Inference::new(Reading::error(reason), models, at)
        }
    }
}

impl Known {
    async fn poll(
        &mut self,
        http: &Client,
        at: Duration,
        loading: &mut Loading,
    ) -> signals::Inference {
        let Found { server, url, .. } = &self.found;
        let ready = async {
            let path = server.ready?;
            Some((path, http.code(&format!("{url}{path}")).await))
        };
        let pages = if self.has_engine && !server.engine_models.is_empty() {
            server.engine_models
        } else {
            server.models
        };
        let models = models::list(http, url, pages);
        let (said, models, ready) = tokio::join!(self.ask_load(http), models, ready);
        let reachable =
            !(is_refused(&models) && (is_refused(&said) || matches!(said, Ok(Said::Nothing))));
        let models = read_models(models, ready);
        if server.loads_at_start {
            let process_age = match &said {
                // At a port of its own it may be another process.
                Ok(Said::Metrics(page)) if server.metrics_port.is_none() => {
                    adapter::process_start(page).and_then(age)
                }
                _ => None,
            };
            loading.observe(is_ready(&models, reachable), at, process_age);
        }
        let (server, model_load_ms) = (Some(server.name), loading.took_ms());
        let load = self.read_load(said, &models, at);
        self.has_engine = load.value.as_ref().is_some_and(|load| load.kv_cache_usage.is_some());
        signals::Inference { server, load, models, model_load_ms, reachable, asked: at }
    }

    fn read_load(
        &mut self,
        said: Result<Said, Failure>,
        models: &Reading<Vec<String>>,
        at: Duration,
    ) -> Reading<Load> {
        match said {
            Ok(Said::Metrics(page)) => self.adapter.read(&page, at),
            Ok(Said::Slots(slots)) => slots::read(&slots),
            Ok(Said::Nothing) if models.value.is_none() => {
                Reading { value: None, check: models.check.clone() }
            }
            Ok(Said::Nothing) => {
                let reason = format!("{} does not say how busy it is", self.found.server.name);
                Reading::noted(Load::default(), Check { reason: Some(reason), ..Check::ok() })
            }
            Err(failure) => Reading::error(failure.reason),
        }
    }

    async fn ask_load(&self, http: &Client) -> Result<Said, Failure> {
        let Found { server, url, metrics_url } = &self.found;
        if server.load == LoadPage::Nowhere {
            return Ok(Said::Nothing);
        }
        if let Some(own_port) = self.own_port {
            let reason = format!("port {own_port} is the agent's own: set inference.metrics_url");
            return Err(Failure { kind: FailureKind::Broken, reason });
        }
        let metrics = http.metrics(metrics_url, self.adapter.reader()).await.map(Said::Metrics);
        match metrics {
            Err(Failure { kind: FailureKind::Status(_), .. })
                if server.load == LoadPage::MetricsOrSlots =>
            {
                http.json(&format!("{url}/slots")).await.map(Said::Slots)
            }
            metrics => metrics,
        }
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn is_refused<T>(page: &Result<T, Failure>) -> bool {
    matches!(page, Err(Failure { kind: FailureKind::Refused, .. }))
}

/// `None`: not known, as where it does not answer in time.
fn is_ready(models: &Reading<Vec<String>>, reachable: bool) -> Option<bool> {
    if reachable { models.value.as_ref().map(|names| !names.is_empty()) } else { Some(false) }
}

/// The models that can be asked for: none while the server says that it is not ready.
fn read_models(
    list: Result<Vec<String>, Failure>,
    ready: Option<(&str, Result<StatusCode, Failure>)>,
) -> Reading<Vec<String>> {
    match (list, ready) {
        (_, Some((path, Ok(code)))) if says_no(code) => Reading::noted(
            Vec::new(),
            Check::error(format!("no model is ready: {path} answered {code}")),
        ),
        (Ok(names), _) => Reading::ok(names),
        (Err(failure), _) => Reading::error(failure.reason),
    }
}

/// Triton says it with 400, all others with 503. A page that is not there says nothing.
fn says_no(code: StatusCode) -> bool {
    code == StatusCode::BAD_REQUEST || code.is_server_error() && code != StatusCode::NOT_IMPLEMENTED
}

/// How long ago that was, in seconds since the epoch; `None` where this machine's clock cannot say.
fn age(seconds: f64) -> Option<Duration> {
    let then = SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    SystemTime::now().duration_since(then).ok()
}

#[cfg(test)]
mod tests;
