//! Answer bodies: whole ones, and ones made piece by piece while the client reads.
//!
//! A paced body draws each piece when the connection asks for it, so a slow reader costs no memory
//! and a reader that goes away drops the [`Job`] with the body, at once.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::completion::Events;
use super::state::Job;

/// The period of the filler's bytes: a prime, so that a lost or doubled block shows.
const FILLER_PERIOD: usize = 251;
/// The filler's piece: whole periods, about 64 KB.
const FILLER: &[u8; FILLER_PERIOD * 256] = &filler();

const fn filler() -> [u8; FILLER_PERIOD * 256] {
    let mut block = [0; FILLER_PERIOD * 256];
    let mut at = 0;
    while at < block.len() {
        block[at] = (at % FILLER_PERIOD) as u8;
        at += 1;
    }
    block
}

/// The byte at `offset` of an answer to `x-mock-bytes`, for tests that check what arrived.
pub fn filler_byte(offset: u64) -> u8 {
    // Less than 251 by construction.
    (offset % FILLER_PERIOD as u64) as u8
}

/// The connection is to be closed where it stands.
#[derive(Debug, thiserror::Error)]
#[error("the mock was asked to close the connection")]
pub(super) struct HangUp;

pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    Paced(Box<Paced>),
}

impl AnswerBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Paced(paced) => paced.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Paced(paced) => paced.job.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Paced(paced) => match &paced.pieces {
                Pieces::Events(_) => SizeHint::default(),
                Pieces::Filler { left } => SizeHint::with_exact(*left),
                Pieces::Torn { claimed, .. } => SizeHint::with_exact(*claimed),
            },
        }
    }
}

/// What a paced body is made of.
pub(super) enum Pieces {
    Events(Events),
    /// So many bytes of the filler.
    Filler {
        left: u64,
    },
    /// The start of an answer whose head claims more than will come.
    Torn {
        start: Bytes,
        claimed: u64,
    },
}

impl Pieces {
    /// So many bytes of filler, or the first half of them at most when the answer is to be cut.
    pub(super) fn filler(bytes: NonZeroU64, cut: bool) -> Self {
        let left = bytes.get();
        if !cut {
            return Self::Filler { left };
        }
        let half = usize::try_from(left / 2).map_or(FILLER.len(), |n| n.min(FILLER.len()));
        Self::Torn { start: Bytes::from_static(&FILLER[..half]), claimed: left }
    }

    fn next(&mut self) -> Bytes {
        match self {
            Self::Events(events) => events.next(),
            Self::Filler { left } => {
                let len = usize::try_from(*left).map_or(FILLER.len(), |n| n.min(FILLER.len()));
                *left -= len as u64;
                Bytes::from_static(&FILLER[..len])
            }
            Self::Torn { start, .. } => std::mem::take(start),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Events(events) => events.is_done(),
            Self::Filler { left } => *left == 0,
            Self::Torn { .. } => false,
        }
    }
}

/// When pieces leave.
pub(super) struct Pace {
    /// The time of the whole answer, spread over the events, or all before the filler's first piece.
    pub(super) latency: Duration,
    /// Wait for a release before the second piece.
    pub(super) hold: Option<watch::Receiver<u64>>,
    /// Close the connection instead of sending the second piece.
    pub(super) cut: bool,
}

type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Paced {
    pieces: Pieces,
    pace: Pace,
    started: Instant,
    sent: u32,
    /// What to wait for before the next piece.
    pause: Option<Pause>,
    /// None once the last piece was handed out.
    job: Option<Job>,
}

impl Paced {
    pub(super) fn new(job: Job, pieces: Pieces, pace: Pace) -> Self {
        let mut paced =
            Self { pieces, pace, started: Instant::now(), sent: 0, pause: None, job: Some(job) };
        paced.pause = paced.next_pause();
        paced
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let Some(job) = self.job.take_if(|_| self.pace.cut && self.sent == 1) else {
            return Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))));
        };
        job.fail();
        Poll::Ready(Some(Err(HangUp)))
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        let job = self.job.as_ref()?;
        if self.sent == 0 {
            job.first_token();
        }
        let piece = self.pieces.next();
        self.sent = self.sent.saturating_add(1);
        if !self.pieces.is_done() {
            self.pause = self.next_pause();
        } else if let Some(job) = self.job.take() {
            job.complete();
        }
        Some(piece)
    }

    fn next_pause(&mut self) -> Option<Pause> {
        if self.sent == 1 && self.pace.cut {
            // The connection flushes what it has when the body is not ready.
            return Some(Box::pin(tokio::task::yield_now()));
        }
        if self.sent == 1
            && let Some(mut release) = self.pace.hold.take()
        {
            // It fails when the server is gone, and then nothing need be held.
            return Some(Box::pin(async move { drop(release.changed().await) }));
        }
        if self.pace.latency.is_zero() {
            return None;
        }
        let share = match &self.pieces {
            Pieces::Events(events) => events.share_done_after_next()?,
            Pieces::Filler { .. } | Pieces::Torn { .. } if self.sent == 0 => 1.0,
            Pieces::Filler { .. } | Pieces::Torn { .. } => return None,
        };
        Some(Box::pin(tokio::time::sleep_until(self.started + self.pace.latency.mul_f64(share))))
    }
}
