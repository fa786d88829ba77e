//! Bodies on their way: a client's, kept or streamed, and an upstream's, with what ends when it ends.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    alarm::{self, Alarm},
    client::ClientBody,
    exchange::Exchange,
};
use crate::{config::Limits, problem::Refusal};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// Kept whole, so that it can be sent again.
    Whole(Option<Bytes>),
    /// Too long to keep: what was read of it, then the rest as it comes. Boxed, so that a short one is small.
    Streamed { start: Option<Bytes>, rest: Box<Limited> },
}

/// The rest of a long body, within its bounds.
#[derive(Debug)]
pub(super) struct Limited {
    body: ClientBody,
    /// Bytes that may still come.
    left: u64,
    idle: Idle,
    limit: u64,
    idle_ms: u64,
    fault: BodyFault,
}

/// Set when a body on its way turns out wrong: it is the client's fault, not the upstream's.
pub(super) type BodyFault = Rc<RefCell<Option<Refusal>>>;

impl RequestBody {
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { start, rest } => match start.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => rest.poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_none(),
            Self::Streamed { start, rest } => start.is_none() && rest.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed { start, rest } => {
                let kept = start.as_ref().map_or(0, |b| b.len() as u64);
                let rest = rest.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(kept + rest.lower());
                if let Some(upper) = rest.upper() {
                    hint.set_upper(kept + upper);
                }
                hint
            }
        }
    }
}

impl Limited {
    pub fn new(body: ClientBody, left: u64, limits: &Limits, fault: BodyFault) -> Self {
        let (limit, idle_ms) = (limits.body_bytes, limits.idle_timeout_ms);
        let idle = Idle::new(Duration::from_millis(idle_ms));
        Self { body, left, idle, limit, idle_ms, fault }
    }

    fn blame(&self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let error = refusal.to_string();
        self.fault.replace(Some(refusal));
        Poll::Ready(Some(Err(error.into())))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.idle.poll_expired(cx));
                return self.blame(Refusal::BodyTimeout { idle_ms: self.idle_ms });
            }
        };
        self.idle.moved();
        match frame {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(len) {
                    Some(left) => self.left = left,
                    None => return self.blame(Refusal::BodyTooLarge { limit: self.limit }),
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(e)) => self.blame(Refusal::BadRequest(format!("the body broke off: {e}"))),
            None => Poll::Ready(None),
        }
    }
}

/// A response's body on its way to the client. What the request held ends with it.
#[derive(Debug)]
pub(super) enum ResponseBody {
    Ours(Option<Bytes>),
    Upstream {
        exchange: Exchange,
        idle: Idle,
        /// How it broke off: told at the next poll, so that what came before is sent first.
        broken: Option<BoxError>,
    },
}

impl ResponseBody {
    pub fn upstream(exchange: Exchange, idle: Idle) -> Self {
        Self::Upstream { exchange, idle, broken: None }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::Ours(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let (exchange, idle, broken) = match self.get_mut() {
            Self::Ours(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Upstream { exchange, idle, broken } => (exchange, idle, broken),
        };
        if let Some(error) = broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match exchange.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                idle.moved();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                exchange.broken(&error);
                *broken = Some(error.into());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(idle.poll_expired(cx));
                let error = "the upstream stopped sending its response";
                exchange.broken(&error);
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ours(bytes) => bytes.is_none(),
            Self::Upstream { exchange, .. } => exchange.has_completed(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ours(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream { exchange, .. } => exchange.size_hint(),
        }
    }
}

/// Notices when nothing moves for too long. It sets an alarm only once it has to wait, and looks at what
/// moved since only when that rings.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    moved: Instant,
    timer: Option<Alarm>,
}

impl Idle {
    pub fn new(limit: Duration) -> Self {
        Self { limit, moved: alarm::now(), timer: None }
    }

    pub fn moved(&mut self) {
        self.moved = alarm::now();
    }

    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = |moved| moved + self.limit;
        let timer = self.timer.get_or_insert_with(|| Alarm::at(until(self.moved)));
        loop {
            ready!(Pin::new(&mut *timer).poll(cx));
            if alarm::now() >= until(self.moved) {
                return Poll::Ready(());
            }
            timer.reset(until(self.moved));
        }
    }
}
