//! Why a document proves nothing.

use thiserror::Error;

/// The first thing that is wrong with a document. What it claims is looked at only once its signature holds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttestationError {
    #[error("the document is {bytes} bytes long: {most} at most")]
    TooLong { bytes: usize, most: usize },
    #[error("the document is no COSE_Sign1 in its one encoding: {0}")]
    NotCose(String),
    #[error("the document's unprotected header is not empty: what is in it is not signed")]
    UnprotectedHeader,
    #[error("the document is not signed by ES384")]
    Algorithm,
    #[error("what is signed is not the payload of a Nitro attestation: {0}")]
    NotNitro(String),
    #[error("the document has {0} certificates in its bundle: 1 to {most}", most = super::document::MAX_BUNDLE)]
    Bundle(usize),
    #[error("the module's certificate cannot be read: {0}")]
    Certificate(String),
    #[error("the module's certificate is an authority's: those certify, and attest nothing")]
    CertifiesOthers,
    #[error("the module's certificate does not allow its key to sign")]
    MayNotSign,
    #[error("the module's certificate is not for a key on P-384")]
    Key,
    #[error("the certificates do not lead to the configured root")]
    Untrusted,
    #[error("a certificate has expired")]
    Expired,
    #[error("a certificate is not valid yet")]
    NotYetValid,
    #[error("the certificates do not hold: {0}")]
    Chain(String),
    #[error("the signature is not that of the module's key")]
    Signature,
    #[error("the document answers another nonce, or none")]
    Nonce,
    #[error(
        "the document was made {age_ms} ms ago: {most_ms} at most (attestation.max_age_seconds)"
    )]
    TooOld { age_ms: u64, most_ms: u64 },
    #[error("the document says that it will be made in {ahead_ms} ms: a clock is wrong")]
    FromTheFuture { ahead_ms: u64 },
    #[error("the document is module {module_id}'s, not of an enclave of {instance}")]
    OtherInstance { module_id: String, instance: String },
    #[error("the enclave runs in debug mode: its memory is open to its host")]
    DebugMode,
    #[error("PCR {index} is none that the pool's images have (attestation.images)")]
    Measurement { index: u8 },
}
