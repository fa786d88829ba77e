//! One region as three processes, which know of each other through the store alone: one forwards requests, one
//! probes, one judges the regions.

use anyhow::{Context, Result, ensure};
use mrgc_tests::{
    cluster::{
        Cluster, FRANKFURT, Instance, InstanceSpec, PATIENCE, Program, Router, VIRGINIA,
        binary_path, eventually, router_process,
    },
    regions::MODEL,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{alone, logs, mrgc};

/// Heartbeats may stop for as long as they like: what is seen here are probes.
const SETTINGS: &str = "\
[health_check]
interval_seconds = 0.4
timeout_seconds = 0.3
stale_after_seconds = 600.0

[[routes]]
name = \"any\"
picker = \"near_best\"
";
/// One may be drained while the region stays normal.
const INSTANCES: usize = 5;
/// The last one: its agent is killed.
const VICTIM: &str = "i-4";

/// Virginia as three processes, and another region that takes over.
struct Fleet {
    cluster: Cluster,
    proxy: Router,
    health: Watcher,
    failover: Watcher,
    elsewhere: Router,
    instances: Vec<Instance>,
}

/// A process of a region that forwards no requests.
struct Watcher {
    program: Program,
    control: String,
}

impl Watcher {
    async fn start(cluster: &Cluster, role: &str) -> Result<Self> {
        let config = format!(
            "region = {region:?}\nroles = [{role:?}]\n\
             [listen]\ncontrol = \"127.0.0.1:0\"\n\
             [store]\nendpoint = {store:?}\n\
             {SETTINGS}",
            region = VIRGINIA.id,
            store = cluster.store_endpoint()?,
        );
        let program = router_process(cluster.dir.path(), role, &config).await?;
        ensure!(program.address("data").is_err(), "it takes requests");
        let control = format!("http://{}", program.address("control")?);
        Ok(Self { program, control })
    }
}

impl Fleet {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        let only_proxy = [("MRGC_ROUTER__ROLES", "[\"proxy\"]")];
        let proxy = cluster.router_with(VIRGINIA, SETTINGS, &only_proxy).await?;
        let health = Watcher::start(&cluster, "health").await?;
        let failover = Watcher::start(&cluster, "failover").await?;
        // Nobody could be routed to yet, which is no reason to end who only watches.
        for watcher in [&health, &failover] {
            let health = cluster.client.get(format!("{}/healthz", watcher.control)).send().await?;
            let health: Value = health.error_for_status()?.json().await?;
            ensure!(health["checks"]["fleet"]["status"] == "error", "{health}");
        }
        let elsewhere = cluster.router(FRANKFURT, SETTINGS).await?;
        let mut instances = Vec::new();
        for n in 0..INSTANCES {
            let spec = InstanceSpec::new(&format!("i-{n}"), VIRGINIA.id);
            instances.push(cluster.instance(&spec).await?);
        }
        instances.push(cluster.instance(&InstanceSpec::new("f-0", FRANKFURT.id)).await?);
        proxy.sees_ready(&cluster.client, INSTANCES).await?;
        proxy.sees_ready_in(&cluster.client, FRANKFURT.id, 1).await?;
        Ok(Self { cluster, proxy, health, failover, elsewhere, instances })
    }

    /// The control APIs of the region's three processes, by their roles.
    fn controls(&self) -> [(&'static str, String); 3] {
        let proxy = self.proxy.control_url("");
        let (health, failover) = (self.health.control.clone(), self.failover.control.clone());
        [("proxy", proxy), ("health", health), ("failover", failover)]
    }

    async fn get(&self, url: String) -> Result<Value> {
        Ok(self.cluster.client.get(url).send().await?.error_for_status()?.json().await?)
    }

    async fn metrics(&self, control: &str) -> Result<String> {
        let response = self.cluster.client.get(format!("{control}/metrics")).send().await?;
        Ok(response.error_for_status()?.text().await?)
    }

    /// Status and problem of what a process is asked for.
    async fn post(&self, url: String, body: Value) -> Result<(StatusCode, Value)> {
        let response = self.cluster.client.post(url).json(&body).send().await?;
        Ok((response.status(), response.json().await?))
    }

    /// The region in which a chat that enters by the proxy is answered.
    async fn served_in(&self) -> Result<String> {
        let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hi" }] });
        let url = self.proxy.data_url("/v1/chat/completions");
        let response = self.cluster.client.post(url).json(&body).send().await?;
        let response = response.error_for_status()?;
        let region = response.headers().get("x-mrgc-region").context("no region")?;
        Ok(region.to_str()?.to_owned())
    }

    fn logs(&self) -> String {
        let watchers = [&self.health, &self.failover].map(|watcher| watcher.program.log());
        format!("{}{}", logs([&self.proxy, &self.elsewhere]), watchers.join("\n---\n"))
    }
}

/// A sample of a page of metrics, by its name and labels.
fn sample(page: &str, name: &str) -> Result<f64> {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} in\n{page}"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_of_three_processes_probes_drains_and_fails_over() -> Result<()> {
    let _alone = alone().await;
    let mut fleet = Fleet::start().await?;
    let played = play(&mut fleet).await;
    played.with_context(|| fleet.logs())
}

