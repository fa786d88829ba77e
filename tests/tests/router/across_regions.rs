//! Two regions over one state: what must stay in one of them does, whatever policies, failures and
//! operators do.

use anyhow::{Result, ensure};
use mrgc_tests::{
    cluster::{Cluster, IRELAND, Instance, InstanceSpec, PATIENCE, Router, VIRGINIA, eventually},
    policies,
};
use serde_json::Value;

use crate::support::{PolicyFolder, chat, fresh_client, header};

/// One route, decided by a policy that is swapped for another again and again.
const ROUTE: &str = "[[routes]]\nname = \"any\"\npolicies = [{ name = \"score\" }]\n\
    [health_check]\nping_interval_seconds = 0.2\n";
const MODEL: &str = "llama";
/// In a row over fresh connections, so that each of two data threads is among those who answered.
const IN_A_ROW: usize = 16;

struct TwoRegions {
    cluster: Cluster,
    virginia: Router,
    ireland: Router,
    in_virginia: Instance,
    in_ireland: Vec<Instance>,
    client: reqwest::Client,
    folder: PolicyFolder,
}

impl TwoRegions {
    async fn start(irish_instances: usize) -> Result<Self> {
        let (cluster, folder) = (Cluster::start().await?, PolicyFolder::score()?);
        let virginia = cluster.router_with(VIRGINIA, ROUTE, &folder.environment()).await?;
        let ireland = cluster.router_with(IRELAND, ROUTE, &folder.environment()).await?;
        let in_virginia = cluster.instance(&InstanceSpec::new("i-us", VIRGINIA.id)).await?;
        let mut in_ireland = Vec::new();
        for i in 0..irish_instances {
            let spec = InstanceSpec::new(&format!("i-eu-{i}"), IRELAND.id);
            in_ireland.push(cluster.instance(&spec).await?);
        }
        let client = fresh_client()?;
        let all = Self { cluster, virginia, ireland, in_virginia, in_ireland, client, folder };
        all.are_ready(irish_instances).await?;
        Ok(all)
    }

    /// Waits until each router serves what its region and the other have.
    async fn are_ready(&self, irish_instances: usize) -> Result<()> {
        for router in [&self.virginia, &self.ireland] {
            router.sees_ready_in(&self.client, VIRGINIA.id, 1).await?;
            router.sees_ready_in(&self.client, IRELAND.id, irish_instances).await?;
        }
        self.serves_gdpr(&self.ireland).await?;
        self.serves_gdpr(&self.virginia).await
    }

    async fn serves_gdpr(&self, router: &Router) -> Result<()> {
        eventually("a GDPR request is served each time", PATIENCE, || async {
            for _ in 0..IN_A_ROW {
                let response = self.gdpr(router).send().await?;
                ensure!(response.status() == 200, "{}", response.text().await?);
                is_irish(&response)?;
            }
            Ok(Some(()))
        })
        .await
    }

    fn gdpr(&self, router: &Router) -> reqwest::RequestBuilder {
        chat(&self.client, router, MODEL, false).header("x-mrgc-frameworks", "gdpr")
    }

    /// Completions that the instance of Virginia was ever sent.
    async fn sent_to_virginia(&self) -> Result<u64> {
        let url = format!("http://{}/control", self.in_virginia.server_address);
        let told: Value = self.client.get(url).send().await?.json().await?;
        Ok(told["counters"]["received"].as_u64().unwrap_or(u64::MAX))
    }

    /// Gives `score` another artifact in Virginia and waits until Ireland has it, too.
    async fn swap(&self, artifact: Vec<u8>) -> Result<u64> {
        let url = self.virginia.control_url("/policies/score");
        // A store on a busy machine may need a second try.
        let uploaded: Value = eventually("the upload is taken", PATIENCE, || async {
            let answer = self.client.put(&url).body(artifact.clone()).send().await?;
            Ok(Some(answer.error_for_status()?.json().await?))
        })
        .await?;
        let generation = uploaded["generation"].as_u64().unwrap_or(0);
        eventually("the other region has the version", PATIENCE, || async {
            let theirs = self.ireland.get(&self.client, "/policies/score").await?;
            Ok((theirs["generation"] == generation).then_some(()))
        })
        .await?;
        Ok(generation)
    }
}

fn is_irish(response: &reqwest::Response) -> Result<()> {
    assert_eq!(header(response.headers(), "x-mrgc-region")?, IRELAND.id);
    ensure!(header(response.headers(), "x-mrgc-instance")?.starts_with("i-eu-"));
    Ok(())
}

