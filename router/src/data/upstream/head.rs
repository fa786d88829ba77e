//! HTTP/1.1 heads: a request's as it is written, a response's as it is read.

use std::{io::Write, mem::MaybeUninit};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request::Parts};
use httparse::{ParserConfig, Status};

use crate::data::wire::{self, Fields, Framing, MAX_FIELDS, WireError, write_field};

/// Fields that a response gets on its way to the client.
const FIELDS_ADDED: usize = 6;

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    Known(u64),
    /// It is sent in chunks.
    Unknown,
}

/// Writes a request's head as an origin server gets it (RFC 9112, section 3), with headers added. What it
/// says of the body is said anew, by what is sent.
pub(super) fn write(out: &mut Vec<u8>, head: &Parts, added: &HeaderMap, body: BodyLength) {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // Where the target names a host, that counts (RFC 9112, section 3.2.2).
    let authority = head.uri.authority();
    if let Some(authority) = authority {
        write_field(out, b"host", authority.as_str().as_bytes());
    }
    for (name, value) in head.headers.iter().chain(added) {
        let is_said = match *name {
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => true,
            header::HOST => authority.is_some(),
            _ => false,
        };
        if !is_said {
            write_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match body {
        BodyLength::Unknown => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        BodyLength::Known(0) if !expects_body(&head.method) => out.extend_from_slice(b"\r\n"),
        // Writing to memory does not fail.
        BodyLength::Known(bytes) => {
            let _ = write!(out, "content-length: {bytes}\r\n\r\n");
        }
    }
}

/// Whether its absence is worth saying (RFC 9110, section 8.6).
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// A response's head, and what comes after it.
#[derive(Debug)]
pub(super) struct Head {
    pub response: Response<()>,
    pub framing: Framing,
    /// Whether the connection may carry another request afterwards.
    pub is_kept: bool,
    /// Bytes of the head itself.
    pub len: usize,
}

/// Reads the head at the start of `bytes`. `method` is the request's.
pub(super) fn read(bytes: &Bytes, method: &Method) -> Result<Head, WireError> {
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut fields,
    )?;
    let Status::Complete(len) = status else { return Err(WireError::not_http(&"it has no end")) };
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|e| WireError::not_http(&e))?;
    let mut headers = wire::headers(bytes, parsed.headers, FIELDS_ADDED)?;
    let framing = framing(status, &headers, method)?;
    let is_kept =
        parsed.version == Some(1) && framing != Framing::UntilClose && !wire::closes(&headers);
    if let Some(length) = headers.get(header::CONTENT_LENGTH).cloned() {
        // Several say the same.
        headers.insert(header::CONTENT_LENGTH, length);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Head { response, framing, is_kept, len })
}

/// RFC 9112, section 6.3. A response that has both a length and an encoding may be an attempt to smuggle
/// another one in, and is refused; so is one in an encoding that nobody asked for.
fn framing(status: StatusCode, headers: &HeaderMap, method: &Method) -> Result<Framing, WireError> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(WireError::not_http(&"nobody asked for another protocol"));
    }
    let (length, is_chunked) = (wire::body_length(headers)?, wire::is_chunked(headers));
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || method == Method::HEAD;
    match (length, is_chunked) {
        (Some(_), Some(_)) | (None, Some(false)) => Err(WireError::Length),
        _ if has_none => Ok(Framing::Ended),
        (None, Some(true)) => Ok(Framing::chunked()),
        (Some(bytes), None) => Ok(Framing::length(bytes)),
        (None, None) => Ok(Framing::UntilClose),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
