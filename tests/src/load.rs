//! A client that sends chat completions at a steady rate or at full speed and tells what came of
//! each: answered, shed, or failed and why. Nothing that goes wrong is left out, nor retried unless asked
//! for; each try then counts as sent.
//!
//! Workers take numbered tickets; a ticket says which target it goes to, whether it streams and, at a
//! rate, when it is due. A latency is counted from when a ticket was due if no worker was free by
//! then, so that a server that stalls cannot hide it by being sent less. Each worker keeps one
//! connection to each target, so `connections` bounds what is in flight.

mod client;
mod journal;
mod stats;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::Client;
pub use self::journal::{End, Journal, Record};
pub use self::stats::{Failures, Latencies, Reason, Seen, Stats};

/// Workers, and so connections to each target.
const CONNECTIONS_MAX: usize = 10_000;
/// The pause of a worker that found nobody listening, so that full speed does not become a spin.
const CONNECT_RETRY: Duration = Duration::from_millis(10);
const COMPLETIONS_PATH: &str = "/v1/chat/completions";

/// What to send, where and how fast.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// `http://host:port`, or with a path where it is not the usual one; tickets take turns.
    pub targets: Vec<String>,
    pub pace: Pace,
    /// Connections to each target, and requests in flight in all.
    pub connections: usize,
    /// The share of requests that stream, 0 to 1, spread evenly.
    pub streaming_share: f64,
    pub model: String,
    /// The one message of each request.
    pub prompt: String,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// Response headers whose values are counted.
    pub count_headers: Vec<HeaderName>,
    /// For a whole exchange, connecting included.
    pub timeout: Duration,
    /// Where a target cannot be connected to, or drops the connection before anything of an answer came, the
    /// request is sent to the next one.
    pub retries: bool,
    /// Where to write what came of each exchange.
    pub journal: Option<Journal>,
    /// End after so many requests; `None` goes on until stopped.
    pub requests_max: Option<u64>,
}

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            pace: Pace::FullSpeed,
            connections: 16,
            streaming_share: 0.0,
            model: "mock-model".into(),
            prompt: "Say something golden.".into(),
            headers: HeaderMap::new(),
            count_headers: Vec::new(),
            timeout: Duration::from_secs(30),
            retries: false,
            journal: None,
            requests_max: None,
        }
    }
}

/// How fast requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Evenly, so many each second; late ones are sent as soon as a connection is free.
    PerSecond(f64),
    /// The next one as soon as the one before was answered, on every connection.
    FullSpeed,
}

/// A running load. Dropping it ends it at once.
#[derive(Debug)]
pub struct Load {
    plan: Arc<Plan>,
    tallies: Vec<Arc<Mutex<Stats>>>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Load {
    /// Starts to send, on the caller's runtime. Fails on a config that makes no sense.
    pub fn start(config: LoadConfig) -> anyhow::Result<Self> {
        let connections = config.connections;
        anyhow::ensure!(
            (1..=CONNECTIONS_MAX).contains(&connections),
            "connections is {connections}, must be 1 to {CONNECTIONS_MAX}"
        );
        let plan = Arc::new(Plan::new(config)?);
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        let mut tallies = Vec::with_capacity(connections);
        for _ in 0..connections {
            let tally = Arc::new(Mutex::new(Stats::new(&plan.count_headers)));
            tallies.push(Arc::clone(&tally));
            workers.spawn(work(Arc::clone(&plan), tally, stopped.clone()));
        }
        Ok(Self { plan, tallies, stop, workers })
    }

    /// Sends nothing more to a target, as the index says, until it is opened again: the next one stands in.
    pub fn close(&self, target: usize) {
        self.plan.targets[target].is_closed.store(true, Relaxed);
    }

    pub fn open(&self, target: usize) {
        self.plan.targets[target].is_closed.store(false, Relaxed);
    }

    /// What has come of it so far.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::new(&self.plan.count_headers);
        for tally in &self.tallies {
            sum.add(&lock(tally));
        }
        sum.elapsed = self.plan.started.elapsed();
        sum
    }

    /// Sends no more, waits for what is in flight (at most the timeout), and tells the final counts:
    /// `sent` is then `ok + shed + failed()`.
    pub async fn stop(self) -> Stats {
        self.stop.send_replace(true);
        self.finish().await
    }

    /// Waits until `requests_max` were sent and answered.
    pub async fn finish(mut self) -> Stats {
        while let Some(joined) = self.workers.join_next().await {
            if let Err(error) = joined {
                lock(&self.tallies[0]).fail(Reason::Client, format!("a worker ended: {error}"));
            }
        }
        self.stats()
    }
}

fn lock(tally: &Mutex<Stats>) -> std::sync::MutexGuard<'_, Stats> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every worker needs to know.
#[derive(Debug)]
struct Plan {
    targets: Vec<Target>,
    interval: Option<Duration>,
    streaming_share: f64,
    plain_body: Bytes,
    streaming_body: Bytes,
    headers: HeaderMap,
    count_headers: Vec<HeaderName>,
    timeout: Duration,
    retries: bool,
    journal: Option<Journal>,
    requests_max: u64,
    started: Instant,
    next_ticket: AtomicU64,
}

#[derive(Debug)]
struct Target {
    /// `host:port`, to connect to and to send as `host`.
    authority: String,
    host: HeaderValue,
    path: Uri,
    is_closed: AtomicBool,
}

/// One request to be sent.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    number: u64,
    target: usize,
    streams: bool,
    due: Option<Instant>,
}

