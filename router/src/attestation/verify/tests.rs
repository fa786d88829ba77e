#![allow(clippy::unwrap_used, clippy::panic)]

use ciborium::Value;
use coset::{CoseSign1, CoseSign1Builder, HeaderBuilder, iana::Algorithm};
use nsm_double::{Authority, Claims, Leaf, Nsm, Validity, encode, replace};
use proptest::prelude::*;

use super::*;
use crate::attestation::{AWS_NITRO_ROOT, document::MAX_DOCUMENT_BYTES};

const INSTANCE: &str = "i-0123456789abcdef0";
const NONCE: &[u8] = b"a nonce of this router's";
const MAX_AGE: Duration = Duration::from_secs(300);

/// An authority, a module that it certifies, and what is expected of that.
struct Bench {
    authority: Authority,
    nsm: Nsm,
    root: Root,
    images: Vec<Measurements>,
    now: Timestamp,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new();
        let nsm = authority.nsm(Leaf::default());
        let root = Root::from_pem(authority.root_pem().as_bytes()).unwrap();
        let images = vec![image(&[(0, 0xA0), (1, 0xA1), (2, 0xA2), (8, 0xA8)])];
        Self { authority, nsm, root, images, now: crate::sync::wall_clock() }
    }

    fn claims(&self) -> Claims {
        Claims {
            module_id: format!("{INSTANCE}-enc0123456789abcdef"),
            timestamp_ms: self.now.0 - 1_000,
            pcrs: (0..16).map(|index| (index, vec![0xA0 + index; 48])).collect(),
            nonce: Some(NONCE.to_vec()),
        }
    }

    fn expectation(&self) -> Expectation<'_> {
        Expectation {
            nonce: NONCE,
            now: self.now,
            root: &self.root,
            images: &self.images,
            max_age: MAX_AGE,
            instance: Some(INSTANCE),
        }
    }

    fn verify(&self, document: &[u8]) -> Result<Attested, AttestationError> {
        verify(document, &self.expectation())
    }

    fn verify_claims(
        &self,
        change: impl FnOnce(&mut Claims),
    ) -> Result<Attested, AttestationError> {
        let mut claims = self.claims();
        change(&mut claims);
        self.verify(&self.nsm.attest(&claims))
    }

    fn verify_module(&self, nsm: &Nsm) -> Result<Attested, AttestationError> {
        self.verify(&nsm.attest(&self.claims()))
    }

    fn verify_payload(
        &self,
        key: &str,
        value: Option<Value>,
    ) -> Result<Attested, AttestationError> {
        let mut payload = self.nsm.payload(&self.claims());
        replace(&mut payload, key, value);
        self.verify(&encode(self.nsm.sign(&payload, Algorithm::ES384)))
    }

    fn good(&self) -> CoseSign1 {
        self.nsm.sign(&self.nsm.payload(&self.claims()), Algorithm::ES384)
    }
}

/// An image by the byte that fills each PCR.
fn image(pcrs: &[(u8, u8)]) -> Measurements {
    let table: serde_json::Map<_, _> = pcrs
        .iter()
        .map(|(index, byte)| (index.to_string(), format!("{byte:02X}").repeat(48).into()))
        .collect();
    serde_json::from_value(table.into()).unwrap()
}

#[test]
fn a_good_document_is_attested() {
    let bench = Bench::new();
    let attested = bench.verify_claims(|_| {}).unwrap();
    assert_eq!(attested.module_id, format!("{INSTANCE}-enc0123456789abcdef"));
    assert_eq!(attested.at, Timestamp(bench.now.0 - 1_000));
    let left = attested.certificate_left.as_secs();
    assert!((7_100..=7_200).contains(&left), "{left} s");
}

