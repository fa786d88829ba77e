//! The stock policies as WASM: their cases, their manifests, and the same scores as natively.

use std::{collections::BTreeSet, fs};

use anyhow::Context;
use mrgc_policy_host::{Instance, Loads, Policy};
use mrgc_policy_sdk::{self as sdk, __private::Glue};
use mrgc_tests::policies::{
    Fleet, facts, full_request, owned, request, root, stock, stock_component,
};
use serde_json::{Value, json};

use crate::support::{VIEW, engine};

/// Scores may differ by this: sines and cosines are not the same to the last bit everywhere.
const TOLERANCE: f32 = 1e-3;

/// The folders of `policies/`.
fn names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("policies"))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn load(name: &str) -> anyhow::Result<Policy> {
    Policy::load(engine()?, &stock_component(name)?).with_context(|| name.to_owned())
}

fn cases(name: &str) -> anyhow::Result<String> {
    let path = root().join("policies").join(name).join("cases.json");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn every_case_holds() -> anyhow::Result<()> {
    for name in names()? {
        let count = mrgc_policy_host::cases::run(&load(&name)?, &cases(&name)?);
        assert!(count.as_ref().is_ok_and(|count| *count > 0), "{name}: {count:?}");
    }
    Ok(())
}

#[test]
fn every_manifest_is_complete() -> anyhow::Result<()> {
    for name in names()? {
        let policy = load(&name)?;
        let manifest = policy.manifest();
        assert_eq!(manifest.name, name);
        assert_eq!(manifest.version, env!("CARGO_PKG_VERSION"), "{name}");
        assert!(!manifest.summary.is_empty() && !manifest.summary.contains('\n'), "{name}");
        assert_schema(&name, &serde_json::from_str(&manifest.config_schema)?);
    }
    Ok(())
}

/// Every key has a type, but for a list's and a map's own insides.
fn assert_schema(name: &str, schema: &Value) {
    assert_eq!(schema["type"], "object", "{name}");
    assert_eq!(schema["additionalProperties"], json!(false), "{name}");
    let properties = schema["properties"].as_object();
    assert!(properties.is_some_and(|it| !it.is_empty() || name == "round-robin"), "{name}");
    for (key, property) in properties.into_iter().flatten() {
        let typed = property.get("type").or(property.get("enum"));
        assert!(typed.is_some(), "{name}: {key} has no type: {property}");
    }
}

/// Adding a policy means adding it here.
#[test]
fn scores_are_the_same_natively_and_as_wasm() -> anyhow::Result<()> {
    let mut compared = BTreeSet::new();
    let mut compare = |name: &'static str, outcome: anyhow::Result<()>| {
        compared.insert(name.to_owned());
        outcome.with_context(|| name)
    };
    compare("capacity", same::<stock::capacity::Capacity>("capacity"))?;
    compare("compliance", same::<stock::compliance::Compliance>("compliance"))?;
    compare("cost", same::<stock::cost::Cost>("cost"))?;
    compare("geo", same::<stock::geo::GeoSteering>("geo"))?;
    compare("health", same::<stock::health::HealthScore>("health"))?;
    compare("latency", same::<stock::latency::Latency>("latency"))?;
    compare("round-robin", same::<stock::round_robin::RoundRobin>("round-robin"))?;
    compare("score", same::<stock::score::RoutingScore>("score"))?;
    assert_eq!(compared, names()?.into_iter().collect());
    Ok(())
}

/// Compares over fleets, picks and requests, under each config of the policy's cases.
fn same<P: sdk::Policy>(name: &str) -> anyhow::Result<()> {
    let policy = load(name)?;
    for config in configs(name)? {
        for (size, picks) in [(1, vec![]), (7, vec![6, 0, 3]), (100, vec![])] {
            same_over::<P>(&policy, &config, size, &picks)
                .with_context(|| format!("config {config}, {size} candidates"))?;
        }
    }
    Ok(())
}

/// The configs that the cases use, each once, and none.
fn configs(name: &str) -> anyhow::Result<BTreeSet<String>> {
    let cases: Value = serde_json::from_str(&cases(name)?)?;
    let cases = cases["cases"].as_array().context("no cases")?;
    let given = cases.iter().filter_map(|case| case.get("config")).map(Value::to_string);
    Ok(given.chain(["{}".to_owned()]).collect())
}

fn same_over<P: sdk::Policy>(
    policy: &Policy,
    config: &str,
    size: usize,
    picks: &[u32],
) -> anyhow::Result<()> {
    let fleet = Fleet::new(size, size as u64);
    let candidates = fleet.candidates();
    let scored = if picks.is_empty() { size } else { picks.len() };
    let (in_flight, tokens) = (&fleet.in_flight[..scored], &fleet.in_flight_tokens[..scored]);

    let mut wasm = Instance::new(policy, config)?;
    wasm.observe(VIEW, &candidates)?;
    let native = Glue::<P>::new();
    native.configure(config).map_err(anyhow::Error::msg)?;
    native.observe(VIEW, candidates.iter().map(facts).collect());
    let owned_loads =
        sdk::Loads { in_flight: in_flight.to_vec(), in_flight_tokens: tokens.to_vec() };

    for number in 0..8 {
        let request = if number % 2 == 0 { request(number) } else { full_request(number) };
        let loads = || Loads { in_flight, in_flight_tokens: tokens };
        let owned_request = owned(&request);
        let from_wasm = wasm.score(VIEW, &request, picks, loads())?.points;
        let natively = native.score(VIEW, &owned_request, picks, &owned_loads);
        let close = |(a, b): (&f32, &f32)| (a - b.min(100.0)).abs() <= TOLERANCE;
        assert_eq!(from_wasm.len(), natively.len());
        assert!(from_wasm.iter().zip(&natively).all(close), "{from_wasm:?}\n{natively:?}");

        let index = picks.first().copied().unwrap_or(0);
        assert_eq!(
            wasm.explain(VIEW, &request, picks, loads(), index)?,
            native.explain(VIEW, &owned_request, picks, &owned_loads, index)
        );
    }
    Ok(())
}
