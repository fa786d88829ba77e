//! `POST /route`: what a decision would be, and why.

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{Cluster, IRELAND, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually};
use serde_json::{Value, json};

use crate::support::{PATIENT_POLICIES, client, problem};

const ROUTE: &str = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\", weight = 2.0 }, { name = \"latency\" }]\n";
const STRATEGIES: [&str; 8] =
    ["latency", "capacity", "compliance", "cost", "score", "health", "round-robin", "geo"];

async fn ask(client: &reqwest::Client, router: &Router, body: &Value) -> Result<reqwest::Response> {
    Ok(client.post(router.control_url("/route")).json(body).send().await?)
}

async fn answer(client: &reqwest::Client, router: &Router, body: &Value) -> Result<Value> {
    let response = ask(client, router, body).await?;
    ensure!(response.status() == 200, "{body}: {} {}", response.status(), response.text().await?);
    Ok(response.json().await?)
}

fn region<'a>(answer: &'a Value, id: &str) -> Result<&'a Value> {
    let candidates = answer["regions"]["candidates"].as_array().context("no candidates")?;
    candidates.iter().find(|c| c["id"] == id).with_context(|| format!("no {id} in {answer}"))
}

#[tokio::test]
async fn a_dry_run_decides_and_explains_and_sends_nothing() -> Result<()> {
    let (cluster, client) = (Cluster::start().await?, client()?);
    let virginia = cluster.router_with(VIRGINIA, ROUTE, &PATIENT_POLICIES).await?;
    let ireland = cluster.router_with(IRELAND, ROUTE, &PATIENT_POLICIES).await?;
    let us = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
    let eu = cluster.instance(&InstanceSpec::new("i-eu", IRELAND.id)).await?;
    for router in [&virginia, &ireland] {
        router.sees_ready_in(&client, VIRGINIA.id, 1).await?;
        router.sees_ready_in(&client, IRELAND.id, 1).await?;
        near_and_far(&client, router).await?;
        needs_under_every_strategy(&client, router).await?;
        the_routes_own_policies(&client, router).await?;
        bad_questions(&client, router).await?;
    }
    for instance in [&us, &eu] {
        let told = client.get(format!("http://{}/control", instance.server_address)).send().await?;
        assert_eq!(told.json::<Value>().await?["counters"]["received"], 0, "nothing was sent");
    }
    Ok(())
}

/// Each of two cities gets the region on its side of the ocean, whichever router is asked.
async fn near_and_far(client: &reqwest::Client, router: &Router) -> Result<()> {
    for (city, latitude, longitude, near, far) in [
        ("Berlin", 52.52, 13.405, "eu-west-1", "us-east-1"),
        ("New York", 40.71, -74.01, "us-east-1", "eu-west-1"),
    ] {
        for strategy in ["latency", "latency_based"] {
            let at = json!({ "latitude": latitude, "longitude": longitude });
            let body = json!({ "request_context": { "user_location": at }, "strategy": strategy });
            let answer = answer(client, router, &body).await?;
            assert_eq!(answer["selected_region"], near, "{city}: {answer}");
            assert_eq!(answer["regions"]["attempts"], json!([near, far]), "{city}");
            let why = answer["reasoning"].as_str().unwrap_or_default();
            let start = format!("Selected {near} for lowest latency: ");
            ensure!(why.starts_with(&start) && why.contains(" km away"), "{city}: {why}");
            let score = |id| anyhow::Ok(region(&answer, id)?["score"].as_f64().unwrap_or(-1.0));
            ensure!(score(near)? > score(far)? && score(far)? > 0.0, "{city}: {answer}");
            let is_home = near == router.region;
            assert_eq!(answer["selected_instance"].is_string(), is_home, "{city}: {answer}");
        }
    }
    Ok(())
}

