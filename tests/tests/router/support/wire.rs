//! Clients below the level of an HTTP library, and of HTTP/2.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mrgc_tests::cluster::PATIENCE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Sends bytes over a connection of their own and reads until the other side closes it. What cannot be
/// sent because that happens early is left out.
pub(crate) async fn raw(address: SocketAddr, request: &[u8]) -> Result<String> {
    let limit: Duration = PATIENCE;
    let mut stream = TcpStream::connect(address).await?;
    let exchange = async {
        let (mut from, mut to) = stream.split();
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(to.write_all(request), from.read_to_end(&mut answer));
        // A reset after the answer is the other side's way not to read on.
        match read {
            Err(e) if answer.is_empty() => Err(e).context("no answer"),
            _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
        }
    };
    timeout(limit, exchange).await.context("the connection stays open")?
}

/// An HTTP/2 connection with prior knowledge.
pub(crate) async fn h2(address: SocketAddr) -> Result<http2::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    // Its end shows on the requests.
    tokio::spawn(connection);
    Ok(sender)
}

/// Reads a stream until so many events have come, and gives all that came.
pub(crate) async fn until_events(
    response: &mut reqwest::Response,
    wanted: usize,
) -> Result<Vec<String>> {
    let mut text = String::new();
    while text.matches("\n\n").count() < wanted {
        let chunk = timeout(PATIENCE, response.chunk()).await.context("no further event")??;
        let chunk = chunk.with_context(|| format!("the stream ended after {text:?}"))?;
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    let events = text.split_terminator("\n\n");
    events.map(|e| Ok(e.strip_prefix("data: ").context("no data")?.to_owned())).collect()
}
