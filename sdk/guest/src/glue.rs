//! Between the component's exports and the author's [`Policy`]: keeps the policy and its views.

use std::cell::RefCell;

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
    let value: serde_json::Value = match json.trim() {
        "" => return Ok(C::default()),
        text => serde_json::from_str(text).map_err(|e| format!("config is not JSON: {e}"))?,
    };
    let Some(object) = value.as_object() else {
        return Err(format!("config must be a JSON object, not {value}"));
    };
    if object.is_empty() {
        return Ok(C::default());
    }
    if let Some(known) = schema::field_names::<C>()
        && let Some(key) = object.keys().find(|key| !known.contains(&key.as_str()))
    {
        return Err(format!("unknown key `{key}`; known keys: {}", known.join(", ")));
    }
    serde_json::from_value(value).map_err(|e| format!("config: {e}"))
}

/// A panic's message would be lost in the trap that it becomes.
fn log_panics() {
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|panic| log::error(&panic.to_string())));
    }
}