async fn needs_under_every_strategy(client: &reqwest::Client, router: &Router) -> Result<()> {
    let new_york = json!({ "latitude": 40.71, "longitude": -74.01 });
    for strategy in STRATEGIES {
        let context = json!({ "user_location": new_york, "compliance_requirements": ["GDPR"] });
        let body = json!({ "request_context": context, "strategy": strategy });
        let answer = answer(client, router, &body).await?;
        assert_eq!(answer["selected_region"], "eu-west-1", "{strategy}: {answer}");
        assert_eq!(answer["regions"]["attempts"], json!(["eu-west-1"]), "{strategy}");
        let out = region(&answer, "us-east-1")?;
        assert_eq!(out["score"], Value::Null, "{strategy}: {out}");
        assert_eq!(out["excluded"], "us-east-1 does not satisfy gdpr", "{strategy}");
        let policy = &answer["regions"]["policies"][0];
        assert_eq!(
            (&policy["name"], &policy["faulted"]),
            (&strategy.into(), &false.into()),
            "{answer}"
        );
    }
    for context in [
        json!({ "compliance_requirements": ["hipaa"] }),
        json!({ "allowed_regions": ["mars-north-1"] }),
        json!({ "compliance_requirements": ["gdpr"], "allowed_regions": ["us-east-1"] }),
    ] {
        let body = json!({ "request_context": context, "strategy": "cost" });
        problem(ask(client, router, &body).await?, 451, "cannot-comply").await?;
    }
    Ok(())
}

async fn the_routes_own_policies(client: &reqwest::Client, router: &Router) -> Result<()> {
    let decided =
        answer(client, router, &json!({ "request_context": { "model": "llama" } })).await?;
    assert_eq!((&decided["route"], &decided["pool"]), (&"any".into(), &"llama".into()));
    let policies = decided["regions"]["policies"].as_array().context("no policies")?;
    let names: Vec<_> =
        policies.iter().map(|p| (p["name"].as_str(), p["weight"].as_f64())).collect();
    assert_eq!(names, [(Some("score"), Some(2.0)), (Some("latency"), Some(1.0))]);
    for candidate in decided["regions"]["candidates"].as_array().context("no candidates")? {
        let scores: Vec<_> = candidate["scores"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_f64)
            .collect();
        let total = candidate["score"].as_f64().context("no score")?;
        ensure!(scores.len() == 2, "{candidate}");
        let sum = (2.0 * scores[0] + scores[1]) / 3.0;
        ensure!((total - sum).abs() < 0.01, "{total} is not the weighted mean of {scores:?}");
    }
    let reasoning = decided["reasoning"].as_str().unwrap_or_default();
    let selected = decided["selected_region"].as_str().context("nothing selected")?;
    ensure!(reasoning.starts_with(&format!("Selected {selected} with a score of ")), "{reasoning}");
    let by_name = answer(client, router, &json!({ "route": "any" })).await?;
    assert_eq!(by_name["route"], "any");
    Ok(())
}

async fn bad_questions(client: &reqwest::Client, router: &Router) -> Result<()> {
    let url = router.control_url("/route");
    for garbled in [
        "",
        "{",
        "7",
        "not json",
        "{\"strategy\":7}",
        "{\"request_contxt\":{}}",
        "{\"request_context\":{\"user_location\":{\"latitude\":52.5}}}",
        "{\"request_context\":{\"compliance_requirement\":[]}}",
    ] {
        let request = client.post(&url).header("content-type", "application/json").body(garbled);
        problem(request.send().await?, 400, "bad-request")
            .await
            .with_context(|| garbled.to_owned())?;
    }
    let untyped = client.post(&url).body("{}").send().await?;
    problem(untyped, 400, "bad-request").await?;
    let nowhere = json!({ "latitude": 91.0, "longitude": 0.0 });
    let body = json!({ "request_context": { "user_location": nowhere } });
    let detail = problem(ask(client, router, &body).await?, 400, "bad-request").await?;
    ensure!(detail.contains("91"), "{detail}");
    for (body, kind) in [
        (json!({ "strategy": "astrology" }), "not-found"),
        (json!({ "route": "none" }), "not-found"),
        (json!({ "request_context": { "model": "gpt-17" } }), "unknown-model"),
    ] {
        problem(ask(client, router, &body).await?, 404, kind).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_fleet_has_nothing_to_select() -> Result<()> {
    let (cluster, client) = (Cluster::start().await?, client()?);
    let router = cluster.router_with(VIRGINIA, ROUTE, &PATIENT_POLICIES).await?;
    problem(ask(&client, &router, &json!({})).await?, 503, "no-capacity").await?;
    let _instance = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
    eventually("something to select", PATIENCE, || async {
        let response = ask(&client, &router, &json!({})).await?;
        Ok((response.status() == 200).then_some(()))
    })
    .await
}