impl Plan {
    fn new(config: LoadConfig) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.targets.is_empty(), "targets is empty, must name one or more");
        let targets =
            config.targets.iter().map(|url| target(url)).collect::<anyhow::Result<Vec<_>>>()?;
        let interval = match config.pace {
            Pace::FullSpeed => None,
            Pace::PerSecond(rate) => Some(
                Duration::try_from_secs_f64(1.0 / rate)
                    .ok()
                    .filter(|interval| !interval.is_zero())
                    .with_context(|| format!("{rate} requests per second, must be above 0"))?,
            ),
        };
        let share = config.streaming_share;
        anyhow::ensure!((0.0..=1.0).contains(&share), "streaming_share is {share}, must be 0 to 1");
        let body = |stream: bool| {
            let messages = json!([{ "role": "user", "content": config.prompt }]);
            json!({ "model": config.model, "messages": messages, "stream": stream }).to_string()
        };
        let mut headers = config.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            targets,
            interval,
            streaming_share: share,
            plain_body: body(false).into(),
            streaming_body: body(true).into(),
            headers,
            count_headers: config.count_headers,
            timeout: config.timeout,
            retries: config.retries,
            journal: config.journal,
            requests_max: config.requests_max.unwrap_or(u64::MAX),
            started: Instant::now(),
            next_ticket: AtomicU64::new(0),
        })
    }

    fn take_ticket(&self) -> Option<Ticket> {
        let number = self.next_ticket.fetch_add(1, Relaxed);
        if number >= self.requests_max {
            return None;
        }
        let targets = self.targets.len() as u64;
        // Within a target's own count, or every other target would get all the streams.
        let streams_before = |n: u64| (n as f64 * self.streaming_share).floor();
        let of_target = number / targets;
        Some(Ticket {
            number,
            // Less than a `Vec`'s length.
            target: (number % targets) as usize,
            streams: streams_before(of_target + 1) > streams_before(of_target),
            due: self.interval.map(|interval| self.started + interval.mul_f64(number as f64)),
        })
    }

    /// The first one that is open, from this one on; this one where none is.
    fn open_target(&self, first: usize) -> usize {
        let count = self.targets.len();
        let mut targets = (first..first + count).map(|target| target % count);
        targets.find(|target| !self.targets[*target].is_closed.load(Relaxed)).unwrap_or(first)
    }

    fn request(&self, ticket: Ticket) -> Request<Full<Bytes>> {
        let body = if ticket.streams { &self.streaming_body } else { &self.plain_body };
        let target = &self.targets[ticket.target];
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.path.clone();
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().insert(HOST, target.host.clone());
        request
    }
}

fn target(url: &str) -> anyhow::Result<Target> {
    let uri: Uri = url.parse().with_context(|| format!("target {url:?} is no URL"))?;
    anyhow::ensure!(uri.scheme_str() == Some("http"), "target {url:?} must start with http://");
    let host = uri.host().with_context(|| format!("target {url:?} names no host"))?;
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
    let path = match uri.path_and_query() {
        Some(path) if path.as_str() != "/" => path.clone(),
        _ => PathAndQuery::from_static(COMPLETIONS_PATH),
    };
    let host = HeaderValue::from_str(&authority)
        .with_context(|| format!("target {url:?}: the host is no header value"))?;
    Ok(Target { authority, host, path: Uri::from(path), is_closed: AtomicBool::new(false) })
}

/// One worker: takes tickets until there are none or the load is stopped.
async fn work(plan: Arc<Plan>, tally: Arc<Mutex<Stats>>, mut stopped: watch::Receiver<bool>) {
    let mut clients: Vec<Client> =
        plan.targets.iter().map(|target| Client::new(&target.authority)).collect();
    while !*stopped.borrow()
        && let Some(mut ticket) = plan.take_ticket()
    {
        let mut begun = Instant::now();
        if let Some(due) = ticket.due {
            if due > begun {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    _ = stopped.changed() => return,
                }
                // The timer's own lateness is not the server's.
                begun = Instant::now();
            } else {
                begun = due;
            }
        }
        let mut tries_left = if plan.retries { clients.len() } else { 1 };
        while tries_left > 0 {
            tries_left -= 1;
            ticket.target = plan.open_target(ticket.target);
            let is_dropped = exchange(&plan, &tally, &mut clients, ticket, begun).await;
            if !is_dropped {
                break;
            }
            ticket.target = (ticket.target + 1) % clients.len();
        }
    }
}

/// Sends a ticket's request to its target; whether that one dropped it.
async fn exchange(
    plan: &Plan,
    tally: &Mutex<Stats>,
    clients: &mut [Client],
    ticket: Ticket,
    begun: Instant,
) -> bool {
    lock(tally).sent += 1;
    let (sent, client) = (Instant::now(), &mut clients[ticket.target]);
    let exchange = client.exchange(plan.request(ticket), ticket.streams);
    let outcome = match tokio::time::timeout(plan.timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => client.timed_out(plan.timeout),
    };
    let (is_unconnected, is_dropped) = (outcome.is_unconnected(), outcome.is_dropped());
    if let Some(journal) = &plan.journal {
        let Ticket { number, target, streams, .. } = ticket;
        journal.write(Record::new(number, target, streams, sent, &outcome));
    }
    lock(tally).record(begun, &plan.targets[ticket.target].authority, outcome);
    if is_unconnected {
        tokio::time::sleep(CONNECT_RETRY).await;
    }
    is_dropped
}
