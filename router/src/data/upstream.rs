//! Connections to upstreams: one stack of idle ones per address, on each data thread.

mod connection;
mod head;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use http::Uri;
use rustc_hash::FxHashMap;
use tokio::net::TcpStream;

use super::{alarm, wire::WireError};

pub(super) use connection::Connection;

/// Idle connections older than this are not used: servers close theirs, and one closed in the moment
/// we write costs an attempt.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Why an upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: String },
    #[error("{address} did not answer: {error}")]
    Broken { address: String, error: WireError },
    #[error("{address} did not answer within {ms} ms")]
    Timeout { address: String, ms: u64 },
}

/// The idle connections of a data thread.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Boxed, for they move from hand to hand.
    by_address: FxHashMap<Rc<str>, Vec<(Box<Connection>, Instant)>>,
}

impl Idle {
    fn take(&mut self, address: &str) -> Option<Box<Connection>> {
        let stack = self.by_address.get_mut(address)?;
        while let Some((connection, since)) = stack.pop() {
            if connection.is_quiet() && alarm::now() - since < IDLE_MAX {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose response has ended, up to `most` for an address.
    pub fn keep(&mut self, connection: Box<Connection>, most: usize) {
        if !connection.is_free() {
            return;
        }
        match self.by_address.get_mut(connection.address()) {
            Some(stack) if stack.len() >= most => {}
            Some(stack) => stack.push((connection, alarm::now())),
            None if most == 0 => {}
            None => {
                let address = connection.address().clone();
                self.by_address.insert(address, vec![(connection, alarm::now())]);
            }
        }
    }

    /// Closes what nobody used for long, and forgets addresses that are gone.
    pub fn sweep(&mut self) {
        for stack in self.by_address.values_mut() {
            stack.retain(|(connection, since)| {
                connection.is_quiet() && alarm::now() - *since < IDLE_MAX
            });
        }
        self.by_address.retain(|_, stack| !stack.is_empty());
    }
}

/// A connection to use, and whether it was used before. `idle` is asked first where `kept` allows it.
pub(super) async fn connection(
    idle: &RefCell<Idle>,
    address: &str,
    timeout: Duration,
    kept: bool,
) -> Result<(Box<Connection>, bool), SendError> {
    let waiting = if kept { idle.borrow_mut().take(address) } else { None };
    match waiting {
        Some(connection) => Ok((connection, true)),
        // Boxed, for it is rare: its room is then not every request's.
        None => match Box::pin(connect(address, timeout)).await {
            Ok(stream) => Ok((Box::new(Connection::new(address.into(), stream)), false)),
            Err(error) => Err(SendError::Connect { address: address.to_owned(), error }),
        },
    }
}

async fn connect(address: &str, timeout: Duration) -> Result<TcpStream, String> {
    let stream = alarm::within(timeout, TcpStream::connect(address))
        .await
        .ok_or_else(|| format!("no answer within {} ms", timeout.as_millis()))?
        .map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

/// `host:port` of an `http://` URL.
pub(super) fn address_of(endpoint: &str) -> Option<String> {
    let uri: Uri = endpoint.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
    match authority.port_u16() {
        Some(_) => Some(authority.as_str().to_owned()),
        None => Some(format!("{}:80", authority.host())),
    }
}
