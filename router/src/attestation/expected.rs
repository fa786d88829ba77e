//! What is expected of documents: the root that they lead to, and the images that a pool's enclaves run.

use std::collections::BTreeMap;

use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject};
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// The root of all Nitro enclaves, as AWS publishes it, with the fingerprint
/// `64:1A:03:21:A3:E2:44:EF:E4:56:46:31:95:D6:06:31:7E:D7:CD:CC:3C:17:56:E0:98:93:F3:C6:8F:79:BB:5B`.
pub const AWS_NITRO_ROOT: &[u8] = include_bytes!("aws-nitro-root-g1.pem");

/// SHA-384.
const PCR_BYTES: usize = 48;

/// NSM has 32 of them, and documents tell the first 16.
const MAX_PCR: u8 = 15;

/// Whom documents are believed by.
#[derive(Clone, Debug)]
pub struct Root(TrustAnchor<'static>);

impl Root {
    /// The one certificate of a PEM file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(pem)
            .map_err(|e| format!("it holds no certificate in PEM: {e}"))?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|e| format!("its certificate cannot be read: {e}"))?;
        Ok(Self(anchor.to_owned()))
    }

    pub fn anchor(&self) -> &TrustAnchor<'static> {
        &self.0
    }
}

/// What an enclave image measures, by PCR: of those that are named, all must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Measurements(BTreeMap<u8, String>);

impl Measurements {
    /// The first PCR that is not as it should be.
    pub fn differs<'a>(&self, pcr: impl Fn(u8) -> Option<&'a [u8]>) -> Option<u8> {
        let is_wrong = |(index, wanted): &(&u8, &String)| {
            pcr(**index).is_none_or(|found| hex(found) != **wanted)
        };
        self.0.iter().find(is_wrong).map(|(index, _)| *index)
    }
}

impl<'de> Deserialize<'de> for Measurements {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, String>::deserialize(from)?;
        if written.is_empty() {
            return Err(D::Error::custom(
                "names no PCR: give at least one, as in { 0 = \"…\" }, as `nitro-cli describe-eif` tells them",
            ));
        }
        let measurements = written.into_iter().map(|(index, value)| measurement(&index, &value));
        measurements.collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

fn measurement(index: &str, value: &str) -> Result<(u8, String), String> {
    let number = index.trim_start_matches("PCR").parse().ok().filter(|n| *n <= MAX_PCR);
    let number = number.ok_or_else(|| format!("`{index}` is no PCR: 0 to {MAX_PCR}"))?;
    let is_hex = value.bytes().all(|b| b.is_ascii_hexdigit());
    if value.len() != 2 * PCR_BYTES || !is_hex {
        return Err(format!("PCR {number} is not {} hexadecimal digits", 2 * PCR_BYTES));
    }
    if value.bytes().all(|b| b == b'0') {
        return Err(format!(
            "PCR {number} is all zeros: that is an enclave in debug mode, which attests nothing"
        ));
    }
    Ok((number, value.to_ascii_lowercase()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
