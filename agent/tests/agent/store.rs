//! Registration and heartbeats, in a real DynamoDB engine.

use std::{fs, time::Duration};

use mrgc_fleet::model::{Health, Lifecycle};
use tokio::time;

use crate::support::{Engine, Gauges, ModelServer, Setup, program, until};

#[tokio::test]
async fn an_agent_registers_and_reports() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    server.set(Gauges { waiting: 2, running: 1 });
    let agent = Setup::new()
        .store(&store)
        .inference(&server)
        .file("[instance]\nslots = 8\nzone = \"us-east-1a\"\nframeworks = [\"GDPR\"]\n")
        .file("[instance.metadata]\nami_id = \"ami-1\"\n")
        .start()
        .await;
    let is_loaded = |report: &mrgc_fleet::model::Report| report.health == Health::Healthy;
    let first = store.report_when("a healthy report", is_loaded).await;
    assert_eq!((first.generation, first.lifecycle), (1, Lifecycle::Available));
    assert_eq!((first.queue_depth, first.running), (Some(2), Some(1)));
    assert_eq!((first.avg_latency_ms, first.time_to_first_token_ms), (Some(150.0), Some(20.0)));
    assert_eq!((first.models.as_slice(), first.reason), (&["llama".to_owned()][..], None));
    assert_eq!((first.gpu_utilization, first.gpu_memory_free_bytes), (None, None));

    let later = store.report_when("more reports", |r| r.sequence >= first.sequence + 2).await;
    assert_eq!(later.generation, 1);
    let body = agent.health_when("counted", |_, body| body["sequence"].as_u64() >= Some(3)).await;
    assert_eq!(body["checks"]["store"]["status"], "ok");
    assert_eq!(
        (&body["lifecycle"], &body["instance"]["generation"]),
        (&"available".into(), &1.into())
    );

    let registration = store.standing().await.unwrap().registration;
    assert_eq!((registration.slots, registration.zone.as_deref()), (Some(8), Some("us-east-1a")));
    assert_eq!(registration.frameworks, ["gdpr".into()]);
    assert_eq!(registration.metadata["ami_id"], "ami-1");
    assert_eq!(registration.health_address, agent.address.to_string());
}

#[tokio::test]
async fn nothing_is_reported_before_every_part_was_looked_at() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let nitro_cli = program(folder.path(), "nitro-cli", "", 0);
    let go = folder.path().join("go");
    let script =
        format!("#!/bin/sh\nwhile ! test -e {}; do sleep 0.05; done\necho '[]'\n", go.display());
    fs::write(&nitro_cli, script).unwrap();
    let agent = Setup::new()
        .store(&store)
        .with(&[
            ("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap()),
            ("MRGC_AGENT__ENCLAVE__TIMEOUT_MS", "60000"),
        ])
        .start()
        .await;
    agent.in_lifecycle("available").await;
    // Longer than a heartbeat takes, and shorter than the agent's patience.
    time::sleep(Duration::from_secs(2)).await;
    let standing = store.standing().await.expect("it is registered");
    assert_eq!(standing.report, None);
    fs::write(&go, "").unwrap();
    let first = store.report_when("a first report", |_| true).await;
    assert_eq!((first.sequence, first.lifecycle), (1, Lifecycle::Available));
}

#[tokio::test]
async fn a_change_is_told_at_once() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let _agent = Setup::new()
        .store(&store)
        .inference(&server)
        .with(&[("MRGC_AGENT__HEARTBEAT__INTERVAL_SECONDS", "300")])
        .start()
        .await;
    store.report_when("healthy", |report| report.health == Health::Healthy).await;
    server.stop().await;
    let report = store.report_when("unhealthy", |report| report.health == Health::Unhealthy).await;
    assert!(report.reason.unwrap().contains("Connection refused"));
    assert_eq!(report.queue_depth, None);
}

#[tokio::test]
async fn a_store_outage_is_served_through() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let agent = Setup::new().store(&store).inference(&server).start().await;
    let before = store.report_when("a report", |report| report.health == Health::Healthy).await;

    let (address, folder) = store.stop().await;
    let body = agent
        .health_when("outage", |_, body| body["checks"]["store"]["status"] == "degraded")
        .await;
    let reason = body["checks"]["store"]["reason"].as_str().unwrap();
    assert!(reason.contains("cannot be reached"), "{reason}");
    assert_eq!((agent.health().await.0, &body["status"]), (200, &"healthy".into()));
    let metrics = agent.metrics().await;
    assert!(metrics.contains("\nmrgc_agent_store_up 0\n"), "{metrics}");
    assert!(metrics.contains("\nmrgc_agent_serving 1\n"), "{metrics}");
    server.set(Gauges { waiting: 7, running: 1 });

    let store = Engine::start_at(address, folder).await;
    let after = store.report_when("reports again", |r| r.sequence > before.sequence).await;
    assert_eq!(after.generation, before.generation, "an outage is no reason to register again");
    store.report_when("the latest facts", |report| report.queue_depth == Some(7)).await;
    agent.health_when("well again", |_, body| body["checks"]["store"]["status"] == "ok").await;
}

#[tokio::test]
async fn a_store_that_comes_later_is_joined() {
    let (address, folder) = Engine::start().await.stop().await;
    let endpoint = format!("http://{address}");
    let agent = Setup::new().with(&[("MRGC_AGENT__STORE__ENDPOINT", &endpoint)]).start().await;
    agent
        .health_when("no store", |code, body| {
            code == 200
                && body["lifecycle"] == "registering"
                && body["checks"]["store"]["status"] == "degraded"
        })
        .await;
    let store = Engine::start_at(address, folder).await;
    let report = store.report_when("a first report", |_| true).await;
    assert_eq!(report.lifecycle, Lifecycle::Available);
    agent.health_when("available", |_, body| body["lifecycle"] == "available").await;
}

#[tokio::test]
async fn an_agent_that_lost_its_id_writes_no_more() {
    let store = Engine::start().await;
    let mut first = Setup::new().store(&store).start().await;
    store.report_when("the first agent", |report| report.generation == 1).await;
    let second = Setup::new().store(&store).start().await;
    store.report_when("the second agent", |report| report.generation == 2).await;

    let body = first
        .health_when("fenced", |code, body| {
            code == 200 && body["checks"]["store"]["status"] == "error"
        })
        .await;
    let reason = body["checks"]["store"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("fenced: "), "{reason}");
    assert!(reason.contains("another agent registered this id from "), "{reason}");
    assert_eq!(body["status"], "degraded");
    second.health_when("second is well", |_, body| body["checks"]["store"]["status"] == "ok").await;

    first.signal("TERM").await;
    assert!(first.exit().await.success());
    let registration = store.standing().await.expect("the second is still there").registration;
    assert_eq!(registration.generation, 2);
    until("the second goes on", async || {
        let sequence = store.standing().await.and_then(|s| s.report).map(|r| r.sequence);
        (sequence >= Some(2)).then_some(()).ok_or(format!("{sequence:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_others_removed_writes_no_more() {
    let store = Engine::start().await;
    let agent = Setup::new().store(&store).start().await;
    store.report_when("a report", |report| report.generation == 1).await;
    store.store.deregister(&"i-1".into(), &"us-east-1".into(), 1).await.unwrap();
    agent
        .health_when("removed", |code, body| {
            code == 200 && body["checks"]["store"]["status"] == "error"
        })
        .await;
    assert_eq!(store.standing().await, None);
}
