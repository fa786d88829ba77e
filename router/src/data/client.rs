//! One client's connection: HTTP/1.1, or HTTP/2 with prior knowledge.

mod body;
mod head;
mod http1;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    alarm::{self, Alarm, HyperTimer},
    journey,
    shard::Shard,
};

pub(super) use body::ClientBody;

/// How long a client may take to send a request's head, also on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How a connection begins that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Before the second look at a connection that has sent a part of that; it doubles with each.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// Longer than any connection.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Streams of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 1024;

pub(super) async fn serve(shard: Rc<Shard>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let speaks = {
        let mut look = pin!(speaks_http2(&stream));
        // The timer's alarm rings when the thread is told to stop, too.
        let speaks = poll_fn(|cx| match look.as_mut().poll(cx) {
            Poll::Pending if shard.stopping.get() => Poll::Ready(None),
            speaks => speaks.map(Some),
        });
        alarm::within(HEAD_TIMEOUT, speaks).await.flatten()
    };
    match speaks {
        // Boxed, for few do: its room is then not every connection's.
        Some(true) => Box::pin(serve_http2(shard, stream)).await,
        Some(false) => http1::serve(shard, stream).await,
        None => {}
    }
}

/// Looks at how the connection begins, and leaves it there to be read.
async fn speaks_http2(stream: &TcpStream) -> bool {
    let mut start = [0; PREFACE.len()];
    let mut pause = PREFACE_PAUSE;
    loop {
        let read = stream.peek(&mut start).await.unwrap_or_default();
        if read == start.len() || read == 0 || !PREFACE.starts_with(&start[..read]) {
            return start == PREFACE;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn serve_http2(shard: Rc<Shard>, stream: TcpStream) {
    let head_bytes = shard.config().limits.head_bytes;
    let stopping = shard.stopping.clone();
    let mut server = http2::Builder::new(LocalExecutor);
    server
        .timer(HyperTimer)
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_header_list_size(head_bytes as u32)
        .max_concurrent_streams(MAX_STREAMS);
    let service = service_fn(move |request: Request<Incoming>| {
        let shard = shard.clone();
        async move { Ok::<_, Infallible>(journey::serve(shard, request.map(ClientBody::Http2)).await) }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // Armed while it lives, to be rung when the thread stops: cheaper than to ask at every wake-up.
    let mut bell = Alarm::at(alarm::now() + FOREVER);
    let mut told = false;
    let ended = poll_fn(|cx| {
        if !told && stopping.get() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if !told {
            bell.arm(cx.waker());
        }
        connection.as_mut().poll(cx)
    });
    if let Err(e) = ended.await {
        tracing::debug!("a client's connection ended: {e}");
    }
}

/// HTTP/2 streams are tasks of this thread, too.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
