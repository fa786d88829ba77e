//! Asking another region's router whether it is there, for the round trip, and which enclaves it verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mrgc_fleet::model::{PoolId, RegionId};
use serde::Deserialize;

/// After this nobody waits for an answer. It was a miss long before, and shows all the same that the region
/// is back.
const LIMIT: Duration = Duration::from_secs(2);

/// A router's answer to a ping; one that is longer is not read for what it says.
const MAX_PONG_BYTES: usize = 64 << 10;

/// Pools with an attested enclave, by the word of other regions' routers.
pub type AttestedPools = BTreeMap<RegionId, BTreeSet<PoolId>>;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pinger {
    client: reqwest::Client,
}

/// What a router answered.
#[derive(Debug)]
pub struct Pong {
    pub rtt_ms: f64,
    pub attested_pools: BTreeSet<PoolId>,
}

impl Pinger {
    pub fn new(client: reqwest::Client) -> Self {
        Self { client }
    }

    /// `None` where nobody answered. An answer of any status is one: whether the region takes requests is
    /// what its instances say.
    pub async fn ping(&self, endpoint: &str) -> Option<Pong> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Health {
            attested_pools: BTreeSet<PoolId>,
        }
        let url = format!("{}/health", endpoint.trim_end_matches('/'));
        let started = Instant::now();
        let mut answer = self.client.get(url).timeout(LIMIT).send().await.ok()?;
        let rtt_ms = started.elapsed().as_secs_f64() * 1000.0;
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            if body.len() + chunk.len() > MAX_PONG_BYTES {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let health: Health = serde_json::from_slice(&body).unwrap_or_default();
        Some(Pong { rtt_ms, attested_pools: health.attested_pools })
    }
}
