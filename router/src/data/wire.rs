//! HTTP/1.1 on the wire (RFC 9112): what a client's connection and an upstream's have in common.
//!
//! hyper would do, and does for HTTP/2. But it reaches a connection through channels and copies each head, on
//! both sides of a proxy; here whoever waits for bytes reads them, and a head is passed on as it was read.

mod fields;
mod framing;
mod reader;
mod sender;

use std::io;

use super::body::BoxError;

pub(super) use fields::{
    Fields, MAX_FIELDS, body_length, closes, headers, is_chunked, write_field,
};
pub(super) use framing::{Framing, Garbled};
pub(super) use reader::Reader;
pub(super) use sender::Sender;

/// Why there is no message, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("it closed the connection")]
    Closed,
    #[error("it closed the connection in the middle of a message")]
    CutOff,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the head is longer than {0} bytes")]
    HeadTooLong(usize),
    #[error("the head is not HTTP/1.1: {0}")]
    NotHttp(String),
    #[error("the head has more than {MAX_FIELDS} fields")]
    TooManyFields,
    #[error("the head contradicts itself on how long the body is")]
    Length,
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// Of the message that is sent.
    #[error("{0}")]
    Body(BoxError),
}

impl WireError {
    pub fn not_http(error: &dyn std::fmt::Display) -> Self {
        Self::NotHttp(error.to_string())
    }
}

impl From<httparse::Error> for WireError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            error => Self::not_http(&error),
        }
    }
}
