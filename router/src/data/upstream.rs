//! Connections to upstreams: one stack of idle ones per address, on each data thread.

mod connection;
mod head;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use http::Uri;
use mrgc_fleet::health::Outcome;
use rustc_hash::FxHashMap;
use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::{alarm, wire::WireError};

pub(super) use connection::Connection;

/// Idle connections older than this are not used: servers close theirs, and one closed in the moment
/// we write costs an attempt.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A machine that vanishes says nothing: after so much silence its kernel is asked, and as often again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;

/// How long what was sent may go unacknowledged before the connection counts as broken. That of a server which
/// does not read looks the same once its buffers are full: a long body, which cannot be sent again, is given the
/// longer time.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// Why an upstream did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: String },
    /// This machine is short of something.
    #[error("no socket is left to connect to {address}: {error}")]
    NoSocket { address: String, error: io::Error },
    #[error("{address} did not answer: {error}")]
    Broken { address: String, error: WireError },
    /// `by_request`: it was the request's own deadline, or its body took the time.
    #[error("{address} did not answer within {ms} ms")]
    Timeout { address: String, ms: u64, by_request: bool },
    #[error("{address} did not answer before it turned out to be lost")]
    Lost { address: String },
}

impl SendError {
    /// What it is to the request. One that was sent to nobody, or to who is gone, has lost nothing by it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect { .. } | Self::NoSocket { .. } | Self::Lost { .. } => {
                Outcome::Unreachable
            }
            Self::Broken { .. } => Outcome::Broken,
            Self::Timeout { .. } => Outcome::TimedOut,
        }
    }
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

/// How a connection is to be had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub timeout: Duration,
    /// One that was used before will do.
    pub may_reuse: bool,
    /// The request is too long to be kept, and cannot be sent again.
    pub is_streamed: bool,
}

/// A connection to use, and whether it was used before. Connecting ends early where the address `is_lost`.
pub(super) async fn connection(
    idle: &RefCell<Idle>,
    address: &str,
    terms: Terms,
    is_lost: impl Fn() -> bool,
) -> Result<(Box<Connection>, bool), SendError> {
    let waiting = if terms.may_reuse { idle.borrow_mut().take(address) } else { None };
    match waiting {
        Some(connection) => Ok((connection, true)),
        None => {
            // Boxed, for it is rare: its room is then not every request's.
            let stream = Box::pin(connect(address, terms, is_lost)).await?;
            Ok((Box::new(Connection::new(address.into(), stream)), false))
        }
    }
}

async fn connect(
    address: &str,
    terms: Terms,
    is_lost: impl Fn() -> bool,
) -> Result<TcpStream, SendError> {
    let Terms { timeout, is_streamed, .. } = terms;
    let mut connecting = pin!(TcpStream::connect(address));
    let unless_lost = poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Pending if is_lost() => Poll::Ready(None),
        stream => stream.map(Some),
    });
    let address = || address.to_owned();
    let Some(connected) = alarm::within(timeout, unless_lost).await else {
        let error = format!("no answer within {} ms", timeout.as_millis());
        return Err(SendError::Connect { address: address(), error });
    };
    let stream = connected.ok_or_else(|| SendError::Lost { address: address() })?;
    let prepared = stream.and_then(|stream| {
        prepare(&stream, if is_streamed { UNREAD_MAX } else { SILENCE_MAX })?;
        Ok(stream)
    });
    prepared.map_err(|error| match is_ours(&error) {
        true => SendError::NoSocket { address: address(), error },
        false => SendError::Connect { address: address(), error: error.to_string() },
    })
}

/// Whether this machine, and not the other, is why there is no connection.
fn is_ours(error: &io::Error) -> bool {
    let short_of = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| short_of.contains(&errno))
}

fn prepare(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_INTERVAL)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(silence))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_here_is_not_held_against_who_could_not_be_reached() {
        for (errno, expected) in [
            (Errno::MFILE, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::TIMEDOUT, false),
        ] {
            assert_eq!(is_ours(&errno.into()), expected, "{errno}");
        }
        assert!(!is_ours(&io::Error::other("no such host")));
    }
}
