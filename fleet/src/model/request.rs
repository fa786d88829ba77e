//! What is known of a request before it is routed.

use serde::{Deserialize, Serialize};

use super::{Framework, Location, RegionId};

/// A request's facts. The policies score by them; the guard holds its `needs` whatever they say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    pub model: Option<String>,
    pub tenant: Option<String>,
    /// Hash of the session, for affinity.
    pub session: Option<u64>,
    /// Higher is served first.
    pub priority: i32,
    pub origin: Option<Location>,
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    pub needs: Needs,
    /// Whether the client wants events as they come.
    pub stream: bool,
    /// Estimated from the body's size where nobody counted.
    pub prompt_tokens: Option<u32>,
    pub max_tokens: Option<u32>,
    pub deadline_ms: Option<u32>,
    pub attributes: Vec<(String, String)>,
}

/// Where a request may go at all. Needs only ever grow: a hop, a tenant or a header may add to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Needs {
    pub frameworks: Vec<Framework>,
    /// Empty: any region.
    pub allowed_regions: Vec<RegionId>,
    /// Nothing but instances with a running enclave.
    pub enclave: bool,
    /// With `enclave`: only those whose attestation a router has verified.
    pub attested: bool,
    /// Allowed regions that ruled each other out: nowhere will do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub contradictory: bool,
}

impl Needs {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another's needs. Regions that both allow remain.
    pub fn add(&mut self, other: &Self) {
        for framework in &other.frameworks {
            if !self.frameworks.contains(framework) {
                self.frameworks.push(framework.clone());
            }
        }
        if self.allowed_regions.is_empty() {
            self.allowed_regions.clone_from(&other.allowed_regions);
        } else if !other.allowed_regions.is_empty() {
            self.allowed_regions.retain(|region| other.allowed_regions.contains(region));
            self.contradictory |= self.allowed_regions.is_empty();
        }
        self.enclave |= other.enclave;
        self.attested |= other.attested;
        self.contradictory |= other.contradictory;
    }
}
