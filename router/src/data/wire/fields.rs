//! A head's fields: how they are read, and what they say of the message and its connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::WireError;

/// A head with more fields is refused.
pub(in crate::data) const MAX_FIELDS: usize = 128;

/// Room for the fields of a head.
pub(in crate::data) type Fields<'a> = [std::mem::MaybeUninit<httparse::Header<'a>>; MAX_FIELDS];

/// The fields, with room for some more. Their values are slices of `bytes`, of which they were parsed.
pub(in crate::data) fn headers(
    bytes: &Bytes,
    fields: &[httparse::Header<'_>],
    more: usize,
) -> Result<HeaderMap, WireError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + more);
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|e| WireError::not_http(&e))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(name, value.map_err(|e| WireError::not_http(&e))?);
    }
    Ok(headers)
}

/// Writes a field.
pub(in crate::data) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What the fields Content-Length say, if they agree.
pub(in crate::data) fn body_length(headers: &HeaderMap) -> Result<Option<u64>, WireError> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let said = digits.and_then(|text| text.parse::<u64>().ok()).ok_or(WireError::Length)?;
        if length.is_some_and(|length| length != said) {
            return Err(WireError::Length);
        }
        length = Some(said);
    }
    Ok(length)
}

/// Whether the body is sent in chunks, and in no other encoding; `None` where none is named.
pub(in crate::data) fn is_chunked(headers: &HeaderMap) -> Option<bool> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = encodings.next()?.as_bytes().trim_ascii();
    Some(first.eq_ignore_ascii_case(b"chunked") && encodings.next().is_none())
}

/// Whether the connection ends with this message.
pub(in crate::data) fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| says(value, b"close"))
}

fn says(list: &HeaderValue, option: &[u8]) -> bool {
    let mut options = list.as_bytes().split(|byte| *byte == b',');
    options.any(|one| one.trim_ascii().eq_ignore_ascii_case(option))
}
