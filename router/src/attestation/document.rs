//! A Nitro attestation document: a COSE_Sign1 whose payload is a CBOR map, as the Nitro Security Module
//! makes it. Read, and not yet believed.

use std::collections::BTreeMap;

use ciborium::de::Error as CborError;
use coset::{
    Algorithm, CborSerializable, CoseSign1, RegisteredLabelWithPrivate, iana::Algorithm as Iana,
};
use serde::{Deserialize, Deserializer, de};

use super::AttestationError;

/// What a module answers is at most 12 KiB long.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 10;

/// A real bundle has four: the root, and two or three authorities between it and the module.
pub const MAX_BUNDLE: usize = 8;

/// Nested deeper than any document.
const MAX_DEPTH: usize = 8;

/// A document that was read.
#[derive(Debug)]
pub struct Document {
    pub payload: Payload,
    sign1: CoseSign1,
}

/// What is signed. A module's payload has further entries, which nothing here is judged by.
#[derive(Debug, Deserialize)]
pub struct Payload {
    /// As in `i-1234567890abcdef0-enc0123456789abcdef`.
    pub module_id: String,
    pub digest: String,
    /// In milliseconds since the Unix epoch.
    pub timestamp: u64,
    pub pcrs: BTreeMap<u8, Bytes>,
    /// The module's own, DER.
    pub certificate: Bytes,
    /// What certifies it, DER, the root first.
    pub cabundle: Vec<Bytes>,
    #[serde(default)]
    pub nonce: Option<Bytes>,
}

/// A CBOR byte string.
#[derive(Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        from.deserialize_byte_buf(Visitor)
    }
}

impl Document {
    /// Reads a document. There is one way to write each: a longer one, or one with something behind it or
    /// beside what is signed, is refused.
    pub fn read(bytes: &[u8]) -> Result<Self, AttestationError> {
        if bytes.len() > MAX_DOCUMENT_BYTES {
            let most = MAX_DOCUMENT_BYTES;
            return Err(AttestationError::TooLong { bytes: bytes.len(), most });
        }
        let not_cose = |why: &dyn std::fmt::Display| AttestationError::NotCose(why.to_string());
        let sign1 = CoseSign1::from_slice(bytes).map_err(|e| not_cose(&e))?;
        if !sign1.unprotected.is_empty() {
            return Err(AttestationError::UnprotectedHeader);
        }
        let es384: Algorithm = RegisteredLabelWithPrivate::Assigned(Iana::ES384);
        if sign1.protected.header.alg != Some(es384) || !sign1.protected.header.crit.is_empty() {
            return Err(AttestationError::Algorithm);
        }
        let encoded = sign1.clone().to_vec().map_err(|e| not_cose(&e))?;
        if encoded != bytes {
            return Err(not_cose(&"it could be shorter"));
        }
        let payload = read_payload(sign1.payload.as_deref().unwrap_or_default())?;
        Ok(Self { payload, sign1 })
    }

    /// What was signed, and the signature: two numbers of 48 bytes each.
    pub fn signed(&self) -> (Vec<u8>, &[u8]) {
        (self.sign1.tbs_data(&[]), &self.sign1.signature)
    }
}

fn read_payload(encoded: &[u8]) -> Result<Payload, AttestationError> {
    let mut rest = encoded;
    let payload: Payload = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|e| AttestationError::NotNitro(cbor_error(e)))?;
    let wrong = |why: &str| Err(AttestationError::NotNitro(why.to_owned()));
    if !rest.is_empty() {
        return wrong("something follows it");
    }
    if payload.digest != "SHA384" {
        return wrong("its digest is not SHA384");
    }
    if !(1..=MAX_BUNDLE).contains(&payload.cabundle.len()) {
        return Err(AttestationError::Bundle(payload.cabundle.len()));
    }
    Ok(payload)
}

fn cbor_error<T>(error: CborError<T>) -> String {
    match error {
        CborError::Io(_) => "it ends early".to_owned(),
        CborError::Syntax(at) => format!("it is no CBOR at byte {at}"),
        CborError::Semantic(_, why) => why,
        CborError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    }
}