#[tokio::test]
async fn a_need_is_met_in_the_other_region_under_every_policy() -> Result<()> {
    let two = TwoRegions::start(1).await?;
    let mut artifacts =
        vec![("prefers-the-forbidden", policies::test_component("prefers-the-forbidden")?)];
    for name in
        ["latency", "capacity", "compliance", "cost", "health", "round-robin", "geo", "score"]
    {
        artifacts.push((name, policies::stock_component(name)?));
    }
    for (name, artifact) in artifacts {
        let generation = two.swap(artifact).await?;
        for stream in [false, true] {
            for _ in 0..6 {
                let request = chat(&two.client, &two.virginia, MODEL, stream);
                let response = request.header("x-mrgc-frameworks", "GDPR").send().await?;
                ensure!(response.status() == 200, "{name}: {}", response.text().await?);
                is_irish(&response)?;
                let policies = header(response.headers(), "x-mrgc-policies")?;
                assert_eq!(policies, format!("score@{generation}"), "{name}");
                let body = response.text().await?;
                ensure!(stream == body.ends_with("data: [DONE]\n\n"), "{name}: {body}");
            }
        }
        assert_eq!(two.sent_to_virginia().await?, 0, "{name}");
    }
    // Virginia can serve: what must stay there does, from either side.
    for router in [&two.virginia, &two.ireland] {
        let request = chat(&two.client, router, MODEL, false);
        let response = request.header("x-mrgc-allowed-regions", VIRGINIA.id).send().await?;
        assert_eq!(response.status(), 200);
        assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-us");
    }
    assert_eq!(two.sent_to_virginia().await?, 2);
    Ok(())
}

#[tokio::test]
async fn as_compliant_instances_die_one_by_one_the_rest_serve_and_then_nobody() -> Result<()> {
    let mut two = TwoRegions::start(2).await?;
    two.swap(policies::test_component("prefers-the-forbidden")?).await?;
    two.serves_gdpr(&two.virginia).await?;

    two.in_ireland[0].server.kill().await?;
    for _ in 0..IN_A_ROW {
        let response = two.gdpr(&two.virginia).send().await?;
        ensure!(response.status() == 200, "{} {}", response.status(), response.text().await?);
        assert_eq!(header(response.headers(), "x-mrgc-instance")?, "i-eu-1");
    }

    two.in_ireland[1].server.kill().await?;
    // Until the agents and the routers have noticed, an attempt may be made; then none is.
    eventually("a 503 to come back after", PATIENCE, || async {
        let response = two.gdpr(&two.virginia).send().await?;
        let status = response.status().as_u16();
        ensure!([502, 503].contains(&status), "{status} {}", response.text().await?);
        let says_when = response.headers().contains_key("retry-after");
        Ok((status == 503 && says_when).then_some(()))
    })
    .await?;
    for router in [&two.virginia, &two.ireland] {
        for _ in 0..IN_A_ROW {
            let status = two.gdpr(router).send().await?.status().as_u16();
            ensure!([502, 503].contains(&status), "{status}");
        }
    }
    assert_eq!(two.sent_to_virginia().await?, 0, "never a leak");
    let free = chat(&two.client, &two.virginia, MODEL, false).send().await?;
    assert_eq!(free.status(), 200);
    assert_eq!(two.sent_to_virginia().await?, 1);
    Ok(())
}

#[tokio::test]
async fn while_the_compliant_regions_router_is_down_nobody_serves_and_then_it_does() -> Result<()> {
    let mut two = TwoRegions::start(1).await?;
    two.swap(policies::test_component("prefers-the-forbidden")?).await?;
    two.serves_gdpr(&two.virginia).await?;

    two.ireland.program.kill().await?;
    for _ in 0..IN_A_ROW {
        let response = two.gdpr(&two.virginia).send().await?;
        let status = response.status().as_u16();
        ensure!([502, 503].contains(&status), "{status} {}", response.text().await?);
    }
    let free = chat(&two.client, &two.virginia, MODEL, false).send().await?;
    assert_eq!(free.status(), 200);
    assert_eq!(two.sent_to_virginia().await?, 1, "never a leak");

    two.ireland = two.cluster.router_with(IRELAND, ROUTE, &two.folder.environment()).await?;
    two.serves_gdpr(&two.virginia).await?;
    assert_eq!(two.sent_to_virginia().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_deadline_holds_across_regions() -> Result<()> {
    let two = TwoRegions::start(1).await?;
    let url = format!("http://{}/control", two.in_ireland[0].server_address);
    let hang = serde_json::json!({ "failure": "hang" });
    two.client.post(url).json(&hang).send().await?.error_for_status()?;
    let request = two.gdpr(&two.virginia).header("x-mrgc-deadline-ms", "400");
    let response = request.send().await?;
    assert_eq!(response.status(), 504);
    assert_eq!(two.sent_to_virginia().await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_router_accepts_no_hop_without_the_key() -> Result<()> {
    let two = TwoRegions::start(1).await?;
    let hop = serde_json::json!({
        "facts": { "model": MODEL }, "route": "any", "attempts_left": 1, "deadline_ms": 10_000,
        "regions_tried": [IRELAND.id], "decision": "d",
    });
    let claim = |key: &str| {
        let request = chat(&two.client, &two.ireland, MODEL, false);
        request.header("x-mrgc-peer-key", key).header("x-mrgc-hop", hop.to_string()).send()
    };
    assert_eq!(claim("wrong").await?.status(), 403);
    assert_eq!(claim(mrgc_tests::cluster::PEER_KEY).await?.status(), 508);
    Ok(())
}
