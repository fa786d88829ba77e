//! A region: where it is, what it satisfies, and how its routers are reached.

use serde::{Deserialize, Serialize};

use super::{Framework, RegionId};

/// Degrees, WGS 84.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    pub latitude: f64,
    pub longitude: f64,
}

impl Location {
    /// Whether this is a point on Earth.
    pub fn is_valid(self) -> bool {
        (-90.0..=90.0).contains(&self.latitude) && (-180.0..=180.0).contains(&self.longitude)
    }
}

/// A region, as an operator registers it. Stored in `regions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    #[serde(rename = "region_id")]
    pub id: RegionId,
    /// For people, as in `US East (N. Virginia)`.
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(flatten)]
    pub location: Option<Location>,
    /// URL of the region's routers.
    pub endpoint: String,
    #[serde(default)]
    pub frameworks: Vec<Framework>,
    /// Price relative to the reference region.
    #[serde(default = "one")]
    pub cost_multiplier: f64,
    /// Grams of CO2 per kWh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carbon_intensity: Option<f64>,
    /// Requests the region may serve at once, where that is less than its instances' slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_capacity: Option<u32>,
    /// Over how many partitions its instances are spread in the store.
    #[serde(default = "default_shards")]
    pub shards: u32,
}

impl Region {
    pub const DEFAULT_SHARDS: u32 = 4;

    /// Each thing that is wrong with it, as a sentence.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.id.as_str().is_empty() {
            problems.push("region_id is empty".to_owned());
        }
        let rest = self.endpoint.strip_prefix("http://");
        if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
            problems.push(format!(
                "endpoint `{}` is not an http:// URL with a host; routers speak plain HTTP among themselves",
                self.endpoint
            ));
        }
        if let Some(location) = self.location.filter(|l| !l.is_valid()) {
            problems.push(format!(
                "latitude {}, longitude {} is not a place on Earth",
                location.latitude, location.longitude
            ));
        }
        if !(self.cost_multiplier.is_finite() && self.cost_multiplier > 0.0) {
            problems.push(format!("cost_multiplier {} is not above 0", self.cost_multiplier));
        }
        if !(1..=MAX_SHARDS).contains(&self.shards) {
            problems.push(format!("shards {} is not within 1 and {MAX_SHARDS}", self.shards));
        }
        problems
    }
}

/// More partitions than any region needs at 10,000 instances and one heartbeat a second.
const MAX_SHARDS: u32 = 256;

fn one() -> f64 {
    1.0
}

fn default_shards() -> u32 {
    Region::DEFAULT_SHARDS
}
