//! Whether a document proves that the enclave of an instance runs what it should, now. Pure.
//!
//! ```text
//!  bytes ─► COSE_Sign1, ES384 ─► certificates ─► root ─► signature ─► nonce ─► age ─► instance ─► PCRs
//! ```

use std::time::Duration;

use mrgc_fleet::model::Timestamp;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage as ExtendedKeyUsage, ring::ECDSA_P384_SHA384};
use x509_cert::{
    Certificate,
    der::{Decode, asn1::ObjectIdentifier, referenced::OwnedToRef},
    ext::pkix::KeyUsage,
};

use super::{
    AttestationError,
    document::{Document, Payload},
    expected::{Measurements, Root},
};

/// How far a module's clock may be ahead of ours.
const MAX_AHEAD: Duration = Duration::from_secs(60);

/// RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// What a document has to prove.
#[derive(Clone, Copy, Debug)]
pub struct Expectation<'a> {
    pub nonce: &'a [u8],
    pub now: Timestamp,
    pub root: &'a Root,
    /// The enclave must run one of them.
    pub images: &'a [Measurements],
    pub max_age: Duration,
    /// The EC2 instance that the module must belong to; `None` where instances have other ids.
    pub instance: Option<&'a str>,
}

/// What a document proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    pub module_id: String,
    /// By the module's clock.
    pub at: Timestamp,
    /// For how long the module's certificate still holds.
    pub certificate_left: Duration,
}

/// Verifies a document.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn verify(bytes: &[u8], expected: &Expectation<'_>) -> Result<Attested, AttestationError> {
    let document = Document::read(bytes)?;
    let payload = &document.payload;
    check_chain(payload, expected)?;
    let certificate = Certificate::from_der(&payload.certificate.0)
        .map_err(|e| AttestationError::Certificate(e.to_string()))?;
    check_signature(&document, &certificate)?;
    check_claims(payload, expected)?;
    let ends = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    let now = Duration::from_millis(expected.now.0);
    Ok(Attested {
        module_id: payload.module_id.clone(),
        at: Timestamp(payload.timestamp),
        certificate_left: ends.saturating_sub(now),
    })
}

fn check_chain(payload: &Payload, expected: &Expectation<'_>) -> Result<(), AttestationError> {
    let module = CertificateDer::from(payload.certificate.0.as_slice());
    let module = EndEntityCert::try_from(&module)
        .map_err(|e| AttestationError::Certificate(e.to_string()))?;
    let bundle: Vec<_> =
        payload.cabundle.iter().map(|der| CertificateDer::from(der.0.as_slice())).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(expected.now.0));
    let verified = module.verify_for_usage(
        &[ECDSA_P384_SHA384],
        std::slice::from_ref(expected.root.anchor()),
        &bundle,
        now,
        // A module's certificate names no extended usage; one that does must be for a peer.
        ExtendedKeyUsage::client_auth(),
        None,
        None,
    );
    verified.map(drop).map_err(|error| match error {
        webpki::Error::CaUsedAsEndEntity => AttestationError::CertifiesOthers,
        webpki::Error::CertExpired { .. } => AttestationError::Expired,
        webpki::Error::CertNotValidYet { .. } => AttestationError::NotYetValid,
        // By no name that is trusted, or by somebody else under a trusted name.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            AttestationError::Untrusted
        }
        error => AttestationError::Chain(error.to_string()),
    })
}

fn check_signature(document: &Document, certificate: &Certificate) -> Result<(), AttestationError> {
    let certificate = certificate.tbs_certificate();
    let usage = certificate.get_extension::<KeyUsage>();
    let usage = usage.map_err(|e| AttestationError::Certificate(e.to_string()))?;
    if !usage.is_some_and(|(_, usage)| usage.digital_signature()) {
        return Err(AttestationError::MayNotSign);
    }
    let key = certificate.subject_public_key_info();
    let algorithm = key.owned_to_ref().algorithm;
    let is_p384 = algorithm.oids().is_ok_and(|oids| oids == (EC_PUBLIC_KEY, Some(P384)));
    let point = key.subject_public_key.as_bytes().filter(|_| is_p384);
    let point = point.ok_or(AttestationError::Key)?;
    let (signed, signature) = document.signed();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(&signed, signature)
        .map_err(|_| AttestationError::Signature)
}

fn check_claims(payload: &Payload, expected: &Expectation<'_>) -> Result<(), AttestationError> {
    if payload.nonce.as_ref().is_none_or(|nonce| nonce.0 != expected.nonce) {
        return Err(AttestationError::Nonce);
    }
    let made = Timestamp(payload.timestamp);
    let (age_ms, ahead_ms) = (expected.now.since_ms(made), made.since_ms(expected.now));
    if u128::from(age_ms) > expected.max_age.as_millis() {
        let most_ms = u64::try_from(expected.max_age.as_millis()).unwrap_or(u64::MAX);
        return Err(AttestationError::TooOld { age_ms, most_ms });
    }
    if u128::from(ahead_ms) > MAX_AHEAD.as_millis() {
        return Err(AttestationError::FromTheFuture { ahead_ms });
    }
    if let Some(instance) = expected.instance
        && !is_enclave_of(&payload.module_id, instance)
    {
        let (module_id, instance) = (payload.module_id.clone(), instance.to_owned());
        return Err(AttestationError::OtherInstance { module_id, instance });
    }
    check_measurements(payload, expected.images)
}

fn is_enclave_of(module_id: &str, instance: &str) -> bool {
    module_id.strip_prefix(instance).is_some_and(|rest| rest.starts_with("-enc"))
}

fn check_measurements(payload: &Payload, images: &[Measurements]) -> Result<(), AttestationError> {
    let pcr = |index: u8| payload.pcrs.get(&index).map(|pcr| pcr.0.as_slice());
    if pcr(0).is_some_and(|pcr| pcr.iter().all(|byte| *byte == 0)) {
        return Err(AttestationError::DebugMode);
    }
    // Where none matches, the one that comes closest says what is wrong.
    let mut furthest = 0;
    for image in images {
        match image.differs(pcr) {
            None => return Ok(()),
            Some(index) => furthest = furthest.max(index),
        }
    }
    Err(AttestationError::Measurement { index: furthest })
}

#[cfg(test)]
mod tests;
