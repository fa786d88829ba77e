//! `policies`: the artifacts of routing policies, by digest, and which one each policy's name means.
//!
//! | pk | sk | item |
//! |---|---|---|
//! | `POLICIES` | policy's name | the head: [`PolicyVersion`], below 1 KB |
//! | `ARTIFACT#digest` | `00000`, `00001`… | `content`: [`CHUNK_BYTES`] of the artifact, the last one less |
//!
//! The content is written first and the head last, so that a crash leaves chunks without a head, which
//! the next upload of the same artifact reuses, and never a head that points nowhere. The head is written
//! conditionally on the generation that was read: of two uploads at once, each gets its own generation.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Store,
    calls::{Condition, Key, Update, Written},
    error::StoreError,
    item::{self, Item},
    routing_state::GENERATION,
    schema::Table,
};

/// Largest artifact that is taken; a policy is a few tens of KB, a few MB with a whole language runtime.
pub const MAX_ARTIFACT_BYTES: usize = 16 << 20;

/// Well below the 400 KB an item may have. Part of the stored layout.
const CHUNK_BYTES: usize = 256 << 10;
/// Uploads of one name at the same time that one of them outlasts.
const HEAD_ATTEMPTS: u32 = 8;
/// Bytes of a policy's name.
const MAX_NAME_BYTES: usize = 128;
const DIGEST_HEX_DIGITS: usize = 64;

const HEADS: &str = "POLICIES";
const CONTENT: &str = "content";

/// What a policy's name means now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    pub name: String,
    /// Raised by each upload under this name.
    pub generation: u64,
    /// SHA-256 of the artifact, in hexadecimal.
    pub digest: String,
    pub size_bytes: u64,
    /// By the uploader's clock.
    pub uploaded_at: Timestamp,
}

impl Store {
    /// Stores an artifact and makes the policy's name mean it.
    pub async fn put_policy(
        &self,
        name: &str,
        artifact: &[u8],
    ) -> Result<PolicyVersion, StoreError> {
        let key = Key { pk: HEADS.to_owned(), sk: name.to_owned() };
        let invalid = |reason: String| StoreError::Invalid {
            call: self.call("PutItem", Table::Policies, &key),
            reason,
        };
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let length = name.len();
            return Err(invalid(format!(
                "a policy's name has 1 to {MAX_NAME_BYTES} bytes, not {length}"
            )));
        }
        if artifact.is_empty() || artifact.len() > MAX_ARTIFACT_BYTES {
            let length = artifact.len();
            return Err(invalid(format!(
                "an artifact has 1 to {MAX_ARTIFACT_BYTES} bytes, not {length}"
            )));
        }

        let digest = sha256_hex(artifact);
        for (number, content) in artifact.chunks(CHUNK_BYTES).enumerate() {
            let chunk = Item::from([
                (item::PK.to_owned(), AttributeValue::S(artifact_partition(&digest))),
                (item::SK.to_owned(), AttributeValue::S(format!("{number:05}"))),
                (CONTENT.to_owned(), AttributeValue::B(content.into())),
            ]);
            self.put(Table::Policies, chunk).await?;
        }
        self.put_head(&key, digest, artifact.len() as u64).await
    }

    /// What each policy's name means now, by name.
    pub async fn policies(&self) -> Result<Vec<PolicyVersion>, StoreError> {
        let items = self.query(Table::Policies, HEADS, true).await?;
        Ok(self.readable(Table::Policies, items))
    }

    /// An artifact by its digest, which is verified.
    pub async fn artifact(&self, digest: &str) -> Result<Vec<u8>, StoreError> {
        let key = Key { pk: artifact_partition(digest), sk: "*".to_owned() };
        let call = || self.call("Query", Table::Policies, &key);
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if digest.len() != DIGEST_HEX_DIGITS || !digest.bytes().all(hex) {
            let reason = format!("a digest is {DIGEST_HEX_DIGITS} lower-case hexadecimal digits");
            return Err(StoreError::Invalid { call: call(), reason });
        }

        let chunks = self.query(Table::Policies, &key.pk, true).await?;
        if chunks.is_empty() {
            let what = format!("the artifact {digest}");
            return Err(StoreError::NotFound { call: call(), what });
        }
        let mut artifact = Vec::new();
        for chunk in &chunks {
            if let Some(AttributeValue::B(content)) = chunk.get(CONTENT) {
                artifact.extend_from_slice(content.as_ref());
            }
        }
        let found = sha256_hex(&artifact);
        if found != digest {
            let reason = format!(
                "its {} chunks have {} bytes with digest {found}: an upload did not finish",
                chunks.len(),
                artifact.len()
            );
            return Err(StoreError::Corrupt { call: call(), reason });
        }
        Ok(artifact)
    }

    async fn put_head(
        &self,
        key: &Key,
        digest: String,
        size_bytes: u64,
    ) -> Result<PolicyVersion, StoreError> {
        let mut version = PolicyVersion {
            name: key.sk.clone(),
            generation: 0,
            digest,
            size_bytes,
            uploaded_at: now(),
        };
        for _ in 0..HEAD_ATTEMPTS {
            let stored = self.get(Table::Policies, key).await?;
            let stored = stored.and_then(|item| item::integer(&item, GENERATION));
            version.generation = stored.unwrap_or(0).saturating_add(1);
            let update = Update::record(self.item(Table::Policies, key, &version)?, &[]);
            let condition = Condition::still(GENERATION, stored);
            if let Written::Done = self.update_if(Table::Policies, update, condition).await? {
                return Ok(version);
            }
        }
        let call = self.call("UpdateItem", Table::Policies, key);
        Err(StoreError::Contended { call, attempts: HEAD_ATTEMPTS })
    }
}

fn artifact_partition(digest: &str) -> String {
    format!("ARTIFACT#{digest}")
}

fn sha256_hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(DIGEST_HEX_DIGITS);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
