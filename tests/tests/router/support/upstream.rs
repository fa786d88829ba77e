//! Upstreams that a model server cannot be: ones that answer given bytes, and ones where nobody listens.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};

/// Of a body, at a time.
const READ_BYTES: usize = 64 << 10;

/// A longer head is not read on.
const HEAD_MAX: usize = 64 << 10;

/// An address where nobody listens, and nobody else will: connecting to it is refused at once.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Dead {
    pub(crate) fn new() -> Result<Self> {
        let bound = TcpSocket::new_v4()?;
        bound.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        Ok(Self { address: bound.local_addr()?, _bound: bound })
    }
}

/// Reads one whole request from each connection, answers the given bytes, and closes.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: AtomicUsize,
    body_bytes: AtomicUsize,
}

impl Scripted {
    pub(crate) async fn start(answer: &'static str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        let seen_there = seen.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen_there.clone();
                connections.spawn(async move {
                    // Whoever went away is not waited for.
                    let _ = serve(stream, answer, &seen).await;
                });
            }
        });
        Ok(Self { address, seen, _serving: serving })
    }

    /// Requests read so far, whole ones. Pings are none.
    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Relaxed)
    }

    /// Bytes of bodies read so far, with what frames them.
    pub(crate) fn body_bytes(&self) -> usize {
        self.seen.body_bytes.load(Relaxed)
    }
}

async fn serve(mut stream: TcpStream, answer: &str, seen: &Seen) -> io::Result<()> {
    let mut start = Vec::new();
    let head_len = loop {
        if let Some(at) = start.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if start.len() > HEAD_MAX || stream.read_buf(&mut start).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&start[..head_len]).to_ascii_lowercase();
    let mut end = Ending::of(&head);
    let mut piece = start.split_off(head_len);
    while !end.take(&piece, seen) {
        piece.clear();
        piece.reserve(READ_BYTES);
        if stream.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
    }
    seen.requests.fetch_add(usize::from(!head.starts_with("get /health ")), Relaxed);
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// How a body ends.
enum Ending {
    After(usize),
    /// With the empty chunk; the last bytes so far.
    Chunk(Vec<u8>),
}

impl Ending {
    fn of(head: &str) -> Self {
        if head.contains("transfer-encoding: chunked") {
            return Self::Chunk(Vec::new());
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        Self::After(length.and_then(|length| length.trim().parse().ok()).unwrap_or(0))
    }

    /// Takes the next piece of a body; true at its end.
    fn take(&mut self, piece: &[u8], seen: &Seen) -> bool {
        const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
        seen.body_bytes.fetch_add(piece.len(), Relaxed);
        match self {
            Self::After(left) => {
                *left = left.saturating_sub(piece.len());
                *left == 0
            }
            Self::Chunk(tail) => {
                tail.extend_from_slice(&piece[piece.len().saturating_sub(LAST_CHUNK.len())..]);
                tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
                tail.ends_with(LAST_CHUNK)
            }
        }
    }
}
