//! The id of a decision: which router, which of its threads, and a count.

use std::{fmt, str};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// As in `5f3a9c01-0-1b7`. It takes no allocation, for every request has one.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct DecisionId {
    text: [u8; Self::MAX_BYTES],
    len: usize,
}

impl DecisionId {
    /// As many as three numbers and two hyphens can take.
    pub const MAX_BYTES: usize = 8 + 1 + 16 + 1 + 16;

    /// Unique over routers and restarts for all practical purposes.
    pub fn new(node: u32, thread: usize, number: u64) -> Self {
        let mut id = Self { text: [0; Self::MAX_BYTES], len: 0 };
        id.put(u64::from(node), 8);
        id.put_byte(b'-');
        id.put(thread as u64, 1);
        id.put_byte(b'-');
        id.put(number, 1);
        id
    }

    /// One that another router gave. `None` where it is too long, or no header could hold it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = Self { text: [0; Self::MAX_BYTES], len: text.len() };
        id.text.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        text.bytes().all(|byte| byte.is_ascii_graphic()).then_some(id)
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }

    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&self.text[..self.len]).ok()
    }

    /// In hexadecimal digits, at least so many.
    fn put(&mut self, number: u64, least: u32) {
        let digits = (16 - number.leading_zeros() / 4).max(least);
        for digit in (0..digits).rev() {
            self.put_byte(b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]);
        }
    }

    fn put_byte(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }
}

impl From<DecisionId> for String {
    fn from(id: DecisionId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for DecisionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a decision's id")
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_numbers_in_hexadecimal() {
        for (node, thread, number) in
            [(0, 0, 0), (0x5f3a_9c01, 0, 0x1b7), (1, 17, 16), (u32::MAX, usize::MAX, u64::MAX)]
        {
            let id = DecisionId::new(node, thread, number);
            assert_eq!(id.to_string(), format!("{node:08x}-{thread:x}-{number:x}"));
            assert_eq!(DecisionId::parse(id.as_str()), Some(id));
            assert_eq!(id.header().unwrap().to_str().unwrap(), id.as_str());
        }
    }

    #[test]
    fn what_no_header_could_hold_is_not_taken() {
        for text in ["no id", "a\r\nb", "é", &"a".repeat(DecisionId::MAX_BYTES + 1)] {
            assert_eq!(DecisionId::parse(text), None, "{text}");
        }
    }
}
