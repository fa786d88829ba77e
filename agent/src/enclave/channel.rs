//! The way to a program inside of the enclave: a line of JSON there, a line of JSON back, on a connection of
//! its own each time. Each question has a type and a nonce, and its answer the same nonce, and what was asked for
//! or an error.
//!
//! Sockets of vsock are no part of the async runtime, so the exchange blocks a thread, within a deadline. The
//! transport is an address and nothing else: what holds over a Unix socket holds over vsock.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use socket2::{SockAddr, Socket, Type};
use thiserror::Error;

/// A document in base64 and JSON.
const MAX_LINE_BYTES: usize = 32 << 10;

/// Enough of the enclave's own words to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 200;

/// Where the enclave's program listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// On this port of the enclave's vsock.
    Vsock { port: u32 },
    /// On a socket of this machine: a proxy to the enclave, or what stands in for one.
    Unix { path: PathBuf },
}

/// Why an exchange failed.
#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    #[error("nitro-cli does not tell the enclave's CID")]
    NoCid,
    #[error("the enclave cannot be reached at {at}: {error}")]
    Unreachable { at: String, error: io::Error },
    #[error("the enclave did not answer within {} ms", .0.as_millis())]
    TooSlow(Duration),
    #[error("the connection to the enclave broke off: {0}")]
    Broken(io::Error),
    #[error("the enclave answered with more than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("the enclave answered with {0}")]
    Garbled(String),
    #[error("the enclave answered another question than the one it was asked")]
    OtherNonce,
    #[error("the enclave refused: {0}")]
    Refused(String),
    #[error("the exchange with the enclave did not end: {0}")]
    Lost(#[from] tokio::task::JoinError),
}

#[derive(Deserialize)]
struct Answer<T> {
    nonce: String,
    #[serde(default)]
    error: Option<String>,
    #[serde(flatten)]
    said: T,
}

impl Channel {
    /// Asks what is of this type, and gives what the answer says besides. `cid` is the enclave's address.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        cid: Option<u32>,
        kind: &str,
        nonce: &str,
        timeout: Duration,
    ) -> Result<T, ChannelError> {
        let question = json!({ "type": kind, "nonce": nonce });
        let answer: Answer<T> = self.exchange(cid, format!("{question}\n"), timeout).await?;
        match answer.error {
            _ if answer.nonce != nonce => Err(ChannelError::OtherNonce),
            Some(error) => Err(ChannelError::Refused(error)),
            None => Ok(answer.said),
        }
    }

    /// Sends a line and reads the one that answers it.
    async fn exchange<T: DeserializeOwned>(
        &self,
        cid: Option<u32>,
        line: String,
        timeout: Duration,
    ) -> Result<T, ChannelError> {
        let (address, at) = self.address(cid)?;
        let asked = tokio::task::spawn_blocking(move || {
            Exchange::new(timeout).run(&address, at, line.as_bytes())
        });
        let answer = asked.await??;
        serde_json::from_slice(&answer).map_err(|error| {
            let text = String::from_utf8_lossy(&answer);
            let quoted = &text[..text.floor_char_boundary(MAX_QUOTED_BYTES)];
            ChannelError::Garbled(format!("what is no answer ({error}): {quoted}"))
        })
    }

    fn address(&self, cid: Option<u32>) -> Result<(SockAddr, String), ChannelError> {
        match self {
            Self::Vsock { port } => {
                let cid = cid.ok_or(ChannelError::NoCid)?;
                Ok((SockAddr::vsock(cid, *port), format!("vsock {cid}:{port}")))
            }
            Self::Unix { path } => {
                let at = path.display().to_string();
                match SockAddr::unix(path) {
                    Ok(address) => Ok((address, at)),
                    Err(error) => Err(ChannelError::Unreachable { at, error }),
                }
            }
        }
    }
}

struct Exchange {
    timeout: Duration,
    end: Instant,
}

impl Exchange {
    fn new(timeout: Duration) -> Self {
        Self { timeout, end: Instant::now() + timeout }
    }

    fn run(&self, address: &SockAddr, at: String, line: &[u8]) -> Result<Vec<u8>, ChannelError> {
        let connect = || {
            let socket = Socket::new(address.domain(), Type::STREAM, None)?;
            socket.connect_timeout(address, self.timeout)?;
            Ok(socket)
        };
        let mut socket = connect().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => ChannelError::TooSlow(self.timeout),
            _ => ChannelError::Unreachable { at, error },
        })?;
        socket.set_write_timeout(Some(self.left()?)).map_err(ChannelError::Broken)?;
        socket.write_all(line).map_err(|error| self.failed(error))?;
        self.read_line(&mut socket)
    }

    fn read_line(&self, socket: &mut Socket) -> Result<Vec<u8>, ChannelError> {
        let (mut line, mut part) = (Vec::new(), [0; 4096]);
        loop {
            socket.set_read_timeout(Some(self.left()?)).map_err(ChannelError::Broken)?;
            let read = match socket.read(&mut part) {
                Ok(0) => return Err(ChannelError::Garbled("a line that does not end".to_owned())),
                Ok(read) => &part[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            let end = read.iter().position(|byte| *byte == b'\n');
            line.extend_from_slice(&read[..end.unwrap_or(read.len())]);
            if line.len() > MAX_LINE_BYTES {
                return Err(ChannelError::TooLong);
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    /// What is left of the time: never none, which would mean for ever.
    fn left(&self) -> Result<Duration, ChannelError> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ChannelError::TooSlow(self.timeout)) } else { Ok(left) }
    }

    fn failed(&self, error: io::Error) -> ChannelError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ChannelError::TooSlow(self.timeout)
            }
            _ => ChannelError::Broken(error),
        }
    }
}

#[cfg(test)]
mod tests;