async fn play(fleet: &mut Fleet) -> Result<()> {
    each_answers(fleet).await?;
    each_says_who_does_what_it_does_not(fleet).await?;
    who_probes_drains_what_fails(fleet).await?;
    who_forwards_follows_an_order_given_elsewhere(fleet).await?;
    the_fleet_is_listed_without_the_store(fleet).await
}

async fn each_answers(fleet: &Fleet) -> Result<()> {
    for (role, control) in fleet.controls() {
        let health = fleet.get(format!("{control}/healthz")).await?;
        ensure!(health["checks"]["store"]["status"] == "ok", "{role}: {health}");
        eventually("it knows the region", PATIENCE, || async {
            let ready = fleet.get(format!("{control}/instances?region={}", VIRGINIA.id)).await?;
            let ready = ready.as_array().into_iter().flatten().filter(|i| i["ready"] == true);
            Ok((ready.count() == INSTANCES).then_some(()))
        })
        .await
        .context(role)?;
        let region = fleet.get(format!("{control}/regions/{}/health", VIRGINIA.id)).await?;
        ensure!(region["healthy_instances"] == INSTANCES, "{role}: {region}");
        let normal = format!("mrgc_region_state{{region=\"{}\",state=\"normal\"}}", VIRGINIA.id);
        let page = fleet.metrics(&control).await?;
        assert_eq!(sample(&page, &normal)?, 1.0, "{role}");
        assert_eq!(page.contains("mrgc_router_requests_total"), role == "proxy", "{role}");
        assert_eq!(page.contains("mrgc_router_probes_total"), role == "health", "{role}");
    }
    for (role, control) in fleet.controls() {
        // Whoever is asked names the process that writes.
        eventually("the lease holder is known", PATIENCE, || async {
            let overview = fleet.get(format!("{control}/failover")).await?;
            let holder = overview["lease_holder"].as_str().context("nobody")?;
            ensure!(holder.starts_with(VIRGINIA.id), "{role}: {overview}");
            Ok(Some(()))
        })
        .await?;
    }
    Ok(())
}

async fn each_says_who_does_what_it_does_not(fleet: &Fleet) -> Result<()> {
    let checked =
        mrgc_refused(&fleet.proxy.control_url(""), &["instances", "check", "i-0"]).await?;
    ensure!(checked.contains("probes nobody") && checked.contains("role `health`"), "{checked}");
    for (role, control) in fleet.controls().into_iter().filter(|(role, _)| *role != "proxy") {
        let (status, problem) = fleet.post(format!("{control}/route"), json!({})).await?;
        assert_eq!(status, StatusCode::CONFLICT, "{role}");
        let detail = problem["detail"].as_str().context("no detail")?;
        ensure!(detail.contains("role `proxy`"), "{role}: {detail}");
        for path in ["/stats", "/policies", "/policies/score"] {
            let response = fleet.cluster.client.get(format!("{control}{path}")).send().await?;
            assert_eq!(response.status(), StatusCode::CONFLICT, "{role}: {path}");
        }
    }
    Ok(())
}

