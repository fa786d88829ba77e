//! What travels with a request from one region's router to another's, under the shared key.

use http::{HeaderMap, HeaderName, HeaderValue};
use mrgc_fleet::model::{RegionId, Request};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::decision::DecisionId;
use crate::problem::Refusal;

const KEY: HeaderName = HeaderName::from_static("x-mrgc-peer-key");
const HOP: HeaderName = HeaderName::from_static("x-mrgc-hop");

/// A request that another region's router sent. Its facts and needs are final: they were read from the
/// client where it entered, and nothing on the way may shed a need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Hop {
    pub facts: Request,
    /// The route that matched where the request entered.
    pub route: String,
    pub attempts_left: usize,
    pub deadline_ms: u64,
    /// Regions that were tried, the sender's among them: none of them is tried again.
    pub regions_tried: Vec<RegionId>,
    pub decision: DecisionId,
    /// A region fails whose request it may have been: it is taken only where there is room. Not said by older
    /// routers, as the next.
    #[serde(default)]
    pub moved: bool,
    /// Yet another region can be tried, so evidence against this one's instances stands.
    #[serde(default)]
    pub elsewhere: bool,
}

impl Hop {
    /// The hop a request claims to be, if it proves to know the key.
    pub fn read(headers: &HeaderMap, key: Option<&str>) -> Result<Option<Self>, Refusal> {
        let Some(given) = headers.get(KEY) else { return Ok(None) };
        if !key.is_some_and(|key| same(key.as_bytes(), given.as_bytes())) {
            return Err(Refusal::WrongKey);
        }
        let hop = headers.get(HOP).map(HeaderValue::as_bytes).unwrap_or_default();
        serde_json::from_slice(hop)
            .map(Some)
            .map_err(|e| Refusal::BadRequest(format!("header x-mrgc-hop: {e}")))
    }

    /// Puts it on an outgoing request. False where it cannot be said in a header.
    pub fn write(&self, headers: &mut HeaderMap, key: &str) -> bool {
        let hop = serde_json::to_vec(self).ok().and_then(|hop| HeaderValue::from_bytes(&hop).ok());
        let (Some(hop), Ok(key)) = (hop, HeaderValue::from_str(key)) else { return false };
        headers.insert(HOP, hop);
        headers.insert(KEY, key);
        true
    }
}

/// Compares digests, so that the time it takes tells nothing of the key.
fn same(a: &[u8], b: &[u8]) -> bool {
    Sha256::digest(a) == Sha256::digest(b)
}
