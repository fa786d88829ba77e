//! Between the component's exports and the author's [`Policy`]: keeps the policy and its views.

use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::{Candidates, Facts, Loads, Manifest, Policy, Request, log, schema};

/// One component instance: the configured policy, and the candidates of each view it was shown.
#[derive(Debug)]
pub struct Glue<P> {
    policy: RefCell<Option<P>>,
    views: RefCell<Vec<(u32, Vec<Facts>)>>,
}

impl<P: Policy> Glue<P> {
    pub const fn new() -> Self {
        Self { policy: RefCell::new(None), views: RefCell::new(Vec::new()) }
    }

    pub fn configure(&self, json: &str) -> Result<(), String> {
        log_panics();
        *self.policy.borrow_mut() = Some(P::new(read_config::<P::Config>(json)?)?);
        Ok(())
    }

    pub fn observe(&self, view: u32, fleet: Vec<Facts>) {
        let mut views = self.views.borrow_mut();
        match views.iter_mut().find(|(id, _)| *id == view) {
            Some((_, known)) => *known = fleet,
            None => views.push((view, fleet)),
        }
    }

    pub fn forget(&self, view: u32) {
        self.views.borrow_mut().retain(|(id, _)| *id != view);
    }

    pub fn score(&self, view: u32, request: &Request, picks: &[u32], loads: &Loads) -> Vec<f32> {
        self.with(view, |policy, facts| {
            let candidates = Candidates::new(facts, picks, loads);
            let scores = policy.rank(request, candidates);
            scores.into_iter().map(|score| score.points()).collect()
        })
    }

    pub fn explain(
        &self,
        view: u32,
        request: &Request,
        picks: &[u32],
        loads: &Loads,
        candidate: u32,
    ) -> String {
        self.with(view, |policy, facts| {
            let position = match picks {
                [] => Some(candidate as usize),
                picks => picks.iter().position(|pick| *pick == candidate),
            };
            let candidates = Candidates::new(facts, picks, loads);
            match position.and_then(|position| candidates.get(position)) {
                Some(candidate) => policy.explain(request, &candidate),
                None => format!("candidate {candidate} is not among the picks"),
            }
        })
    }

    /// A call out of order is the host's error; a trap tells it so.
    #[allow(clippy::panic, reason = "a trap is how a component reports a broken contract")]
    fn with<T>(&self, view: u32, call: impl FnOnce(&P, &[Facts]) -> T) -> T {
        let policy = self.policy.borrow();
        let views = self.views.borrow();
        match (&*policy, views.iter().find(|(id, _)| *id == view)) {
            (Some(policy), Some((_, facts))) => call(policy, facts),
            (None, _) => panic!("called before configure"),
            (_, None) => panic!("view {view} was never observed"),
        }
    }
}

impl<P: Policy> Default for Glue<P> {
    fn default() -> Self {
        Self::new()
    }
}

pub fn describe<P: Policy>(package: &str, version: &str, summary: &str) -> Manifest {
    Manifest {
        name: package.strip_prefix("mrgc-policy-").unwrap_or(package).to_owned(),
        version: version.to_owned(),
        summary: summary.to_owned(),
        config_schema: schema::of::<P::Config>().to_string(),
    }
}

/// No configuration at all, or an empty one, is the default one.
fn read_config<C: serde::de::DeserializeOwned + Default>(json: &str) -> Result<C, String> {
    let value: Value = match json.trim() {
        "" => return Ok(C::default()),
        text => serde_json::from_str(text).map_err(|e| format!("config is not JSON: {e}"))?,
    };
    let Value::Object(object) = value else {
        return Err(format!("config must be a JSON object, not {value}"));
    };
    if object.is_empty() {
        return Ok(C::default());
    }
    let unknown = unknown_keys::<C>(&object);
    match serde_json::from_value(Value::Object(object.clone())) {
        Ok(config) if unknown.is_none() => Ok(config),
        outcome => {
            let mut errors: Vec<String> =
                unknown.into_iter().chain(bad_values::<C>(&object)).collect();
            if let (true, Err(e)) = (errors.is_empty(), outcome.map(drop)) {
                errors.push(format!("config: {e}"));
            }
            Err(errors.join("; "))
        }
    }
}

fn unknown_keys<C: serde::de::DeserializeOwned>(object: &Map<String, Value>) -> Option<String> {
    let known = schema::field_names::<C>()?;
    let unknown = object.keys().filter(|key| !known.contains(&key.as_str()));
    let unknown: Vec<String> = unknown.map(|key| format!("`{key}`")).collect();
    let word = if unknown.len() == 1 { "key" } else { "keys" };
    (!unknown.is_empty())
        .then(|| format!("unknown {word} {}; known keys: {}", unknown.join(", "), known.join(", ")))
}

/// serde stops at the first error and does not name its key: each key is read on its own.
fn bad_values<C: serde::de::DeserializeOwned>(
    object: &Map<String, Value>,
) -> impl Iterator<Item = String> {
    object.iter().filter_map(|(key, value)| {
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        let error = serde_json::from_value::<C>(Value::Object(alone)).err()?.to_string();
        (!error.starts_with("missing field")).then(|| format!("{key}: {error}"))
    })
}

/// A panic's message would be lost in the trap that it becomes.
fn log_panics() {
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Config {
        weight: f64,
        limit: u32,
        names: Vec<String>,
    }

    #[test]
    fn every_error_of_a_config_is_told_with_its_key() {
        let read = read_config::<Config>;
        assert_eq!(read(r#"{"limit": 3}"#), Ok(Config { limit: 3, ..Config::default() }));
        assert_eq!(read(" "), Ok(Config::default()));
        assert_eq!(
            read(r#"{"limit": -1, "names": [1], "wieght": 2, "zone": 0, "weight": 1}"#),
            Err("unknown keys `wieght`, `zone`; known keys: weight, limit, names; \
                 limit: invalid value: integer `-1`, expected u32; \
                 names: invalid type: integer `1`, expected a string"
                .to_owned())
        );
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    struct Strict {
        first: u32,
        second: u32,
    }

    #[test]
    fn a_key_that_is_missing_is_told_where_the_author_wants_all() {
        let read = read_config::<Strict>;
        assert_eq!(read(r#"{"first": 1, "second": 2}"#), Ok(Strict { first: 1, second: 2 }));
        assert_eq!(read(r#"{"first": 1}"#), Err("config: missing field `second`".to_owned()));
    }
}