#[test]
fn claims_must_be_what_is_expected() {
    use AttestationError as E;
    let bench = Bench::new();
    let module_id = |id: &str| E::OtherInstance { module_id: id.into(), instance: INSTANCE.into() };
    type Change = fn(&mut Claims);
    let cases: [(&str, Change, AttestationError); 12] = [
        ("another nonce", |c| c.nonce = Some(b"of another router's".to_vec()), E::Nonce),
        ("a longer nonce", |c| c.nonce.as_mut().unwrap().push(0), E::Nonce),
        ("an empty nonce", |c| c.nonce = Some(Vec::new()), E::Nonce),
        ("no nonce", |c| c.nonce = None, E::Nonce),
        ("old", |c| c.timestamp_ms -= 300_000, E::TooOld { age_ms: 301_000, most_ms: 300_000 }),
        ("of the future", |c| c.timestamp_ms += 70_000, E::FromTheFuture { ahead_ms: 69_000 }),
        ("another instance's", |c| c.module_id = "i-9-enc1".into(), module_id("i-9-enc1")),
        (
            "an instance whose id begins the same",
            |c| c.module_id = format!("{INSTANCE}1-enc1"),
            module_id("i-0123456789abcdef01-enc1"),
        ),
        ("another image", |c| c.pcrs[0].1[47] ^= 1, E::Measurement { index: 0 }),
        ("another signer of images", |c| c.pcrs[8].1[0] ^= 1, E::Measurement { index: 8 }),
        ("a PCR that is not told", |c| c.pcrs.truncate(8), E::Measurement { index: 8 }),
        ("debug mode", |c| c.pcrs.iter_mut().for_each(|pcr| pcr.1.fill(0)), E::DebugMode),
    ];
    for (case, change, expected) in cases {
        assert_eq!(bench.verify_claims(change), Err(expected), "{case}");
    }
    for (case, change) in [
        ("just young enough", (|c| c.timestamp_ms -= 299_000) as Change),
        ("a clock a little ahead", |c| c.timestamp_ms += 61_000),
        ("a PCR that nobody asks for", |c| c.pcrs[9].1.fill(1)),
    ] {
        assert!(bench.verify_claims(change).is_ok(), "{case}");
    }
}

#[test]
fn any_of_the_pools_images_will_do() {
    let mut bench = Bench::new();
    bench.images.insert(0, image(&[(0, 0xB0), (8, 0xA8)]));
    assert!(bench.verify_claims(|_| {}).is_ok());
    assert!(bench.verify_claims(|c| c.pcrs[0].1.fill(0xB0)).is_ok());
    let neither = bench.verify_claims(|c| c.pcrs[0].1.fill(0xC0));
    assert_eq!(neither, Err(AttestationError::Measurement { index: 0 }));
    bench.images.clear();
    assert!(bench.verify_claims(|_| {}).is_err(), "nothing is expected, so nothing is proved");
}

#[test]
fn ids_that_are_not_ec2s_can_be_left_out_of_account() {
    let bench = Bench::new();
    let document = bench.nsm.attest(&bench.claims());
    let expected = Expectation { instance: None, ..bench.expectation() };
    assert!(verify(&document, &expected).is_ok());
}

#[test]
fn a_module_must_be_certified_to_sign() {
    use AttestationError as E;
    let bench = Bench::new();
    let leaf = |leaf: Leaf| bench.authority.nsm(leaf);
    for (case, nsm, expected) in [
        ("expired", leaf(Leaf { validity: Validity::over(), ..Leaf::default() }), E::Expired),
        ("to come", leaf(Leaf { validity: Validity::ahead(), ..Leaf::default() }), E::NotYetValid),
        ("an authority", leaf(Leaf { is_authority: true, ..Leaf::default() }), E::CertifiesOthers),
        ("may not sign", leaf(Leaf { may_sign: false, ..Leaf::default() }), E::MayNotSign),
        ("a key on P-256", leaf(Leaf { is_short: true, ..Leaf::default() }), E::Key),
        ("self-signed", bench.authority.self_signed_nsm(), E::Untrusted),
        ("of another root", Authority::new().nsm(Leaf::default()), E::Untrusted),
    ] {
        assert_eq!(bench.verify_module(&nsm), Err(expected), "{case}");
    }
}

#[test]
fn the_chain_must_be_whole() {
    use AttestationError as E;
    let mut bench = Bench::new();
    // The root need not be there, and comes from the configuration anyway.
    let root = bench.nsm.cabundle.remove(0);
    assert!(bench.verify_claims(|_| {}).is_ok());

    let between = bench.nsm.cabundle.pop().unwrap();
    assert_eq!(bench.verify_claims(|_| {}), Err(E::Bundle(0)));
    bench.nsm.cabundle = vec![root.clone()];
    assert_eq!(bench.verify_claims(|_| {}), Err(E::Untrusted), "broken");
    bench.nsm.cabundle = vec![root.clone(); 9];
    assert_eq!(bench.verify_claims(|_| {}), Err(E::Bundle(9)));
    bench.nsm.cabundle = vec![root, between[..between.len() - 1].to_vec()];
    let cut = bench.verify_claims(|_| {});
    assert!(matches!(cut, Err(E::Chain(_))), "cut short: {cut:?}");

    // Another authority's certificate in between, and its root beside: that is not the configured one.
    let other = Authority::new();
    let mut nsm = other.nsm(Leaf::default());
    nsm.cabundle.insert(0, bench.authority.root_der().to_vec());
    assert_eq!(bench.verify_module(&nsm), Err(E::Untrusted));

    bench.authority = Authority::with_validity(Validity::over());
    bench.root = Root::from_pem(bench.authority.root_pem().as_bytes()).unwrap();
    let nsm = bench.authority.nsm(Leaf::default());
    assert_eq!(bench.verify_module(&nsm), Err(E::Expired), "an authority that has expired");
}

