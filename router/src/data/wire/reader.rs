//! The side of a connection that is read: heads, and bodies as they come.

use std::{
    future::Future,
    io, mem,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::{io::AsyncReadExt, net::tcp::OwnedReadHalf};

use super::{
    WireError,
    framing::{Framing, Piece},
};

/// Room for a read, which doubles with each read of a body that fills it.
const READ_BYTES: usize = 8 << 10;
const MAX_READ_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(in crate::data) struct Reader {
    half: OwnedReadHalf,
    /// What was read of a head that is not whole yet, and room for more.
    room: BytesMut,
    /// How much of that holds no head's end.
    searched: usize,
    /// How much the next read may bring.
    read_bytes: usize,
    /// Read after the head, and not yet passed on.
    ahead: Bytes,
    /// Of the message's body.
    framing: Framing,
}

impl Reader {
    pub fn new(half: OwnedReadHalf) -> Self {
        Self {
            half,
            room: BytesMut::new(),
            searched: 0,
            read_bytes: READ_BYTES,
            ahead: Bytes::new(),
            framing: Framing::Ended,
        }
    }

    /// Waits for a whole head of at most `most` bytes. It is at the start of what this gives; the rest is to
    /// be given back.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Bytes, WireError>> {
        self.read_bytes = READ_BYTES;
        if !self.ahead.is_empty() {
            self.room.extend_from_slice(&mem::take(&mut self.ahead));
        }
        loop {
            let end = end(&self.room, self.searched);
            if end.unwrap_or(self.room.len()) > most {
                return Poll::Ready(Err(WireError::HeadTooLong(most)));
            }
            if end.is_some() {
                self.searched = 0;
                return Poll::Ready(Ok(self.room.split().freeze()));
            }
            self.searched = self.room.len();
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.has_begun() => return Poll::Ready(Err(WireError::CutOff)),
                Ok(0) => return Poll::Ready(Err(WireError::Closed)),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Whether some of a head was read.
    pub fn has_begun(&self) -> bool {
        !self.room.is_empty()
    }

    /// What was read after a head, and how the body is framed that begins there.
    pub fn begin_body(&mut self, rest: Bytes, framing: Framing) {
        (self.ahead, self.framing) = (rest, framing);
    }

    /// The next part of the body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WireError>>> {
        loop {
            match self.framing.take(&mut self.ahead)? {
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::Trailers(all)) => return Poll::Ready(Some(Ok(Frame::trailers(all)))),
                None if self.has_ended() => return Poll::Ready(None),
                None => {}
            }
            if ready!(self.poll_read(cx))? > 0 {
                self.ahead = self.room.split().freeze();
            } else if matches!(self.framing, Framing::UntilClose) {
                self.framing = Framing::Ended;
            } else {
                return Poll::Ready(Some(Err(WireError::CutOff)));
            }
        }
    }

    /// The rest of the body, where all of it was read already.
    pub fn take_rest(&mut self) -> Option<Bytes> {
        match self.framing {
            Framing::Ended => Some(Bytes::new()),
            Framing::Length(left) if left <= self.ahead.len() as u64 => {
                self.framing = Framing::Ended;
                Some(self.ahead.split_to(left as usize))
            }
            _ => None,
        }
    }

    /// Whether the whole body was passed on.
    pub fn has_ended(&self) -> bool {
        matches!(self.framing, Framing::Ended)
    }

    /// How much of the body is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Ended => SizeHint::with_exact(0),
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    /// Whether nothing came after the body, not even the connection's end.
    pub fn is_quiet(&self) -> bool {
        let is_spent = self.has_ended() && self.ahead.is_empty() && self.room.is_empty();
        let read = || self.half.try_read(&mut [0]);
        is_spent && read().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the other side closes the connection while it has nothing to say. Once it does say
    /// something, nobody can tell any more.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_ended() || self.has_begun() || !self.ahead.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.poll_read(cx)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Reads what nobody wants. How many bytes that were; 0 at the end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.room.clear();
        self.poll_read(cx).map(Result::unwrap_or_default)
    }

    /// Reads what there is, up to a bound; 0 at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.room.reserve(self.read_bytes);
        let most = self.room.capacity() - self.room.len();
        let read = ready!(pin!(self.half.read_buf(&mut self.room)).poll(cx))?;
        if read == most {
            self.read_bytes = (2 * self.read_bytes).min(MAX_READ_BYTES);
        }
        Poll::Ready(Ok(read))
    }
}

/// Where a head ends in `bytes`; what is before `searched` was looked at.
fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    // A line's end that was seen may be the first of the two.
    let from = searched.saturating_sub(2);
    let mut lines = memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1);
    lines.find_map(|line| match bytes.get(line..)? {
        [b'\n', ..] => Some(line + 1),
        [b'\r', b'\n', ..] => Some(line + 2),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::end;

    #[test]
    fn the_end_of_a_head_is_found_wherever_the_reads_were_cut() {
        for head in
            ["HTTP/1.1 200 OK\r\na: b\r\n\r\n", "HTTP/1.1 200 OK\na: b\n\n", "a\r\n\n", "a\n\r\n"]
        {
            let bytes = format!("{head}body").into_bytes();
            for searched in 0..head.len() {
                assert_eq!(end(&bytes[..head.len() - 1], searched), None, "{head:?} {searched}");
                assert_eq!(end(&bytes, searched), Some(head.len()), "{head:?} {searched}");
            }
        }
    }
}
