//! Routes and tenants: which requests are decided how.

use mrgc_fleet::{
    model::{Needs, PoolId},
    routing::Picker,
};
use serde::{Deserialize, Serialize};

/// How requests that match are routed. The first route that matches is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub name: String,
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The pool to serve them; left out, the pool that serves the request's model.
    #[serde(default)]
    pub pool: Option<PoolId>,
    #[serde(default)]
    pub policies: Vec<RoutePolicy>,
    #[serde(default)]
    pub picker: Picker,
    /// The pool to turn to when the route's has no instance to offer.
    #[serde(default)]
    pub fallback: Option<PoolId>,
    /// Attempts of one request; `limits.attempts` where left out.
    #[serde(default)]
    pub attempts: Option<usize>,
    /// Needs of every request on this route.
    #[serde(default)]
    pub needs: Needs,
}

/// Patterns may end in `*`. One left out matches everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    pub path: Option<String>,
    pub model: Option<String>,
}

impl Match {
    pub fn path(&self, path: &str) -> bool {
        self.path.as_deref().is_none_or(|pattern| fits(pattern, path))
    }

    pub fn model(&self, model: Option<&str>) -> bool {
        match (self.model.as_deref(), model) {
            (None, _) => true,
            (Some(pattern), Some(model)) => fits(pattern, model),
            (Some(_), None) => false,
        }
    }
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => text == pattern,
    }
}

/// A policy's part in a route's decisions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePolicy {
    pub name: String,
    #[serde(default = "one")]
    pub weight: f32,
    /// Refuse requests while it does not answer, rather than use the native score.
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub level: LevelChoice,
    /// Given to the policy as JSON.
    #[serde(default)]
    pub config: toml::Table,
}

impl RoutePolicy {
    pub fn config_json(&self) -> String {
        serde_json::to_string(&self.config).unwrap_or_else(|_| "{}".to_owned())
    }
}

fn one() -> f32 {
    1.0
}

/// At which decisions a policy is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelChoice {
    #[default]
    Both,
    Region,
    Instance,
}

/// A client known by its API key, with needs that its requests cannot shed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    pub name: String,
    /// SHA-256 of the key it sends as `Authorization: Bearer`, in hexadecimal.
    pub key_sha256: String,
    #[serde(default)]
    pub needs: Needs,
    #[serde(default)]
    pub priority: i32,
}
