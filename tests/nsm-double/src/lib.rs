//! Stands in for a Nitro Security Module: attestation documents as the real one makes them, under a certificate
//! authority of its own, whole or forged.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests")]

use ciborium::Value;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, iana::Algorithm};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use time::{Duration, OffsetDateTime};

/// When a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

impl Validity {
    /// From an hour ago until in two: as long as the certificate of a real module.
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now - Duration::HOUR, until: now + 2 * Duration::HOUR }
    }

    /// That which ended a minute ago.
    pub fn over() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now - Duration::HOUR, until: now - Duration::MINUTE }
    }

    /// That which begins in a minute.
    pub fn ahead() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now + Duration::MINUTE, until: now + Duration::HOUR }
    }
}

/// A root, and an authority between it and the modules.
#[derive(Debug)]
pub struct Authority {
    root: Signer,
    between: Signer,
}

#[derive(Debug)]
struct Signer {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

/// What a module's certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    pub validity: Validity,
    pub is_authority: bool,
    pub may_sign: bool,
    /// A key on P-256 in place of P-384.
    pub is_short: bool,
}

impl Default for Leaf {
    fn default() -> Self {
        Self { validity: Validity::now(), is_authority: false, may_sign: true, is_short: false }
    }
}

/// A security module: its certificate, what certifies that, and its key.
#[derive(Debug)]
pub struct Nsm {
    /// DER.
    pub certificate: Vec<u8>,
    /// DER, the root first.
    pub cabundle: Vec<Vec<u8>>,
    key: EcdsaKeyPair,
}

/// What a document claims.
#[derive(Clone, Debug)]
pub struct Claims {
    /// As in `i-1234567890abcdef0-enc0123456789abcdef`.
    pub module_id: String,
    /// Since the Unix epoch.
    pub timestamp_ms: u64,
    pub pcrs: Vec<(u8, Vec<u8>)>,
    pub nonce: Option<Vec<u8>>,
}

impl Authority {
    pub fn new() -> Self {
        Self::with_validity(Validity::now())
    }

    /// One whose intermediate certificate is valid so; the root always is.
    pub fn with_validity(between: Validity) -> Self {
        let root = Signer::new("root", Validity::now(), None);
        let between = Signer::new("zone", between, Some(&root));
        Self { root, between }
    }

    pub fn root_pem(&self) -> &str {
        &self.root.pem
    }

    pub fn root_der(&self) -> &[u8] {
        &self.root.der
    }

    /// A module that this authority certifies.
    pub fn nsm(&self, leaf: Leaf) -> Nsm {
        let (params, key) = leaf.params();
        let issuer = Issuer::from_params(&self.between.params, &self.between.key);
        let certificate = params.signed_by(&key, &issuer).expect("certified").der().to_vec();
        let cabundle = vec![self.root.der.clone(), self.between.der.clone()];
        Nsm { certificate, cabundle, key: leaf.signing_key(&key) }
    }

    /// One that certifies itself, with this authority's certificates beside.
    pub fn self_signed_nsm(&self) -> Nsm {
        let leaf = Leaf::default();
        let (params, key) = leaf.params();
        let certificate = params.self_signed(&key).expect("certified").der().to_vec();
        let cabundle = vec![self.root.der.clone(), self.between.der.clone()];
        Nsm { certificate, cabundle, key: leaf.signing_key(&key) }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Signer {
    fn new(name: &str, validity: Validity, issuer: Option<&Signer>) -> Self {
        let mut params = params(name, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
        let certificate = match issuer {
            Some(issuer) => {
                params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key))
            }
            None => params.self_signed(&key),
        };
        let certificate = certificate.expect("certified");
        Self { params, key, der: certificate.der().to_vec(), pem: certificate.pem() }
    }
}

impl Leaf {
    fn params(self) -> (CertificateParams, KeyPair) {
        let mut params = params("module", self.validity);
        params.is_ca = if self.is_authority {
            IsCa::Ca(BasicConstraints::Unconstrained)
        } else {
            IsCa::ExplicitNoCa
        };
        params.key_usages = vec![if self.may_sign {
            KeyUsagePurpose::DigitalSignature
        } else {
            KeyUsagePurpose::KeyAgreement
        }];
        let algorithm =
            if self.is_short { &PKCS_ECDSA_P256_SHA256 } else { &PKCS_ECDSA_P384_SHA384 };
        (params, KeyPair::generate_for(algorithm).expect("a key"))
    }

    fn signing_key(self, key: &KeyPair) -> EcdsaKeyPair {
        let algorithm = if self.is_short {
            &ECDSA_P256_SHA256_FIXED_SIGNING
        } else {
            &ECDSA_P384_SHA384_FIXED_SIGNING
        };
        EcdsaKeyPair::from_pkcs8(algorithm, &key.serialize_der(), &SystemRandom::new())
            .expect("the key that was generated")
    }
}

impl Nsm {
    /// A document as a real module makes it.
    pub fn attest(&self, claims: &Claims) -> Vec<u8> {
        encode(self.sign(&self.payload(claims), Algorithm::ES384))
    }

    /// What is signed, to be tampered with.
    pub fn payload(&self, claims: &Claims) -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let pcrs = claims.pcrs.iter().map(|(index, pcr)| ((*index).into(), bytes(pcr)));
        Value::Map(vec![
            (text("module_id"), text(&claims.module_id)),
            (text("digest"), text("SHA384")),
            (text("timestamp"), claims.timestamp_ms.into()),
            (text("pcrs"), Value::Map(pcrs.collect())),
            (text("certificate"), bytes(&self.certificate)),
            (text("cabundle"), Value::Array(self.cabundle.iter().map(|der| bytes(der)).collect())),
            (text("public_key"), Value::Null),
            (text("user_data"), Value::Null),
            (text("nonce"), claims.nonce.as_deref().map_or(Value::Null, bytes)),
        ])
    }

    /// Signs any payload, and says that it did so by the algorithm.
    pub fn sign(&self, payload: &Value, algorithm: Algorithm) -> CoseSign1 {
        let mut encoded = Vec::new();
        ciborium::into_writer(payload, &mut encoded).expect("memory takes everything");
        let sign = |data: &[u8]| {
            let signature = self.key.sign(&SystemRandom::new(), data).expect("signed");
            signature.as_ref().to_vec()
        };
        CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(algorithm).build())
            .payload(encoded)
            .create_signature(&[], sign)
            .build()
    }
}

/// The bytes of a document.
pub fn encode(document: CoseSign1) -> Vec<u8> {
    document.to_vec().expect("memory takes everything")
}

/// Replaces an entry of a payload, or removes it.
pub fn replace(payload: &mut Value, key: &str, value: Option<Value>) {
    let entries = payload.as_map_mut().expect("a payload is a map");
    entries.retain(|(name, _)| name.as_text() != Some(key));
    entries.extend(value.map(|value| (Value::Text(key.to_owned()), value)));
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (validity.from, validity.until);
    params
}