async fn who_probes_drains_what_fails(fleet: &mut Fleet) -> Result<()> {
    let check = format!("{}/instances/{VICTIM}/check", fleet.health.control);
    let (status, checked) = fleet.post(check.clone(), json!({})).await?;
    ensure!(status.is_success() && checked["probe"] == "passed", "{checked}");
    fleet.instances[INSTANCES - 1].agent.kill().await?;
    for (role, control) in fleet.controls() {
        eventually("all see it drained", PATIENCE, || async {
            let seen = fleet.get(format!("{control}/instances/{VICTIM}")).await?;
            let desired = &seen["desired"];
            ensure!(desired["state"] == "draining" && desired["automatic"] == true, "{seen}");
            ensure!(seen["ready"] == false, "{seen}");
            Ok(Some(()))
        })
        .await
        .context(role)?;
    }
    let (_, checked) = fleet.post(check, json!({})).await?;
    ensure!(checked["probe"] == "failed" && checked["status"] == "unhealthy", "{checked}");
    let page = fleet.metrics(&fleet.health.control).await?;
    assert_eq!(sample(&page, "mrgc_router_unhealthy_instances")?, 1.0);
    ensure!(sample(&page, "mrgc_router_probes_total{outcome=\"passed\"}")? > 0.0);
    ensure!(sample(&page, "mrgc_router_probes_total{outcome=\"failed\"}")? >= 4.0);

    fleet.instances[INSTANCES - 1].agent.restart(&[]).await?;
    fleet.proxy.sees_ready(&fleet.cluster.client, INSTANCES).await
}

/// It is the failover process that is asked, and the proxy that moves the traffic.
async fn who_forwards_follows_an_order_given_elsewhere(fleet: &Fleet) -> Result<()> {
    eventually("the region serves", PATIENCE, || async {
        Ok((fleet.served_in().await? == VIRGINIA.id).then_some(()))
    })
    .await?;
    let order = json!({
        "from_region": VIRGINIA.id,
        "strategy": "immediate",
        "reason": "ticket 4711",
        "operator": "ada",
    });
    let url = format!("{}/failover", fleet.failover.control);
    let (status, given) = fleet.post(url, order).await?;
    ensure!(status.is_success() && given["stored"] == true, "{given}");
    for (role, control) in fleet.controls() {
        eventually("all know that it is failed over", PATIENCE, || async {
            let page = fleet.metrics(&control).await?;
            let region = VIRGINIA.id;
            let state = format!("mrgc_region_state{{region={region:?},state=\"failover_active\"}}");
            let share = format!("mrgc_region_share{{region={region:?}}}");
            let manual =
                format!("mrgc_router_failovers_total{{region={region:?},cause=\"manual\"}}");
            let seen = [sample(&page, &state)?, sample(&page, &share)?, sample(&page, &manual)?];
            ensure!(seen == [1.0, 0.0, 1.0], "{seen:?}");
            assert_eq!(sample(&page, "mrgc_router_late_failovers_total")?, 0.0);
            Ok(Some(()))
        })
        .await
        .context(role)?;
    }
    for _ in 0..10 {
        assert_eq!(fleet.served_in().await?, FRANKFURT.id);
    }
    let status = mrgc(&fleet.proxy, &["failover", "status"]).await?;
    ensure!(status.contains("by ada (ticket 4711)"), "{status}");
    Ok(())
}

async fn the_fleet_is_listed_without_the_store(fleet: &mut Fleet) -> Result<()> {
    fleet.cluster.state.kill().await?;
    let listed = mrgc(&fleet.proxy, &["instances", "list", "--region", VIRGINIA.id]).await?;
    ensure!(listed.lines().count() == INSTANCES + 1, "{listed}");
    ensure!(listed.contains(VICTIM) && listed.contains("available"), "{listed}");
    Ok(())
}

/// What `mrgc` says to standard error as it fails.
async fn mrgc_refused(router: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary_path("mrgc")?);
    let output = command.args(args).args(["--router", router]).kill_on_drop(true).output().await?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    Ok(String::from_utf8(output.stderr)?)
}
