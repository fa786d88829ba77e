//! Connections to upstreams: one stack of idle ones per address, on each data thread.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{alarm, body::RequestBody};

/// Idle connections older than this are not used: servers close theirs, and one closed in the moment
/// we write costs an attempt.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why an upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// Nothing of the request went out; the body is whole.
    #[error("cannot connect to {address}: {error}")]
    Connect { address: Arc<str>, error: String, request: Box<Request<RequestBody>> },
    #[error("{address} dropped the connection before it answered: {error}")]
    Reset { address: Arc<str>, error: String, kept: bool },
    #[error("{address} did not answer within {ms} ms")]
    Timeout { address: Arc<str>, ms: u64 },
}

/// A connection that carries one request at a time.
pub(super) type Connection = SendRequest<RequestBody>;

/// The idle connections of a data thread.
#[derive(Debug, Default)]
pub(super) struct Idle {
    by_address: HashMap<Arc<str>, Vec<(Connection, Instant)>>,
}

impl Idle {
    fn take(&mut self, address: &Arc<str>) -> Option<Connection> {
        let stack = self.by_address.get_mut(address)?;
        while let Some((connection, since)) = stack.pop() {
            if !connection.is_closed() && alarm::now() - since < IDLE_MAX {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended, up to `most` for an address.
    pub fn keep(&mut self, address: &Arc<str>, connection: Connection, most: usize) {
        if connection.is_closed() {
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
            stack.retain(|(connection, since)| {
                !connection.is_closed() && alarm::now() - *since < IDLE_MAX
            });
        }
        self.by_address.retain(|_, stack| !stack.is_empty());
    }
}

/// Sends a request and waits for the head of its response.
///
/// `idle` is borrowed only between awaits. A request that an idle connection hands back unsent goes out
/// on another one. `kept` allows idle connections at all.
pub(super) async fn send(
    idle: &std::cell::RefCell<Idle>,
    address: &Arc<str>,
    mut request: Request<RequestBody>,
    connect_timeout: Duration,
    answer_timeout: Duration,
    kept: bool,
) -> Result<(Response<Incoming>, Connection), SendError> {
    loop {
        let waiting = if kept { idle.borrow_mut().take(address) } else { None };
        let is_kept = waiting.is_some();
        let mut connection = match waiting {
            Some(mut connection) => match connection.ready().await {
                Ok(()) => connection,
                Err(_) => continue,
            },
            None => match connect(address, connect_timeout).await {
                Ok(connection) => connection,
                Err(error) => {
                    let (address, request) = (address.clone(), Box::new(request));
                    return Err(SendError::Connect { address, error, request });
                }
            },
        };
        let answer = connection.try_send_request(request);
        match alarm::within(answer_timeout, answer).await {
            Some(Ok(response)) => return Ok((response, connection)),
            Some(Err(mut unsent)) => match unsent.take_message() {
                Some(message) => request = message,
                None => {
                    let error = describe(&unsent.into_error());
                    return Err(SendError::Reset {
                        address: address.clone(),
                        error,
                        kept: is_kept,
                    });
                }
            },
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
    let (connection, io) = hyper::client::conn::http1::Builder::new()
        // Heads and bodies are short: one copy costs less than a vectored write.
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| describe(&e))?;
    tokio::task::spawn_local(async move {
        // Its end shows on the requests it carried.
        let _ = io.await;
    });
    Ok(connection)
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
