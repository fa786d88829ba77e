//! The operator's API against its own document: every endpoint is there, answers as it says, and words
//! its errors as problems.

mod regions;
mod schema;

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{Cluster, IRELAND, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually};
use serde_json::{Value, json};

use crate::support::{PolicyFolder, chat, client, header, problem};

const ROUTE: &str = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\" }]\n";

async fn one_region() -> Result<(Cluster, Router, reqwest::Client)> {
    let folder = PolicyFolder::score()?;
    let (cluster, client) = (Cluster::start().await?, client()?);
    let router = cluster.router_with(VIRGINIA, ROUTE, &folder.environment()).await?;
    Ok((cluster, router, client))
}

#[tokio::test]
async fn every_documented_get_answers_as_its_document_says() -> Result<()> {
    let (cluster, router, client) = one_region().await?;
    let _instance = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
    router.sees_ready(&client, 1).await?;
    let document = router.get(&client, "/openapi.json").await?;
    ensure!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let paths = document["paths"].as_object().context("no paths")?;
    let mut asked = Vec::new();
    for (path, methods) in paths {
        let Some(get) = methods.get("get") else { continue };
        let id = if path.starts_with("/instances") { "i-us" } else { VIRGINIA.id };
        let url = router.control_url(&path.replace("{id}", id).replace("{name}", "score"));
        let response = client.get(url).send().await?;
        assert_eq!(response.status(), 200, "{path}");
        let kind = header(response.headers(), "content-type")?.to_owned();
        let (documented, content) = get["responses"]["200"]["content"]
            .as_object()
            .and_then(|contents| contents.iter().next())
            .with_context(|| format!("{path} documents no content"))?;
        ensure!(kind.starts_with(documented.as_str()), "{path} answers {kind}, not {documented}");
        if documented == "application/json" {
            let body: Value = response.json().await?;
            schema::check(&document, &content["schema"], &body).with_context(|| path.clone())?;
        }
        asked.push(path.as_str());
    }
    for path in [
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/regions",
        "/regions/{id}",
        "/regions/{id}/health",
        "/instances",
        "/instances/{id}",
        "/failover",
        "/failover/history",
        "/cluster",
        "/stats",
        "/policies",
        "/policies/{name}",
    ] {
        ensure!(asked.contains(&path), "{path} is not documented");
    }
    for (path, method) in [
        ("/route", "post"),
        ("/regions", "post"),
        ("/policies/{name}", "put"),
        ("/instances/{id}/check", "post"),
        ("/failover", "post"),
        ("/failover/simulate", "post"),
        ("/failover/recover", "post"),
        ("/failover/pin", "post"),
        ("/failover/unpin", "post"),
    ] {
        ensure!(paths[path][method].is_object(), "{method} {path} is not documented");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_registered_and_served_shows() -> Result<()> {
    let (cluster, router, client) = one_region().await?;
    let instance = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
    router.sees_ready(&client, 1).await?;
    let served = eventually("it serves", PATIENCE, || async {
        Ok((chat(&client, &router, "llama", false).send().await?.status() == 200).then_some(()))
    });
    served.await?;

    let instances = router.get(&client, "/instances").await?;
    assert_eq!(instances[0]["registration"]["id"], "i-us");
    assert_eq!(instances[0]["registration"]["address"], instance.server_address.to_string());
    assert_eq!((&instances[0]["ready"], &instances[0]["in_flight"]), (&true.into(), &0.into()));
    ensure!(instances[0]["requests"].as_u64() >= Some(1), "{instances}");
    assert_eq!(router.get(&client, "/instances/i-us").await?["registration"]["id"], "i-us");
    assert_eq!(router.get(&client, "/instances/i-gone").await?["status"], 404);
    assert_eq!(router.get(&client, "/instances?region=eu-west-1").await?, json!([]));
    assert_eq!(router.get(&client, "/instances?pool=none").await?, json!([]));

    let regions = router.get(&client, "/regions?healthy_only=true").await?;
    assert_eq!(regions[0]["region_id"], VIRGINIA.id);
    assert_eq!(regions[0]["latitude"], VIRGINIA.latitude);
    assert_eq!(regions[0]["status"], "healthy");
    let health = router.get(&client, "/regions/us-east-1/health").await?;
    assert_eq!((&health["instances"], &health["health_score"]), (&1.into(), &100.0.into()));

    let stats = router.get(&client, "/stats").await?;
    ensure!(stats["requests"]["requests"].as_u64() >= Some(1), "{stats}");
    ensure!(stats["decisions_by_region"]["us-east-1"].as_u64() >= Some(1), "{stats}");

    // A second region, registered by hand.
    let ireland = json!({ "region_id": IRELAND.id, "endpoint": "http://192.0.2.1:8000",
        "latitude": IRELAND.latitude, "longitude": IRELAND.longitude, "frameworks": ["GDPR"] });
    let url = router.control_url("/regions");
    assert_eq!(client.post(&url).json(&ireland).send().await?.status(), 201);
    eventually("it shows", PATIENCE, || async {
        let found = client.get(router.control_url("/regions/eu-west-1")).send().await?;
        Ok(if found.status() == 200 { Some(found.json::<Value>().await?) } else { None })
    })
    .await
    .map(|region| assert_eq!(region["frameworks"], json!(["gdpr"])))?;
    assert_eq!(
        router.get(&client, "/regions?healthy_only=true").await?.as_array().map(Vec::len),
        Some(1)
    );
    Ok(())
}

#[tokio::test]
async fn every_error_is_a_problem() -> Result<()> {
    let (_cluster, router, client) = one_region().await?;
    let get = |path: &str| client.get(router.control_url(path)).send();
    problem(get("/nope").await?, 404, "not-found").await?;
    problem(get("/").await?, 404, "not-found").await?;
    problem(get("/regions/none").await?, 404, "not-found").await?;
    problem(get("/regions/none/health").await?, 404, "not-found").await?;
    problem(get("/policies/none").await?, 404, "not-found").await?;
    for path in [
        "/instances?regoin=us-east-1",
        "/regions?healthy_only=perhaps",
        "/regions/%ff",
        "/policies/%ff",
    ] {
        let answer = get(path).await?;
        problem(answer, 400, "bad-request").await.with_context(|| path.to_owned())?;
    }

    let wrong = client.delete(router.control_url("/regions/us-east-1")).send().await?;
    ensure!(header(wrong.headers(), "allow")?.contains("GET"));
    problem(wrong, 405, "no-such-method").await?;

    let url = router.control_url("/regions");
    for (body, told) in [
        (json!({}), "region_id"),
        (json!({ "region_id": "", "endpoint": "http://x:1" }), "region_id"),
        (json!({ "region_id": "x", "endpoint": "ftp://x" }), "ftp://x"),
        (
            json!({ "region_id": "x", "endpoint": "http://x:1", "latitude": 91.0, "longitude": 0.0 }),
            "91",
        ),
        (
            json!({ "region_id": "x", "endpoint": "http://x:1", "cost_multiplier": 0.0 }),
            "cost_multiplier",
        ),
        (json!({ "region_id": "x", "endpoint": "http://x:1", "shards": 0 }), "shards"),
        (json!({ "region_id": "x", "endpoint": "http://x:1", "framework": ["gdpr"] }), "framework"),
        (json!({ "region_id": "x", "endpoint": "http://x:1", "latitude": 50.0 }), "longitude"),
    ] {
        let detail = problem(client.post(&url).json(&body).send().await?, 400, "bad-request").await;
        let detail = detail.with_context(|| body.to_string())?;
        ensure!(detail.contains(told), "{body}: {detail}");
    }
    let huge = client.post(&url).body("x".repeat(40 << 20)).send().await;
    if let Ok(answer) = huge {
        ensure!(answer.status().is_client_error(), "{answer:?}");
    }
    // The router's own, and none of those.
    eventually("one region", PATIENCE, || async {
        let regions = router.get(&client, "/regions").await?;
        Ok((regions.as_array().map(Vec::len) == Some(1)).then_some(()))
    })
    .await
}
