//! Connections to upstreams: one stack of idle ones per address, on each data thread.
//!
//! A connection has no task of its own: whoever waits for its response, or for the response's body, drives
//! it. That saves each request the channel and the wake-ups between two tasks. Only a request whose body is
//! still coming gets a task for its connection, since client and upstream may then both be sending.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use super::{alarm, body::RequestBody};

/// Idle connections older than this are not used: servers close theirs, and one closed in the moment
/// we write costs an attempt.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why an upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: Arc<str>, error: String },
    #[error("{address} dropped the connection before it answered: {error}")]
    Reset { address: Arc<str>, error: String, kept: bool },
    #[error("{address} did not answer within {ms} ms")]
    Timeout { address: Arc<str>, ms: u64 },
}

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    requests: http1::SendRequest<RequestBody>,
    io: Io,
}

/// The side of a connection that reads and writes; `None` once it has ended, or where a task drives it.
#[derive(Debug)]
struct Io(Option<Pin<Box<Wire>>>);

type Wire = http1::Connection<TokioIo<TcpStream>, RequestBody>;

impl Io {
    /// Reads and writes what it can; `cx` is woken when it can do more. Its end, good or bad, shows on the
    /// request it carries.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|io| io.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }

    fn drive_by_task(&mut self) {
        if let Some(io) = self.0.take() {
            tokio::task::spawn_local(async move {
                let _ = io.await;
            });
        }
    }
}

impl Connection {
    /// To be called by whoever waits for the body of the response.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        self.io.drive(cx);
    }

    /// Whether it can carry another request, as far as is known without waiting.
    fn is_usable(&mut self) -> bool {
        self.io.drive(&mut Context::from_waker(Waker::noop()));
        self.io.0.is_some() && !self.requests.is_closed()
    }

    /// Sends a request; then the head of its response is to be waited for.
    fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        if matches!(request.body(), RequestBody::Streamed { .. }) {
            self.io.drive_by_task();
        }
        Driven { answer: self.requests.try_send_request(request), io: &mut self.io }
    }
}

pin_project! {
    /// An answer that is waited for while its connection is driven.
    struct Driven<'a, F> {
        #[pin]
        answer: F,
        io: &'a mut Io,
    }
}

impl<F: Future> Future for Driven<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.io.drive(cx);
        this.answer.poll(cx)
    }
}

/// The idle connections of a data thread.
#[derive(Debug, Default)]
pub(super) struct Idle {
    by_address: HashMap<Arc<str>, Vec<(Connection, Instant)>>,
}

impl Idle {
    fn take(&mut self, address: &Arc<str>) -> Option<Connection> {
        let stack = self.by_address.get_mut(address)?;
        while let Some((mut connection, since)) = stack.pop() {
            if connection.is_usable() && alarm::now() - since < IDLE_MAX {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended, up to `most` for an address. Whether it is still open
    /// is asked when it is to be used; one that a task drives cannot be asked.
    pub fn keep(&mut self, address: &Arc<str>, connection: Connection, most: usize) {
        if connection.io.0.is_none() {
            return;
        }
        match self.by_address.get_mut(address) {
            Some(stack) if stack.len() >= most => {}
            Some(stack) => stack.push((connection, alarm::now())),
            None => {
                self.by_address.insert(address.clone(), vec![(connection, alarm::now())]);
            }
        }
    }

    /// Closes what nobody used for long, and forgets addresses that are gone.
    pub fn sweep(&mut self) {
        for stack in self.by_address.values_mut() {
            stack.retain_mut(|(connection, since)| {
                connection.is_usable() && alarm::now() - *since < IDLE_MAX
            });
        }
        self.by_address.retain(|_, stack| !stack.is_empty());
    }
}

/// Sends a request and waits for the head of its response.
///
/// The request is taken out of its place once it is sent, and is in it again where nothing of it went out.
/// `idle` is borrowed only between awaits; `kept` allows idle connections at all. A request that one of
/// them hands back unsent goes out on another one.
pub(super) async fn send(
    idle: &std::cell::RefCell<Idle>,
    address: &Arc<str>,
    request: &mut Option<Request<RequestBody>>,
    connect_timeout: Duration,
    answer_timeout: Duration,
    kept: bool,
) -> Result<(Response<Incoming>, Connection), SendError> {
    loop {
        let waiting = if kept { idle.borrow_mut().take(address) } else { None };
        let is_kept = waiting.is_some();
        let reset = |error| SendError::Reset { address: address.clone(), error, kept: is_kept };
        let mut connection = match waiting {
            Some(connection) => connection,
            // Boxed, for it is rare: its room is then not every request's.
            None => Box::pin(connect(address, connect_timeout))
                .await
                .map_err(|error| SendError::Connect { address: address.clone(), error })?,
        };
        let Some(message) = request.take() else { return Err(reset("sent already".to_owned())) };
        match alarm::within(answer_timeout, connection.send(message)).await {
            Some(Ok(response)) => return Ok((response, connection)),
            Some(Err(mut failed)) => {
                *request = failed.take_message();
                if request.is_none() || !is_kept {
                    return Err(reset(describe(&failed.into_error())));
                }
            }
            None => {
                let ms = answer_timeout.as_millis() as u64;
                return Err(SendError::Timeout { address: address.clone(), ms });
            }
        }
    }
}

async fn connect(address: &str, timeout: Duration) -> Result<Connection, String> {
    let stream = alarm::within(timeout, TcpStream::connect(address))
        .await
        .ok_or_else(|| format!("no answer within {} ms", timeout.as_millis()))?
        .map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let (requests, io) = http1::Builder::new()
        // Heads and bodies are short: one copy costs less than a vectored write.
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| describe(&e))?;
    Ok(Connection { requests, io: Io(Some(Box::pin(io))) })
}

/// An error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
