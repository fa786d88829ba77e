//! A region as an operator writes it, in a file or to the API: every key is known, and a place is whole or
//! left out. [`Region`] itself is read from the store, too, where a further key is no mistake.

use mrgc_fleet::model::{Framework, Location, Region, RegionId};
use serde::{Deserialize, Deserializer};

/// A region that was read strictly.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Written(pub Region);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    region_id: RegionId,
    #[serde(default)]
    name: String,
    provider: Option<String>,
    latitude: Option<f64>,
    longitude: Option<f64>,
    endpoint: String,
    #[serde(default)]
    frameworks: Vec<Framework>,
    cost_multiplier: Option<f64>,
    carbon_intensity: Option<f64>,
    max_capacity: Option<u32>,
    shards: Option<u32>,
}

impl TryFrom<Keys> for Written {
    type Error = &'static str;

    fn try_from(keys: Keys) -> Result<Self, Self::Error> {
        let location = match (keys.latitude, keys.longitude) {
            (Some(latitude), Some(longitude)) => Some(Location { latitude, longitude }),
            (None, None) => None,
            (Some(_), None) => return Err("latitude is there and longitude is not"),
            (None, Some(_)) => return Err("longitude is there and latitude is not"),
        };
        Ok(Self(Region {
            id: keys.region_id,
            name: keys.name,
            provider: keys.provider,
            location,
            endpoint: keys.endpoint,
            frameworks: keys.frameworks,
            cost_multiplier: keys.cost_multiplier.unwrap_or(1.0),
            carbon_intensity: keys.carbon_intensity,
            max_capacity: keys.max_capacity,
            shards: keys.shards.unwrap_or(Region::DEFAULT_SHARDS),
        }))
    }
}

/// Reads a list of them, for `serde(deserialize_with)`.
pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Region>, D::Error> {
    let written = Vec::<Written>::deserialize(from)?;
    Ok(written.into_iter().map(|Written(region)| region).collect())
}
