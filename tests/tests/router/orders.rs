//! What operators order of regions' traffic, over the control API of two regions' routers.

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{
    Cluster, IRELAND, Instance, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually,
};
use serde_json::{Value, json};

use crate::support::{chat, client, header, problem};

/// By which it is told who serves.
const REQUESTS: usize = 20;

/// Steps and holds that a test can wait for.
const QUICK: &str = "
[failover]
hold_seconds = 0.5
step_seconds = 0.3
graceful_seconds = 1.0
lease_seconds = 2.0

[[routes]]
name = \"any\"
policies = [{ name = \"round-robin\", level = \"region\" }]
";

/// Two regions with an instance each. Clients enter by the first.
pub(crate) struct Pair {
    pub(crate) cluster: Cluster,
    pub(crate) client: reqwest::Client,
    pub(crate) virginia: Router,
    pub(crate) ireland: Router,
    pub(crate) instances: [Instance; 2],
}

impl Pair {
    pub(crate) async fn start() -> Result<Self> {
        let (cluster, client) = (Cluster::start().await?, client()?);
        let virginia = cluster.router(VIRGINIA, QUICK).await?;
        let ireland = cluster.router(IRELAND, QUICK).await?;
        let instances = [
            cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?,
            cluster.instance(&InstanceSpec::new("i-eu", IRELAND.id)).await?,
        ];
        for router in [&virginia, &ireland] {
            for region in [VIRGINIA.id, IRELAND.id] {
                router.sees_ready_in(&client, region, 1).await?;
                let pair = (router, region);
                eventually("the region is judged by its instance", PATIENCE, || async {
                    let status = standing(&client, pair.0, pair.1).await?;
                    Ok((status["evidence"]["healthy"] == 1).then_some(()))
                })
                .await?;
            }
        }
        Ok(Self { cluster, client, virginia, ireland, instances })
    }

    async fn post(&self, router: &Router, path: &str, body: &Value) -> Result<reqwest::Response> {
        Ok(self.client.post(router.control_url(path)).json(body).send().await?)
    }

    pub(crate) async fn order(&self, router: &Router, path: &str, body: &Value) -> Result<Value> {
        let response = self.post(router, path, body).await?;
        let (status, body) = (response.status(), response.text().await?);
        ensure!(status == 200, "{path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    async fn refused(&self, path: &str, body: &Value, status: u16, kind: &str) -> Result<String> {
        problem(self.post(&self.virginia, path, body).await?, status, kind).await
    }

    pub(crate) async fn sees(
        &self,
        router: &Router,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("{} sees {what}", router.region);
        eventually(&what, PATIENCE, || async {
            let status = standing(&self.client, router, VIRGINIA.id).await?;
            ensure!(wanted(&status), "{status}");
            Ok(Some(status))
        })
        .await
    }

    /// The regions that answer requests which enter in Virginia.
    pub(crate) async fn served_by(&self) -> Result<Vec<String>> {
        let mut regions = Vec::new();
        for _ in 0..REQUESTS {
            let answer = chat(&self.client, &self.virginia, "llama", false).send().await?;
            ensure!(answer.status() == 200, "{answer:?}");
            regions.push(header(answer.headers(), "x-mrgc-region")?.to_owned());
        }
        Ok(regions)
    }
}

/// How a region stands by a router.
async fn standing(client: &reqwest::Client, router: &Router, region: &str) -> Result<Value> {
    let overview = router.get(client, "/failover").await?;
    let regions = overview["regions"].as_array().context("no regions")?;
    let status = regions.iter().find(|status| status["region"] == region);
    Ok(status.with_context(|| format!("no {region} in {overview}"))?.clone())
}

pub(crate) fn away(strategy: &str) -> Value {
    json!({
        "from_region": VIRGINIA.id, "to_region": IRELAND.id, "strategy": strategy,
        "reason": "ticket 4711", "operator": "ada",
    })
}

fn lift(operator: &str) -> Value {
    json!({ "region": VIRGINIA.id, "reason": "done", "operator": operator })
}

#[tokio::test]
async fn a_region_s_traffic_is_moved_and_taken_back_by_opposite_orders() -> Result<()> {
    let pair = Pair::start().await?;
    let (virginia, ireland) = (&pair.virginia, &pair.ireland);
    let given = pair.order(virginia, "/failover", &away("immediate")).await?;
    assert_eq!((&given["stored"], &given["replaced"]), (&json!(true), &Value::Null), "{given}");
    assert_eq!(
        (&given["status"]["state"], &given["status"]["share"]),
        (&json!("failover_active"), &json!(0.0))
    );
    eventually("requests go to the other region", PATIENCE, || async {
        Ok((pair.served_by().await? == [IRELAND.id; REQUESTS]).then_some(()))
    })
    .await?;
    pair.sees(ireland, "the order", |status| status["order"]["operator"] == "ada").await?;

    // The other operator, at the other router: the later order counts at both.
    let given = pair.order(ireland, "/failover/recover", &lift("bob")).await?;
    assert_eq!(given["replaced"]["operator"], "ada");
    pair.sees(virginia, "all traffic back", |status| {
        status["state"] == "normal" && status["share"] == 1.0 && status.get("order").is_none()
    })
    .await?;
    eventually("requests are served at home again", PATIENCE, || async {
        Ok(pair.served_by().await?.iter().any(|region| region == VIRGINIA.id).then_some(()))
    })
    .await?;

    let history = eventually("the whole story is stored", PATIENCE, || async {
        let history = virginia.get(&pair.client, "/failover/history").await?;
        Ok(history["events"][0]["ended_at"].is_u64().then_some(history))
    })
    .await?;
    assert_eq!(history["source"], "store");
    let event = &history["events"][0];
    assert_eq!((&event["from_region"], &event["cause"]), (&json!(VIRGINIA.id), &json!("manual")));
    assert_eq!(event["to_regions"][0], IRELAND.id);
    ensure!(event["duration_ms"].as_u64().is_some_and(|ms| ms < 1_000), "{event}");
    let orders = history["orders"].as_array().context("no orders")?;
    let told = |order: &Value| {
        [&order["action"], &order["operator"], &order["subject"]].map(Value::to_string)
    };
    let told: Vec<_> = orders.iter().map(told).collect();
    let quoted = |text: &str| format!("{text:?}");
    assert_eq!(
        told,
        [
            ["recover", "bob", "region us-east-1"].map(quoted),
            ["failover", "ada", "region us-east-1 to eu-west-1, immediate"].map(quoted),
        ]
    );
    let stats = virginia.get(&pair.client, "/stats").await?;
    assert_eq!(stats["total_failovers"], 1, "{stats}");
    ensure!(stats["average_duration_ms"].is_number(), "{stats}");
    Ok(())
}

#[tokio::test]
async fn a_graceful_failover_takes_its_time_and_a_pin_holds() -> Result<()> {
    let pair = Pair::start().await?;
    let virginia = &pair.virginia;
    let given = pair.order(virginia, "/failover", &away("graceful")).await?;
    let share = given["status"]["share"].as_f64().context("no share")?;
    ensure!(share > 0.5, "it fell at once: {given}");
    pair.sees(virginia, "a share between", |s| s["share"].as_f64().is_some_and(|s| s < 0.9))
        .await?;
    pair.sees(virginia, "nothing left", |status| status["share"] == 0.0).await?;

    let pin = json!({
        "region": VIRGINIA.id, "state": "degraded", "reason": "half of its network", "operator": "bob",
    });
    let given = pair.order(virginia, "/failover/pin", &pin).await?;
    assert_eq!(given["replaced"]["wish"], "fail_over", "{given}");
    let pinned = |status: &Value| status["state"] == "degraded" && status["share"] == 0.7;
    pair.sees(virginia, "the pin", pinned).await?;
    pair.sees(&pair.ireland, "the pin", pinned).await?;
    pair.order(virginia, "/failover/unpin", &lift("bob")).await?;
    pair.sees(virginia, "all traffic back", |s| s["state"] == "normal" && s["share"] == 1.0)
        .await?;
    Ok(())
}

#[tokio::test]
async fn without_the_store_an_order_holds_here_and_is_written_when_it_is_back() -> Result<()> {
    let mut pair = Pair::start().await?;
    pair.cluster.state.kill().await?;
    let given = pair.order(&pair.virginia, "/failover", &away("immediate")).await?;
    assert_eq!(given["stored"], false, "{given}");
    ensure!(given["not_stored_because"].is_string(), "{given}");
    assert_eq!(given["status"]["share"], 0.0);
    let overview = pair.virginia.get(&pair.client, "/failover").await?;
    assert_eq!(overview["unstored_orders"], 1, "{overview}");
    let history = pair.virginia.get(&pair.client, "/failover/history").await?;
    assert_eq!((&history["source"], &history["orders"]), (&json!("router"), &Value::Null));
    ensure!(history["not_from_store_because"].is_string(), "{history}");
    // What is ordered next goes above it, although neither is stored.
    let given = pair.order(&pair.virginia, "/failover/recover", &lift("bob")).await?;
    assert_eq!(given["replaced"]["operator"], "ada", "{given}");
    pair.order(&pair.virginia, "/failover", &away("immediate")).await?;

    pair.cluster.restart_state().await?;
    pair.sees(&pair.ireland, "the order", |status| status["order"]["operator"] == "ada").await?;
    eventually("nothing waits for the store", PATIENCE, || async {
        let overview = pair.virginia.get(&pair.client, "/failover").await?;
        Ok((overview["unstored_orders"] == 0).then_some(()))
    })
    .await?;
    let history = pair.virginia.get(&pair.client, "/failover/history").await?;
    let orders = history["orders"].as_array().context("no orders")?;
    let actions: Vec<_> = orders.iter().map(|order| order["action"].as_str()).collect();
    assert_eq!(actions, [Some("failover"), Some("recover"), Some("failover")], "{history}");
    Ok(())
}

#[tokio::test]
async fn orders_that_would_do_harm_or_nothing_are_refused() -> Result<()> {
    let mut pair = Pair::start().await?;
    let change = |change: Value| {
        let mut body = away("immediate");
        for (name, value) in change.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (path, body, status, kind, expected) in [
        ("/failover", change(json!({"from_region": "mars-1"})), 404, "not-found", "`mars-1`"),
        ("/failover", change(json!({"to_region": "mars-1"})), 404, "not-found", "`mars-1`"),
        ("/failover", change(json!({"to_region": VIRGINIA.id})), 400, "bad-request", "to itself"),
        ("/failover", change(json!({"reason": " "})), 400, "bad-request", "reason says nothing"),
        ("/failover", change(json!({"reason": null})), 400, "bad-request", "reason"),
        (
            "/failover",
            change(json!({"operator": "x".repeat(257)})),
            400,
            "bad-request",
            "257 bytes",
        ),
        ("/failover", change(json!({"strategy": "fast"})), 400, "bad-request", "immediate"),
        ("/failover", change(json!({"too": "x"})), 400, "bad-request", "unknown field `too`"),
        (
            "/failover",
            change(json!({"to": "x"})),
            400,
            "bad-request",
            "duplicate field `to_region`",
        ),
        ("/failover/recover", lift("ada"), 409, "conflict", "comes back by itself"),
        ("/failover/unpin", lift("ada"), 409, "conflict", "is not pinned"),
        ("/failover/simulate", json!({"region": "mars-1"}), 404, "not-found", "`mars-1`"),
    ] {
        let detail = pair.refused(path, &body, status, kind).await?;
        ensure!(detail.contains(expected), "{path} {body}: {detail}");
    }
    let response = pair.client.get(pair.virginia.control_url("/failover/history?days=401")).send();
    problem(response.await?, 400, "bad-request").await?;

    // Nobody is left who could take the traffic.
    pair.ireland.program.kill().await?;
    eventually("the other region cannot be reached", PATIENCE, || async {
        let status = standing(&pair.client, &pair.virginia, IRELAND.id).await?;
        Ok((status["evidence"]["reachable"] == false).then_some(()))
    })
    .await?;
    for forced in [false, true] {
        let body = change(json!({ "force": forced }));
        let detail = pair.refused("/failover", &body, 409, "conflict").await?;
        ensure!(detail.contains("cannot be reached"), "{detail}");
    }
    let anywhere = change(json!({ "to_region": null }));
    let detail = pair.refused("/failover", &anywhere, 409, "conflict").await?;
    ensure!(detail.contains("force it"), "{detail}");
    let simulation = json!({"region": VIRGINIA.id});
    let simulated = pair.order(&pair.virginia, "/failover/simulate", &simulation).await?;
    ensure!(simulated["refused"].is_string(), "{simulated}");
    let forced = change(json!({ "to_region": null, "force": true }));
    let given = pair.order(&pair.virginia, "/failover", &forced).await?;
    assert_eq!(given["status"]["share"], 0.0, "{given}");
    let history = pair.virginia.get(&pair.client, "/failover/history").await?;
    assert_eq!(
        history["orders"].as_array().map(Vec::len),
        Some(1),
        "refusals are no orders: {history}"
    );
    Ok(())
}

#[tokio::test]
async fn an_instance_is_probed_by_hand_where_its_router_is() -> Result<()> {
    let mut pair = Pair::start().await?;
    let check = async |pair: &Pair, id: &str| {
        pair.post(&pair.virginia, &format!("/instances/{id}/check"), &json!({})).await
    };
    let checked: Value = check(&pair, "i-us").await?.json().await?;
    assert_eq!(
        (&checked["probe"], &checked["detail"]),
        (&json!("passed"), &Value::Null),
        "{checked}"
    );
    ensure!(checked["response_time_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{checked}");
    let detail = problem(check(&pair, "i-eu").await?, 409, "conflict").await?;
    ensure!(detail.contains("ask one of eu-west-1"), "{detail}");
    problem(check(&pair, "i-none").await?, 404, "not-found").await?;

    pair.instances[0].agent.kill().await?;
    let checked: Value = check(&pair, "i-us").await?.json().await?;
    assert_eq!((&checked["probe"], &checked["response_time_ms"]), (&json!("failed"), &Value::Null));
    ensure!(
        checked["detail"].as_str().is_some_and(|why| why.contains("cannot connect")),
        "{checked}"
    );
    // It counts as none of the router's own.
    let failures = |checked: &Value| checked["consecutive_failures"].as_u64();
    let before = failures(&checked);
    for _ in 0..5 {
        check(&pair, "i-us").await?;
    }
    let checked: Value = check(&pair, "i-us").await?.json().await?;
    ensure!(failures(&checked) <= before.map(|n| n + 1), "{checked}");
    Ok(())
}
