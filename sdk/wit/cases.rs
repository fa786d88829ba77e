//! Test cases of a policy, as JSON: the same file runs natively (`mrgc-policy-sdk`) and as WASM
//! (`mrgc-policy-host`), which both compile this module.
//!
//! ```json
//! {"cases": [{
//!   "name": "a shorter queue wins",
//!   "config": {},
//!   "request": {"model": "llama"},
//!   "candidates": [{"id": "a", "queue_depth": 2}, {"id": "b", "queue_depth": 5, "in_flight": 3}],
//!   "scores": [84.0, null],
//!   "best": "a",
//!   "explains": "Selected a"
//! }]}
//! ```
//!
//! A field left out has the value of a blank record: healthy, at instance level, nothing measured. A
//! score of `null` means ruled out. `best` and `explains` (a part of the best's explanation) may be left out.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Scores are compared to within this.
const TOLERANCE: f32 = 0.05;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cases: Vec<Raw>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    request: Value,
    candidates: Vec<Value>,
    #[serde(default)]
    picks: Vec<u32>,
    #[serde(default)]
    scores: Option<Vec<Option<f32>>>,
    #[serde(default)]
    best: Option<String>,
    #[serde(default)]
    explains: Option<String>,
}

/// One case, in the contract's types.
#[derive(Debug)]
pub struct Case<Request, Candidate> {
    pub name: String,
    pub config: String,
    pub request: Request,
    pub candidates: Vec<Candidate>,
    pub picks: Vec<u32>,
    pub in_flight: Vec<u32>,
    pub in_flight_tokens: Vec<u64>,
    ids: Vec<String>,
    scores: Option<Vec<Option<f32>>>,
    best: Option<String>,
    explains: Option<String>,
}

/// Reads a file's cases.
pub fn read<R: DeserializeOwned, C: DeserializeOwned>(
    text: &str,
) -> Result<Vec<Case<R, C>>, String> {
    let file: File = serde_json::from_str(text).map_err(|e| format!("cases: {e}"))?;
    file.cases.into_iter().map(read_case).collect()
}

fn read_case<R: DeserializeOwned, C: DeserializeOwned>(raw: Raw) -> Result<Case<R, C>, String> {
    let name = raw.name;
    let typed = |what: &str, e: serde_json::Error| format!("case `{name}`: {what}: {e}");
    let blank = blank_candidate();
    let all: Vec<Value> = raw.candidates.iter().map(|given| fill(&blank, given)).collect();
    let count = |key: &str, value: &Value| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let picked: Vec<&Value> = match raw.picks.as_slice() {
        [] => all.iter().collect(),
        picks => picks.iter().filter_map(|pick| all.get(*pick as usize)).collect(),
    };
    Ok(Case {
        config: if raw.config.is_null() { "{}".into() } else { raw.config.to_string() },
        request: serde_json::from_value(fill(&blank_request(), &raw.request))
            .map_err(|e| typed("request", e))?,
        in_flight: picked.iter().map(|c| count("in_flight", c) as u32).collect(),
        in_flight_tokens: picked.iter().map(|c| count("in_flight_tokens", c)).collect(),
        ids: picked.iter().filter_map(|c| c["id"].as_str().map(str::to_owned)).collect(),
        candidates: all
            .into_iter()
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()
            .map_err(|e| typed("candidate", e))?,
        picks: raw.picks,
        scores: raw.scores,
        best: raw.best,
        explains: raw.explains,
        name,
    })
}

impl<R, C> Case<R, C> {
    /// Compares the answers with what the case expects. `explain` is asked for a candidate of the view.
    pub fn check(
        &self,
        scores: &[f32],
        explain: impl FnOnce(u32) -> Result<String, String>,
    ) -> Result<(), String> {
        let fail = |what: String| Err(format!("case `{}`: {what}; scores {scores:?}", self.name));
        if scores.len() != self.ids.len() {
            return fail(format!("{} scores for {} candidates", scores.len(), self.ids.len()));
        }
        if let Some(expected) = &self.scores {
            let same = |got: f32, want: Option<f32>| match want {
                Some(want) => (got - want).abs() <= TOLERANCE,
                None => got < 0.0,
            };
            let all = scores.iter().zip(expected).all(|(got, want)| same(*got, *want));
            if !all || expected.len() != scores.len() {
                return fail(format!("expected {expected:?}"));
            }
        }
        let Some(best) = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])) else {
            return Ok(());
        };
        if let Some(expected) = self.best.as_ref().filter(|id| **id != self.ids[best]) {
            return fail(format!("expected `{expected}` to be best, not `{}`", self.ids[best]));
        }
        if let Some(expected) = &self.explains {
            let index = self.picks.get(best).copied().unwrap_or(best as u32);
            let explanation = explain(index)?;
            if !explanation.contains(expected.as_str()) {
                return fail(format!("`{explanation}` does not contain `{expected}`"));
            }
        }
        Ok(())
    }
}

/// `given` over `blank`; enumerations may be written in lower case.
fn fill(blank: &Value, given: &Value) -> Value {
    let mut filled = blank.clone();
    for (key, value) in given.as_object().into_iter().flatten() {
        filled[key] = match (key.as_str(), value.as_str()) {
            ("level" | "health" | "enclave", Some(name)) => capitalised(name).into(),
            ("needs", None) if value.is_object() => fill(&blank_needs(), value),
            _ => value.clone(),
        };
    }
    filled
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn blank_candidate() -> Value {
    json!({
        "id": "", "level": "Instance", "region": "", "health": "Healthy", "health_score": 100.0,
        "enclave": "Absent", "frameworks": [], "models": [], "prefix_hashes": [], "instances": 1,
        "healthy_instances": 1, "extra": [],
    })
}

fn blank_request() -> Value {
    json!({
        "number": 0, "time_ms": 0, "seed": 0, "priority": 0, "stream": false,
    })
}

fn blank_needs() -> Value {
    json!({"frameworks": [], "allowed_regions": [], "enclave": false, "attested": false})
}