#[test]
fn nothing_of_ours_is_under_the_root_of_aws() {
    let mut bench = Bench::new();
    bench.root = Root::from_pem(AWS_NITRO_ROOT).unwrap();
    assert_eq!(bench.verify_claims(|_| {}), Err(AttestationError::Untrusted));
}

#[test]
fn what_is_signed_cannot_be_changed() {
    let bench = Bench::new();
    let mut payload = bench.nsm.payload(&bench.claims());
    replace(&mut payload, "nonce", Some(Value::Bytes(b"other".to_vec())));
    let mut changed = Vec::new();
    ciborium::into_writer(&payload, &mut changed).unwrap();
    let tampered = CoseSign1 { payload: Some(changed), ..bench.good() };
    assert_eq!(bench.verify(&encode(tampered)), Err(AttestationError::Signature));

    for at in [0, 47, 48, 95] {
        let mut document = bench.good();
        document.signature[at] ^= 1;
        assert_eq!(bench.verify(&encode(document)), Err(AttestationError::Signature), "{at}");
    }
    for signature in [vec![], vec![0; 96], vec![0xFF; 96], bench.good().signature[..95].to_vec()] {
        let document = CoseSign1 { signature, ..bench.good() };
        assert_eq!(bench.verify(&encode(document)), Err(AttestationError::Signature));
    }
    // Signed by a key that the same authority certified, under the certificate of another.
    let mut other = bench.authority.nsm(Leaf::default());
    other.certificate.clone_from(&bench.nsm.certificate);
    assert_eq!(bench.verify_module(&other), Err(AttestationError::Signature));
}

#[test]
fn the_algorithm_is_es384() {
    let bench = Bench::new();
    let payload = bench.nsm.payload(&bench.claims());
    for algorithm in [Algorithm::ES256, Algorithm::ES512, Algorithm::EdDSA, Algorithm::HMAC_384_384]
    {
        let document = encode(bench.nsm.sign(&payload, algorithm));
        assert_eq!(bench.verify(&document), Err(AttestationError::Algorithm), "{algorithm:?}");
    }
    let none = CoseSign1 { protected: Default::default(), ..bench.good() };
    assert_eq!(bench.verify(&encode(none)), Err(AttestationError::Algorithm));

    let header = HeaderBuilder::new().algorithm(Algorithm::ES384).build();
    let unprotected = CoseSign1 { unprotected: header, ..bench.good() };
    assert_eq!(bench.verify(&encode(unprotected)), Err(AttestationError::UnprotectedHeader));
}

#[test]
fn a_payload_has_all_its_fields() {
    let bench = Bench::new();
    for key in ["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"] {
        let error = bench.verify_payload(key, None).unwrap_err();
        assert!(matches!(error, AttestationError::NotNitro(_)), "without {key}: {error}");
        let error = bench.verify_payload(key, Some(Value::Bool(true))).unwrap_err();
        assert!(matches!(error, AttestationError::NotNitro(_)), "{key}: {error}");
    }
    let sha256 = bench.verify_payload("digest", Some("SHA256".into())).unwrap_err();
    assert_eq!(
        sha256.to_string(),
        "what is signed is not the payload of a Nitro attestation: its digest is not SHA384"
    );
    let garbage = bench.verify_payload("certificate", Some(Value::Bytes(vec![0x30; 40])));
    assert!(matches!(garbage, Err(AttestationError::Certificate(_))), "{garbage:?}");
    assert!(bench.verify_payload("user_data", Some(Value::Bytes(vec![1]))).is_ok());

    let nested = (0..300).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let error = bench.verify_payload("user_data", Some(nested)).unwrap_err();
    assert!(matches!(error, AttestationError::NotNitro(_)), "{error}");

    let empty = CoseSign1Builder::new().protected(bench.good().protected.header);
    for document in [empty.build(), CoseSign1 { payload: Some(vec![]), ..bench.good() }] {
        let error = bench.verify(&encode(document)).unwrap_err();
        assert!(matches!(error, AttestationError::NotNitro(_)), "{error}");
    }
}

