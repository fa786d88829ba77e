//! A mock inference server: OpenAI's completions in front, vLLM's metrics beside them, and every way
//! of failing that a router has to survive.
//!
//! | path | what it does |
//! |---|---|
//! | `POST /v1/chat/completions` | answers plain or as SSE, within `slots`; the rest waits its turn |
//! | `GET /v1/models`, `GET /health` | what readiness probes ask |
//! | `GET /metrics` | vLLM's names, labelled with `model_name` |
//! | `GET /control`, `POST /control` | tells and changes [`Settings`], releases what is held |
//!
//! A completion goes `waiting → running → completed | failed | abandoned`; the last is a client that
//! went away, in whichever state. [`Failure`] touches completions only: as with a real engine that
//! is stuck, the probes go on answering.
//!
//! A request steers its own answer with headers: `x-mock-hold: 1` sends the first piece (of a plain
//! answer: nothing) and waits for a release; `x-mock-bytes: n` (or `"mock": {"bytes": n}` in the
//! body) answers `n` bytes of [`filler_byte`]; `x-mock-echo: 1` puts the request's headers under
//! `received_headers`. Every answer carries `x-served-by`.

mod body;
mod completion;
mod metrics;
mod service;
mod state;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::body::filler_byte;
use self::state::State;

/// Connections held at once; one more is closed on arrival and counted as refused.
const CONNECTIONS_MAX: usize = 16_384;
/// How long [`ModelServer::stop`] lets requests in flight go on.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The pause after `accept` failed, which it does when file descriptors run out.
const ACCEPT_RETRY: Duration = Duration::from_millis(10);

/// How one server is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What `x-served-by` says.
    pub name: String,
    /// The one model served; a request for another gets 404.
    pub model: String,
    /// Completions that run at once.
    pub slots: usize,
    /// How long a completion takes once it runs, spread evenly over its tokens.
    pub latency_ms: u64,
    /// Tokens in each completion, at least 1.
    pub tokens: u32,
    /// How completions fail from the start.
    pub failure: Failure,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            name: "mock".into(),
            model: "mock-model".into(),
            slots: 4,
            latency_ms: 80,
            tokens: 20,
            failure: Failure::None,
        }
    }
}

/// How completions fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Failure {
    /// They do not.
    #[default]
    None,
    /// Answers 500 at once.
    #[serde(rename = "500")]
    #[value(name = "500")]
    InternalError,
    /// Takes a slot and answers nothing; a release closes the connection.
    Hang,
    /// Closes the connection with no answer.
    Close,
    /// Answers the head and the first piece, then closes the connection.
    Cut,
    /// Takes ten times as long, and at least a second.
    Slow,
}

/// What can be changed while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub failure: Failure,
    pub latency_ms: u64,
}

/// How many completions are where. `received` is the sum of the other five but for a request
/// between two of them; `refused` counts connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub received: u64,
    pub waiting: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    pub abandoned: u64,
    pub refused: u64,
}

/// A running server. Dropping it ends the server and its connections at once, as a crash would.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
}

impl ModelServer {
    /// Listens and serves on the caller's runtime.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let listen = config.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr().context("a listener has no address")?;
        let state = Arc::new(State::new(config)?);
        let (stop, stopped) = watch::channel(false);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&state), stopped));
        Ok(Self { address, state, stop, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's base address, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    pub fn settings(&self) -> Settings {
        self.state.settings()
    }

    /// Changes how completions fail, from the next one on.
    pub fn set_failure(&self, failure: Failure) {
        self.state.change(|settings| settings.failure = failure);
    }

    /// Changes how long completions take, from the next one on.
    pub fn set_latency_ms(&self, latency_ms: u64) {
        self.state.change(|settings| settings.latency_ms = latency_ms);
    }

    /// Lets every request that is held or hangs go on.
    pub fn release(&self) {
        self.state.release();
    }

    /// Stops accepting, lets requests in flight finish (held ones are released), and closes what
    /// still runs after five seconds.
    pub async fn stop(mut self) -> Counters {
        self.stop.send_replace(true);
        self.state.release();
        while self.accepting.join_next().await.is_some() {}
        self.state.counters()
    }
}

/// Owns the listener and the connections: when it is aborted, they all end.
async fn accept(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(serve(stream, Arc::clone(&state), stopped.clone()));
                }
                Ok(_) => state.refuse(),
                Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is left when the time is up is aborted with the set.
    let _ = tokio::time::timeout(DRAIN_MAX, drained).await;
}

/// Serves one connection until either side ends it, or gracefully once the server stops.
async fn serve(stream: TcpStream, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    if set_up(&stream).is_err() {
        return;
    }
    let answer = service_fn(|request| service::answer(Arc::clone(&state), request));
    let mut connection =
        std::pin::pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    // An error here is a client that went away or a failure that was asked for; both are counted
    // where they happen.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// SSE events are small and must leave at once.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}
