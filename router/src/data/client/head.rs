//! Heads on a client's connection: a request's as it is read, a response's as it is written.

use std::{
    cell::RefCell,
    io::Write,
    mem::MaybeUninit,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header, response::Parts};
use httparse::{ParserConfig, Status};

use crate::data::{
    alarm,
    wire::{self, Fields, Framing, MAX_FIELDS, WireError, write_field},
};

/// A request's head, and what comes after it.
#[derive(Debug)]
pub(super) struct Head {
    pub request: Request<()>,
    pub framing: Framing,
    /// Whether the client may send another request afterwards.
    pub is_kept: bool,
    /// Whether the client waits for a word before it sends the body.
    pub expects_continue: bool,
    /// Bytes of the head itself.
    pub len: usize,
}

/// Reads the head at the start of `bytes`.
pub(super) fn read(bytes: &Bytes) -> Result<Head, WireError> {
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut fields,
    )?;
    let Status::Complete(len) = status else { return Err(WireError::not_http(&"it has no end")) };
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(WireError::not_http(&"it has no request line"));
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|e| WireError::not_http(&e))?;
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes()))
        .map_err(|e| WireError::not_http(&e))?;
    let headers = wire::headers(bytes, parsed.headers, 0)?;
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(WireError::not_http(&"it names two hosts"));
    }
    if method == Method::CONNECT {
        return Err(WireError::not_http(&"there are no tunnels here"));
    }
    let is_current = parsed.version == Some(1);
    let framing = framing(&headers, is_current)?;
    let is_kept = is_current && !wire::closes(&headers);
    let expects_continue = is_current && framing != Framing::Ended && expects_continue(&headers);

    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    *request.version_mut() = if is_current { Version::HTTP_11 } else { Version::HTTP_10 };
    Ok(Head { request, framing, is_kept, expects_continue, len })
}

/// RFC 9112, section 6.3. Whatever another server might read in another way is refused: that is how requests
/// are smuggled.
fn framing(headers: &HeaderMap, is_current: bool) -> Result<Framing, WireError> {
    match (wire::body_length(headers)?, wire::is_chunked(headers)) {
        (None, None) => Ok(Framing::Ended),
        (Some(bytes), None) => Ok(Framing::length(bytes)),
        (None, Some(true)) if is_current => Ok(Framing::chunked()),
        _ => Err(WireError::Length),
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// How a response's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// As long as its head says, or without any.
    Whole,
    Chunked,
    /// Until the connection closes: the client knows no chunks.
    UntilClose,
}

impl Sent {
    /// How a body of this length, if it is known, answers this request.
    pub fn of(length: Option<u64>, version: Version) -> Self {
        match (length, version) {
            (Some(_), _) => Self::Whole,
            (None, Version::HTTP_11) => Self::Chunked,
            (None, _) => Self::UntilClose,
        }
    }
}

/// Writes a response's head. Its version is the request's; `length` is its body's, where it is known.
pub(super) fn write(
    out: &mut Vec<u8>,
    response: &Parts,
    length: Option<u64>,
    sent: Sent,
    is_kept: bool,
) {
    let Parts { status, headers, version, .. } = response;
    let old = *version == Version::HTTP_10;
    out.extend_from_slice(if old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        if *name != header::CONTENT_LENGTH || *status != StatusCode::NO_CONTENT {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !headers.contains_key(header::DATE) {
        with_date(|date| write_field(out, b"date", date));
    }
    if !is_kept {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if sent == Sent::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    let has_body = !matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // Where an upstream said it, it may be the length of what another request would get.
    let is_said = headers.contains_key(header::CONTENT_LENGTH);
    if let Some(length) = length.filter(|_| has_body && !is_said) {
        // Writing to memory does not fail.
        let _ = write!(out, "content-length: {length}\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second since 1970 for which the date was written last, and that date.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// The date as a head names it, written once a second.
fn with_date(use_date: impl FnOnce(&[u8])) {
    DATE.with_borrow_mut(|(second, date)| {
        let now = alarm::unix_ms() / 1000;
        if *second != now || date.is_empty() {
            *second = now;
            *date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(now));
        }
        use_date(date.as_bytes());
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
