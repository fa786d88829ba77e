//! A client's connection over HTTP/1.1: request after request, in one task.
//!
//! ```text
//!  wait for a head ─► serve ─► write the response ─► wait for a head
//!        │              └──── the client is gone ─────┴──► end
//!        └─ none in time, garbage, stopping ──────────────► end
//! ```

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::net::TcpStream;

use super::{
    HEAD_TIMEOUT,
    body::ClientBody,
    head::{self, Head, Sent},
};
use crate::data::{
    alarm,
    body::{Idle, ResponseBody},
    journey,
    shard::Shard,
    wire::{Reader, Sender, WireError},
};

/// For how long, and how much, a client may go on sending what nobody wants to read. Closed at once, the
/// connection would be reset, and the response with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Both sides of the connection. Shared with the body of the request that is served.
#[derive(Debug)]
pub(in crate::data) struct Wire {
    pub reader: Reader,
    sender: Sender<ResponseBody>,
    go_ahead: GoAhead,
    /// Who is to be told that the request's body has ended.
    watcher: Option<Waker>,
    /// It broke off.
    is_broken: bool,
}

/// The word that some clients wait for before they send a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GoAhead {
    Awaited,
    Said,
    /// Nobody waits for it, or the response has begun, which says as much.
    None,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (reader, sender) = (Reader::new(reader), Sender::new(writer));
        Self { reader, sender, go_ahead: GoAhead::None, watcher: None, is_broken: false }
    }

    /// The next part of the request's body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        if self.go_ahead == GoAhead::Awaited {
            self.sender.say(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.go_ahead = GoAhead::Said;
        }
        if self.go_ahead == GoAhead::Said && self.sender.poll(cx).is_ready() {
            self.go_ahead = GoAhead::None;
        }
        let frame = ready!(self.reader.poll_frame(cx));
        self.is_broken = matches!(frame, Some(Err(_)));
        if (self.is_broken || self.reader.has_ended())
            && let Some(watcher) = self.watcher.take()
        {
            watcher.wake();
        }
        Poll::Ready(frame)
    }

    /// Waits until the client closes the connection, which is seen once its request has ended.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_broken {
            return Poll::Ready(());
        }
        if self.reader.has_ended() {
            return self.reader.poll_closed(cx);
        }
        self.watcher = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What a request's response depends on.
struct Asked {
    method: Method,
    version: Version,
    is_kept: bool,
}

/// Serves the connection until either side ends it.
pub(super) async fn serve(shard: Rc<Shard>, stream: TcpStream) {
    let wire = Rc::new(RefCell::new(Wire::new(stream)));
    serve_all(&shard, &wire).await;
    // A response that is still under way may hold the request's body, and that holds the wire.
    let abandoned = wire.borrow_mut().sender.abandon();
    drop(abandoned);
}

async fn serve_all(shard: &Rc<Shard>, wire: &Rc<RefCell<Wire>>) {
    loop {
        let (asked, request) = match next(shard, wire).await {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!("a client's request cannot be read: {error}");
                let status = match error {
                    WireError::HeadTooLong(_) | WireError::TooManyFields => {
                        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                    }
                    WireError::NotHttp(_) | WireError::Length => StatusCode::BAD_REQUEST,
                    _ => return,
                };
                let mut response = Response::new(ResponseBody::from(Bytes::new()));
                *response.status_mut() = status;
                let asked =
                    Asked { method: Method::GET, version: Version::HTTP_11, is_kept: false };
                let _ = respond(shard, wire, &asked, response).await;
                return linger(wire).await;
            }
        };
        // Pinned where it is made: it is large, and each move would copy it.
        let work = pin!(journey::serve(shard.clone(), request));
        let Some(response) = unless_gone(wire, work).await else { return };
        match respond(shard, wire, &asked, response).await {
            Some(true) => {}
            Some(false) if !wire.borrow().reader.has_ended() => return linger(wire).await,
            _ => return,
        }
    }
}