#[test]
fn a_document_is_no_longer_than_it_must_be() {
    let bench = Bench::new();
    let good = bench.nsm.attest(&bench.claims());
    assert!(good.len() < MAX_DOCUMENT_BYTES / 4);
    for end in [0, 1, 5, good.len() / 2, good.len() - 1] {
        let error = bench.verify(&good[..end]).unwrap_err();
        assert!(matches!(error, AttestationError::NotCose(_)), "{end} bytes: {error}");
    }
    let longer = |extra: &[u8]| bench.verify(&[&good, extra].concat()).unwrap_err();
    assert!(matches!(longer(&[0]), AttestationError::NotCose(_)));
    assert!(matches!(longer(&good), AttestationError::NotCose(_)));

    let huge = bench.verify_payload("user_data", Some(Value::Bytes(vec![0; 1 << 20]))).unwrap_err();
    assert!(matches!(huge, AttestationError::TooLong { most: MAX_DOCUMENT_BYTES, .. }), "{huge}");
    // An array that says it has 2^60 entries.
    let endless = bench.verify(&[0x9B, 0x10, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
    assert!(matches!(endless, AttestationError::NotCose(_)), "{endless}");

    // Each writes the same four entries of the array in another way.
    let tagged = [&[0xD2], good.as_slice()].concat();
    let long_head = [&[0x98, 4], &good[1..]].concat();
    let endless_head = [&[0x9F], &good[1..], &[0xFF]].concat();
    for other in [tagged, long_head, endless_head] {
        let error = bench.verify(&other).unwrap_err();
        assert!(matches!(error, AttestationError::NotCose(_)), "{error}");
    }
}

/// One way to change a few bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: prop::sample::Index, bit: u8 },
    Set { at: prop::sample::Index, byte: u8 },
    Insert { at: prop::sample::Index, byte: u8 },
    Remove { at: prop::sample::Index },
    Cut { at: prop::sample::Index },
    Swap { one: prop::sample::Index, other: prop::sample::Index },
}

fn some_mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Insert { at, byte }),
        2 => at().prop_map(|at| Mutation::Remove { at }),
        1 => at().prop_map(|at| Mutation::Cut { at }),
        1 => (at(), at()).prop_map(|(one, other)| Mutation::Swap { one, other }),
    ]
}

fn mutate(document: &mut Vec<u8>, mutation: &Mutation) {
    let len = document.len();
    match mutation {
        Mutation::Flip { at, bit } => document[at.index(len)] ^= 1 << bit,
        Mutation::Set { at, byte } => document[at.index(len)] = *byte,
        Mutation::Insert { at, byte } => document.insert(at.index(len), *byte),
        Mutation::Remove { at } => drop(document.remove(at.index(len))),
        Mutation::Cut { at } => document.truncate(at.index(len)),
        Mutation::Swap { one, other } => document.swap(one.index(len), other.index(len)),
    }
}

/// Any change of a good document is noticed; and nothing that comes in makes the verification panic.
#[test]
fn no_mutation_of_a_good_document_verifies() {
    let bench = Bench::new();
    let good = bench.nsm.attest(&bench.claims());
    assert!(bench.verify(&good).is_ok());
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() };
    proptest!(config, |(mutations in prop::collection::vec(some_mutation(), 1..4))| {
        let mut document = good.clone();
        for mutation in &mutations {
            if !document.is_empty() {
                mutate(&mut document, mutation);
            }
        }
        prop_assert!(document == good || bench.verify(&document).is_err());
    });
}

#[test]
fn bytes_of_any_kind_do_not_verify() {
    let bench = Bench::new();
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() };
    proptest!(config, |(document in prop::collection::vec(any::<u8>(), 0..256))| {
        prop_assert!(bench.verify(&document).is_err());
        // Behind the head of a document they are read further.
        let headed = [b"\x84\x44\xA1\x01\x38\x22\xA0", document.as_slice()].concat();
        prop_assert!(bench.verify(&headed).is_err());
    });
}
