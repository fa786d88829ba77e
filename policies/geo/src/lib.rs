//! Steers by the client's area: an order of regions for each of 13 areas of the world.
//!
//! ```text
//! order = the area's region_pools, then default_pools, then fallback_pool, each region once
//! score = 100, 90, 80, … by place in that order, 10 · 1/2, 10 · 1/3, … from the eleventh on
//!         0 for a region in no list, or ruled out (strict)
//!         50 for all where no list is configured
//! ```
//!
//! A client's area is that of its country, else that of the city nearest to its origin; where neither is
//! known, the order begins with the default pools. An instance gets its region's score.
//!
//! ```json
//! {"region_pools": {"WEU": ["eu-west-1"], "SEAS": ["ap-southeast-1", "eu-west-1"]},
//!  "default_pools": ["us-east-1", "eu-west-1"], "fallback_pool": "us-east-1"}
//! ```

mod area;
mod world;

use std::collections::BTreeMap;

use area::{Area, Atlas};
use mrgc_policy_sdk::{Candidate, Candidates, Level, Policy, Request, Score};
use world::AREAS;

/// Where there is nothing to steer by.
const NEUTRAL: f64 = 50.0;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    /// For an area, its regions, best first.
    pub region_pools: BTreeMap<String, Vec<String>>,
    /// For any area, after its own.
    pub default_pools: Vec<String>,
    /// The last resort.
    pub fallback_pool: Option<String>,
    /// Rules out regions that are in no list of the client's order.
    pub strict: bool,
}

/// The policy.
#[derive(Debug)]
pub struct GeoSteering {
    atlas: Atlas,
    by_area: Vec<Order>,
    /// For a client whose area is not known.
    unknown: Order,
    /// For a region in no list of the order.
    unlisted: Score,
}

mrgc_policy_sdk::export!(GeoSteering);

/// Regions, best first, each once.
type Order = Vec<(String, Source)>;

/// The list that a region is in, and its place there from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Area(usize),
    Default(usize),
    Fallback,
}

impl Policy for GeoSteering {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let errors = errors(&config);
        if !errors.is_empty() {
            return Err(errors.join("; "));
        }
        let own = |name: &str| config.region_pools.get(name).map_or(&[][..], Vec::as_slice);
        let unlisted = match config.strict {
            _ if has_no_pools(&config) => Score::from(NEUTRAL),
            true => Score::RuledOut,
            false => Score::from(0.0),
        };
        Ok(Self {
            atlas: Atlas::new(),
            by_area: AREAS.iter().map(|area| order(own(area.name), &config)).collect(),
            unknown: order(&[], &config),
            unlisted,
        })
    }

    fn score(&self, request: &Request, candidate: &Candidate) -> Score {
        self.place(self.order(self.atlas.area(request)), candidate)
    }

    /// The client's area is looked up once for all.
    fn rank(&self, request: &Request, candidates: Candidates<'_>) -> Vec<Score> {
        let order = self.order(self.atlas.area(request));
        candidates.iter().map(|candidate| self.place(order, &candidate)).collect()
    }

    fn explain(&self, request: &Request, candidate: &Candidate) -> String {
        let area = self.atlas.area(request);
        let client = area.map_or("a client of unknown area", |area| AREAS[area].name);
        let verb = match self.score(request, candidate) {
            Score::RuledOut => "Ruled out",
            _ => "Selected",
        };
        let region = region(candidate);
        let source =
            self.order(area).iter().find(|(id, _)| id == region).map(|(_, source)| *source);
        let why = match source {
            Some(Source::Area(place)) => format!("{} choice for {client}", ordinal(place)),
            Some(Source::Default(place)) => {
                format!("{} of the default pools, for {client}", ordinal(place))
            }
            Some(Source::Fallback) => format!("fallback pool, for {client}"),
            None => format!("in no pool for {client}"),
        };
        format!("{verb} {}: {why}", candidate.id)
    }
}

impl GeoSteering {
    fn order(&self, area: Option<Area>) -> &Order {
        area.and_then(|area| self.by_area.get(area)).unwrap_or(&self.unknown)
    }

