//! Where a message's body ends (RFC 9112, sections 6 and 7).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

/// Bounds of what comes beside a chunk's data.
const MAX_EXTENSION_BYTES: usize = 4 << 10;
const MAX_TRAILER_BYTES: usize = 16 << 10;
const MAX_TRAILERS: usize = 64;

/// What is left of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) enum Framing {
    /// This many bytes, at least one.
    Length(u64),
    Chunked(Chunk),
    /// Whatever comes until the connection closes.
    UntilClose,
    /// Nothing.
    Ended,
}

/// Where in a chunked body the next byte belongs.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) enum Chunk {
    /// The size, in hexadecimal digits, of which some were read.
    Size {
        size: u64,
        digits: bool,
    },
    /// The rest of the size's line.
    Extension {
        size: u64,
        bytes: usize,
    },
    /// The end of that line.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// The line's end after the data, of which some was read.
    DataEnd {
        cr: bool,
    },
    /// After the last chunk.
    Trailers(BytesMut),
}

const START: Chunk = Chunk::Size { size: 0, digits: false };

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::data) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A body in chunks breaks the rules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks are garbled: {0}")]
pub(in crate::data) struct Garbled(&'static str);

impl Framing {
    pub fn length(bytes: u64) -> Self {
        if bytes == 0 { Self::Ended } else { Self::Length(bytes) }
    }

    pub fn chunked() -> Self {
        Self::Chunked(START)
    }

    /// Takes the next piece out of what was read. With `None`, either more must be read or the body has ended.
    pub fn take(&mut self, ahead: &mut Bytes) -> Result<Option<Piece>, Garbled> {
        match self {
            Self::Ended => Ok(None),
            Self::UntilClose => {
                let mut endless = u64::MAX;
                Ok(data(ahead, &mut endless).map(Piece::Data))
            }
            Self::Length(left) => {
                let bytes = data(ahead, left);
                *self = Self::length(*left);
                Ok(bytes.map(Piece::Data))
            }
            Self::Chunked(chunk) => match chunk.take(ahead)? {
                Taken::Data(bytes) => Ok(Some(Piece::Data(bytes))),
                Taken::More => Ok(None),
                Taken::End(trailers) => {
                    *self = Self::Ended;
                    Ok(trailers.map(Piece::Trailers))
                }
            },
        }
    }
}

/// What was read of the next `left` bytes, if anything was.
fn data(ahead: &mut Bytes, left: &mut u64) -> Option<Bytes> {
    let len = usize::try_from(*left).map_or(ahead.len(), |left| left.min(ahead.len()));
    *left -= len as u64;
    (len > 0).then(|| ahead.split_to(len))
}

/// What a chunked body gave.
enum Taken {
    Data(Bytes),
    /// Nothing before more is read.
    More,
    End(Option<HeaderMap>),
}

impl Chunk {
    fn take(&mut self, ahead: &mut Bytes) -> Result<Taken, Garbled> {
        while !ahead.is_empty() {
            match self {
                Self::Data { left } => {
                    let bytes = data(ahead, left);
                    if *left == 0 {
                        *self = Self::DataEnd { cr: false };
                    }
                    return Ok(bytes.map_or(Taken::More, Taken::Data));
                }
                Self::Trailers(held) => return trailers(held, ahead),
                _ => self.step(ahead.get_u8())?,
            }
        }
        Ok(Taken::More)
    }

    /// Takes one byte of what is between two chunks' data. What another reader might take in another way is
    /// refused: a line ends with both its characters.
    fn step(&mut self, byte: u8) -> Result<(), Garbled> {
        *self = match (&*self, byte) {
            (Self::Size { digits: true, size } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size: *size }
            }
            (Self::Size { digits: true, size }, b';' | b' ' | b'\t') => {
                Self::Extension { size: *size, bytes: 0 }
            }
            (Self::Size { size, .. }, byte) => {
                let digit = char::from(byte).to_digit(16).ok_or(Garbled("a size is no number"))?;
                let size = size.checked_mul(16).ok_or(Garbled("a size is too large"))?;
                Self::Size { size: size + u64::from(digit), digits: true }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailers(BytesMut::new()),
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: *size },
            (Self::SizeEnd { .. }, _) | (Self::Extension { .. }, b'\n') => {
                return Err(Garbled("a size's line does not end well"));
            }
            (Self::Extension { bytes: MAX_EXTENSION_BYTES.., .. }, _) => {
                return Err(Garbled("an extension is too long"));
            }
            (Self::Extension { size, bytes }, _) => {
                Self::Extension { size: *size, bytes: bytes + 1 }
            }
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { cr: true }, b'\n') => START,
            _ => return Err(Garbled("a chunk is longer than its size")),
        };
        Ok(())
    }
}

/// Reads up to the empty line that ends a body in chunks.
fn trailers(held: &mut BytesMut, ahead: &mut Bytes) -> Result<Taken, Garbled> {
    while !ahead.is_empty() {
        held.put_u8(ahead.get_u8());
        if &held[..] == b"\r\n" {
            return Ok(Taken::End(None));
        }
        if held.ends_with(b"\r\n\r\n") {
            return read_trailers(held).map(|trailers| Taken::End(Some(trailers)));
        }
        if held.len() > MAX_TRAILER_BYTES {
            return Err(Garbled("the trailers are too long"));
        }
    }
    Ok(Taken::More)
}

fn read_trailers(held: &[u8]) -> Result<HeaderMap, Garbled> {
    const WRONG: Garbled = Garbled("a trailer is no header");
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(Status::Complete((_, fields))) = httparse::parse_headers(held, &mut fields) else {
        return Err(WRONG);
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| WRONG)?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| WRONG)?);
    }
    Ok(trailers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
