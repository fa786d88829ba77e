//! From a request's head and body to its facts.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
};

use http::{HeaderMap, HeaderValue, header};
use mrgc_fleet::model::{Location, Needs, Request};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use crate::problem::Refusal;

/// Headers by which a client says more than its body does. They can add to a request's needs, never
/// remove from what its route or tenant demands.
#[derive(Debug)]
pub struct RequestHeaders;

impl RequestHeaders {
    pub const MODEL: &str = "x-mrgc-model";
    pub const SESSION: &str = "x-mrgc-session";
    pub const ORIGIN: &str = "x-mrgc-origin";
    pub const COUNTRY: &str = "x-mrgc-country";
    pub const PRIORITY: &str = "x-mrgc-priority";
    pub const DEADLINE: &str = "x-mrgc-deadline-ms";
    pub const FRAMEWORKS: &str = "x-mrgc-frameworks";
    pub const ALLOWED_REGIONS: &str = "x-mrgc-allowed-regions";
    pub const ENCLAVE: &str = "x-mrgc-enclave";
}

/// Rough size of a token in bytes of JSON.
const BYTES_PER_TOKEN: usize = 4;

/// Reads the client's headers.
pub(super) fn from_headers(headers: &HeaderMap) -> Result<Request, Refusal> {
    let text = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return match headers.contains_key(name) {
                true => Err(Refusal::BadRequest(format!("header {name} is there twice"))),
                false => Ok(None),
            };
        };
        plain(name, value).map(Some)
    };
    let number = |name: &'static str| match text(name)? {
        Some(value) => value.parse::<i64>().map(Some).map_err(|_| {
            Refusal::BadRequest(format!("header {name}: `{value}` is not a whole number"))
        }),
        None => Ok(None),
    };
    Ok(Request {
        model: text(RequestHeaders::MODEL)?.map(str::to_owned),
        session: text(RequestHeaders::SESSION)?.map(hash),
        origin: text(RequestHeaders::ORIGIN)?.map(origin).transpose()?,
        country: text(RequestHeaders::COUNTRY)?.map(str::to_ascii_uppercase),
        priority: number(RequestHeaders::PRIORITY)?.unwrap_or(0).clamp(-100, 100) as i32,
        deadline_ms: number(RequestHeaders::DEADLINE)?.map(|ms| ms.clamp(1, 86_400_000) as u32),
        needs: Needs {
            frameworks: list(headers, RequestHeaders::FRAMEWORKS)?,
            allowed_regions: list(headers, RequestHeaders::ALLOWED_REGIONS)?,
            ..enclave(text(RequestHeaders::ENCLAVE)?)?
        },
        ..Request::default()
    })
}

fn plain<'a>(name: &str, value: &'a HeaderValue) -> Result<&'a str, Refusal> {
    let text = value.to_str().map(str::trim);
    text.map_err(|_| Refusal::BadRequest(format!("header {name} is not plain text")))
}

/// What all of a list's headers say together. One that names nothing is a mistake: taken for no need at
/// all, it would let a request go anywhere.
fn list<T: for<'a> From<&'a str>>(headers: &HeaderMap, name: &str) -> Result<Vec<T>, Refusal> {
    let mut all = Vec::new();
    for value in headers.get_all(name) {
        all.extend(
            plain(name, value)?.split(',').map(str::trim).filter(|i| !i.is_empty()).map(T::from),
        );
    }
    if all.is_empty() && headers.contains_key(name) {
        return Err(Refusal::BadRequest(format!("header {name} names nothing")));
    }
    Ok(all)
}

fn enclave(value: Option<&str>) -> Result<Needs, Refusal> {
    let (enclave, attested) = match value {
        None => (false, false),
        Some("required") => (true, false),
        Some("attested") => (true, true),
        Some(other) => {
            return Err(Refusal::BadRequest(format!(
                "header {}: `{other}` is neither `required` nor `attested`",
                RequestHeaders::ENCLAVE
            )));
        }
    };
    Ok(Needs { enclave, attested, ..Needs::default() })
}

fn origin(value: &str) -> Result<Location, Refusal> {
    value
        .split_once(',')
        .and_then(|(latitude, longitude)| {
            let latitude = latitude.trim().parse().ok()?;
            let longitude = longitude.trim().parse().ok()?;
            Some(Location { latitude, longitude }).filter(|at| at.is_valid())
        })
        .ok_or_else(|| {
            Refusal::BadRequest(format!(
                "header {}: `{value}` is not latitude,longitude in degrees, as in 52.5,13.4",
                RequestHeaders::ORIGIN
            ))
        })
}

/// Adds what the body says. Of a body that goes on past `body`, what comes before the cut is read.
pub(super) fn from_body(
    facts: &mut Request,
    headers: &HeaderMap,
    body: &[u8],
    whole: bool,
) -> Result<(), Refusal> {
    facts.prompt_tokens = Some((body.len() / BYTES_PER_TOKEN) as u32);
    if body.is_empty() || !is_json(headers) {
        return Ok(());
    }
    let mut found = BodyFacts::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = (&mut found).deserialize(&mut reader).and_then(|()| reader.end());
    match read {
        Err(e) if whole => {
            return Err(Refusal::BadRequest(format!(
                "the body is not the JSON it says it is: {e}"
            )));
        }
        _ => {}
    }
    if facts.model.is_none() {
        facts.model = found.model.map(Cow::into_owned);
    }
    if facts.session.is_none() {
        facts.session = found.user.as_deref().map(hash);
    }
    facts.stream = found.stream;
    facts.max_tokens = found.max_tokens;
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

fn hash(session: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    session.hash(&mut hasher);
    hasher.finish()
}

/// The fields of an OpenAI-style body that routing uses. The rest is skipped, not parsed into anything.
#[derive(Default)]
struct BodyFacts<'a> {
    model: Option<Cow<'a, str>>,
    user: Option<Cow<'a, str>>,
    stream: bool,
    max_tokens: Option<u32>,
}

impl<'de: 'a, 'a> DeserializeSeed<'de> for &mut BodyFacts<'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, body: D) -> Result<(), D::Error> {
        body.deserialize_any(self)
    }
}

/// Keeps each field as it is read, so that what comes before a cut is not lost.
impl<'de: 'a, 'a> Visitor<'de> for &mut BodyFacts<'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            match key.as_ref() {
                "model" => self.model = map.next_value_seed(TextOrNull)?,
                "user" => self.user = map.next_value_seed(TextOrNull)?,
                "stream" => self.stream = map.next_value::<Option<bool>>()?.unwrap_or(false),
                "max_tokens" | "max_completion_tokens" => self.max_tokens = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A string, borrowed where it has no escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        text.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// What a client left out by writing `null`.
struct TextOrNull;

impl<'de> DeserializeSeed<'de> for TextOrNull {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        text.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for TextOrNull {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        Text.deserialize(text).map(Some)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
