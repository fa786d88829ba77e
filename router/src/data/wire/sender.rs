//! The side of a connection that is written: a message's head, and its body as it comes.

use std::{
    io::{self, Write},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use tokio::{io::AsyncWrite, net::tcp::OwnedWriteHalf};

use crate::data::body::BoxError;

/// A part of a body up to this is copied behind the head: a copy costs less than another system call.
const COPIED_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(in crate::data) struct Sender<B> {
    writer: OwnedWriteHalf,
    /// Written first; the first `written` bytes of it were.
    out: Vec<u8>,
    written: usize,
    /// A part too long to copy, written next.
    long: Bytes,
    /// `None` once all of it was taken.
    body: Option<B>,
    is_chunked: bool,
    /// A chunk's line end is still to be written.
    owes_line_end: bool,
    failed: Option<io::Error>,
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Sender<B> {
    pub fn new(writer: OwnedWriteHalf) -> Self {
        Self {
            writer,
            out: Vec::new(),
            written: 0,
            long: Bytes::new(),
            body: None,
            is_chunked: false,
            owes_line_end: false,
            failed: None,
        }
    }

    /// Takes a message, which [`Sender::poll`] writes.
    pub fn begin(&mut self, head: impl FnOnce(&mut Vec<u8>), body: B, is_chunked: bool) {
        head(&mut self.out);
        self.body = Some(body).filter(|body| !body.is_end_stream());
        self.is_chunked = is_chunked;
    }

    /// Writes something between two messages.
    pub fn say(&mut self, words: &[u8]) {
        self.out.extend_from_slice(words);
    }

    /// Ends the connection's direction, once all is written.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = ready!(self.poll(cx));
        Pin::new(&mut self.writer).poll_shutdown(cx).map(drop)
    }

    /// Drops the message that is under way. What was written of it stays written.
    pub fn abandon(&mut self) -> Option<B> {
        self.body.take()
    }

    /// How many bytes wait for the other side to read.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len() - self.written + self.long.len()
    }

    /// Whether everything was written.
    pub fn is_idle(&self) -> bool {
        let is_taken = self.body.is_none() && !self.is_chunked;
        is_taken && self.out.is_empty() && self.long.is_empty() && self.failed.is_none()
    }

    /// Why writing ended early.
    pub fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Writes what it can. It is ready when there is no more to write, or no way to.
    ///
    /// # Errors
    ///
    /// The body broke off.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        while !self.is_idle() && self.failed.is_none() {
            let taken = self.take_parts(cx);
            // What came before a body broke off is sent, too.
            let written = self.poll_write(cx);
            let is_waiting = taken?;
            match ready!(written) {
                Ok(()) if is_waiting => return Poll::Pending,
                Ok(()) => {}
                Err(error) => self.failed = Some(error),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes of the body what is there, up to a bound. True where the next part is still to come.
    fn take_parts(&mut self, cx: &mut Context<'_>) -> Result<bool, BoxError> {
        while let Some(body) = &mut self.body {
            if !self.long.is_empty() || self.out.len() - self.written > COPIED_BYTES {
                return Ok(false);
            }
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(frame) => frame.transpose()?,
                Poll::Pending => return Ok(true),
            };
            if frame.is_none() || body.is_end_stream() {
                self.body = None;
            }
            // Trailers may be dropped (RFC 9110, section 6.5.1).
            if let Some(Ok(data)) = frame.map(Frame::into_data) {
                self.put(data);
            }
        }
        if self.long.is_empty() && mem::take(&mut self.is_chunked) {
            self.end_line();
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(false)
    }

    fn put(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.out.drain(..mem::take(&mut self.written));
        if self.is_chunked {
            self.end_line();
            // Writing to memory does not fail.
            let _ = write!(self.out, "{:x}\r\n", data.len());
            self.owes_line_end = true;
        }
        if data.len() <= COPIED_BYTES {
            self.out.extend_from_slice(&data);
        } else {
            self.long = data;
        }
    }

    fn end_line(&mut self) {
        if mem::take(&mut self.owes_line_end) {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.out.get(self.written..) {
            self.written += ready!(poll_some(&mut self.writer, rest, cx))?;
        }
        self.out.clear();
        self.written = 0;
        while !self.long.is_empty() {
            let written = ready!(poll_some(&mut self.writer, &self.long, cx))?;
            self.long.advance(written);
        }
        self.long = Bytes::new();
        Poll::Ready(Ok(()))
    }
}

fn poll_some(
    writer: &mut OwnedWriteHalf,
    bytes: &[u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(writer).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