    fn place(&self, order: &Order, candidate: &Candidate) -> Score {
        let region = region(candidate);
        let place = order.iter().position(|(id, _)| id == region);
        place.map_or(self.unlisted, |place| Score::from(points(place)))
    }
}

fn has_no_pools(config: &Config) -> bool {
    config.region_pools.is_empty()
        && config.default_pools.is_empty()
        && config.fallback_pool.is_none()
}

/// Falls by 10 for each place, down to 10 at the tenth, and never to 0.
fn points(place: usize) -> f64 {
    match place {
        0..=9 => 100.0 - 10.0 * place as f64,
        _ => 10.0 / (place - 8) as f64,
    }
}

fn order(own: &[String], config: &Config) -> Order {
    let own = own.iter().enumerate().map(|(place, id)| (id, Source::Area(place)));
    let default =
        config.default_pools.iter().enumerate().map(|(place, id)| (id, Source::Default(place)));
    let fallback = config.fallback_pool.iter().map(|id| (id, Source::Fallback));
    let mut order = Order::new();
    for (id, source) in own.chain(default).chain(fallback) {
        if order.iter().all(|(known, _)| known != id) {
            order.push((id.clone(), source));
        }
    }
    order
}

fn errors(config: &Config) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, pools) in &config.region_pools {
        if area::named(name).is_none() {
            let names: Vec<&str> = AREAS.iter().map(|area| area.name).collect();
            errors.push(format!(
                "region_pools has the unknown area {name:?}: must be one of {}",
                names.join(", ")
            ));
        }
        if pools.is_empty() {
            errors.push(format!("region_pools.{name} is empty: name a region, or leave it out"));
        }
    }
    let named = config.region_pools.values().flatten();
    let mut ids = named.chain(&config.default_pools).chain(&config.fallback_pool);
    if ids.any(|id| id.trim().is_empty()) {
        errors.push("a pool has no name: each must be the id of a region".to_owned());
    }
    if config.strict && has_no_pools(config) {
        errors.push("strict without pools rules out every region: configure pools".to_owned());
    }
    errors
}

fn region<'a>(candidate: &Candidate<'a>) -> &'a str {
    match candidate.level {
        Level::Region => &candidate.facts.id,
        Level::Instance => &candidate.facts.region,
    }
}

fn ordinal(place: usize) -> String {
    match place {
        0 => "first".to_owned(),
        1 => "second".to_owned(),
        2 => "third".to_owned(),
        _ => format!("no. {}", place + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        mrgc_policy_sdk::testing::run::<GeoSteering>(include_str!("../cases.json"));
    }

    #[test]
    fn points_fall_and_never_end() {
        assert_eq!([0, 1, 2, 9, 10].map(points), [100.0, 90.0, 80.0, 10.0, 5.0]);
        assert!(
            (0..1000).all(|place| points(place) > points(place + 1) && points(place + 1) > 0.0)
        );
    }

    #[test]
    fn every_error_of_a_config_is_told() {
        let config = Config {
            region_pools: [
                ("EU".to_owned(), vec!["eu-west-1".to_owned()]),
                ("ME".to_owned(), vec![]),
            ]
            .into(),
            fallback_pool: Some(" ".to_owned()),
            ..Config::default()
        };
        assert_eq!(
            GeoSteering::new(config).err().as_deref(),
            Some(
                "region_pools has the unknown area \"EU\": must be one of WNAM, ENAM, WEU, EEU, NSAM, \
             SSAM, OC, ME, NAF, SAF, SAS, SEAS, NEAS; region_pools.ME is empty: name a region, or \
             leave it out; a pool has no name: each must be the id of a region"
            )
        );
        let strict = Config { strict: true, ..Config::default() };
        assert_eq!(
            GeoSteering::new(strict).err().as_deref(),
            Some("strict without pools rules out every region: configure pools")
        );
    }

    #[test]
    fn ordinals() {
        assert_eq!([0, 1, 2, 3, 9].map(ordinal), ["first", "second", "third", "no. 4", "no. 10"]);
    }
}