/// The next request; `None` where the connection ends between two.
async fn next(
    shard: &Shard,
    wire: &Rc<RefCell<Wire>>,
) -> Result<Option<(Asked, Request<ClientBody>)>, WireError> {
    let most = shard.config().limits.head_bytes;
    let head = poll_fn(|cx| {
        let reader = &mut wire.borrow_mut().reader;
        match reader.poll_head(cx, most) {
            // The timer's alarm rings when the thread is told to stop, too.
            Poll::Pending if shard.stopping.get() && !reader.has_begun() => Poll::Ready(None),
            head => head.map(Some),
        }
    });
    let mut bytes = match alarm::within(HEAD_TIMEOUT, head).await.flatten() {
        None | Some(Err(WireError::Closed)) => return Ok(None),
        Some(bytes) => bytes?,
    };
    let Head { request, framing, is_kept, expects_continue, len } = head::read(&bytes)?;
    let Wire { reader, go_ahead, watcher, .. } = &mut *wire.borrow_mut();
    reader.begin_body(bytes.split_off(len), framing);
    *go_ahead = if expects_continue { GoAhead::Awaited } else { GoAhead::None };
    *watcher = None;
    let asked = Asked { method: request.method().clone(), version: request.version(), is_kept };
    Ok(Some((asked, request.map(|()| ClientBody::Http1(wire.clone())))))
}

/// What `work` gives, unless the client closes the connection before.
async fn unless_gone<T>(
    wire: &RefCell<Wire>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        wire.borrow_mut().poll_closed(cx).map(|()| None)
    })
    .await
}

/// Writes a response. Gives whether another request may follow; `None` where the connection broke.
async fn respond(
    shard: &Shard,
    wire: &RefCell<Wire>,
    asked: &Asked,
    response: Response<ResponseBody>,
) -> Option<bool> {
    let (mut parts, mut body) = response.into_parts();
    parts.version = asked.version;
    let mut length = body.size_hint().exact();
    let sent = Sent::of(length, asked.version);
    if asked.method == Method::HEAD {
        // An upstream's empty body says nothing of the one that a GET would get.
        length = length.filter(|length| *length > 0);
        body = ResponseBody::from(Bytes::new());
    }
    let is_kept = {
        let Wire { reader, sender, go_ahead, .. } = &mut *wire.borrow_mut();
        *go_ahead = GoAhead::None;
        // A body that nobody read whole would be taken for the next request.
        let may_stay = asked.is_kept && reader.has_ended() && !shard.stopping.get();
        let is_kept = may_stay && sent != Sent::UntilClose;
        let head = |out: &mut Vec<u8>| head::write(out, &parts, length, sent, is_kept);
        sender.begin(head, body, sent == Sent::Chunked);
        is_kept
    };
    let mut idle = Idle::new(Duration::from_millis(shard.config().limits.idle_timeout_ms));
    let mut waited = 0;
    let sending = poll_fn(|cx| {
        let sender = &mut wire.borrow_mut().sender;
        if let Poll::Ready(sent) = sender.poll(cx) {
            return Poll::Ready(sent.is_ok() && sender.is_idle());
        }
        // While nothing waits to be read, it is the upstream that takes its time.
        let waits = sender.waiting_bytes();
        if waits == 0 || waits != waited {
            idle.moved();
            waited = waits;
        }
        idle.poll_expired(cx).map(|()| false)
    });
    let is_sent = unless_gone(wire, pin!(sending)).await?;
    is_sent.then_some(is_kept)
}

/// Ends the connection once the client has read the response, if it does so in time.
async fn linger(wire: &RefCell<Wire>) {
    let mut left = LINGER_BYTES;
    let closed = poll_fn(|cx| {
        let Wire { reader, sender, .. } = &mut *wire.borrow_mut();
        ready!(sender.poll_close(cx));
        while left > 0 {
            match ready!(reader.poll_discard(cx)) {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        Poll::Ready(())
    });
    alarm::within(LINGER, closed).await;
}
