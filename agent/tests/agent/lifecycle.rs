//! Drains by command, operators' wishes, and what a killed agent or a lost store must not undo.

use std::{fs, net::UdpSocket, process::Output};

use mrgc_fleet::model::{Desired, DesiredState, Lifecycle, Stamp, Timestamp};
use serde_json::json;

use crate::support::{Agent, Engine, Gauges, ModelServer, Setup, command, kept};

/// What somebody on the machine types.
async fn order(agent: &Agent, arguments: &[&str]) -> (Option<i32>, String) {
    let address = agent.address.to_string();
    let Output { status, stdout, stderr } =
        command().args(arguments).args(["--address", &address]).output().await.unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

async fn wish(store: &Engine, state: DesiredState) {
    let wish = Desired {
        instance: "i-1".into(),
        region: "us-east-1".into(),
        state,
        reason: Some("ticket 4711".to_owned()),
        operator: Some("eve".to_owned()),
        automatic: false,
        at: Timestamp(0),
        writer_region: "us-east-1".into(),
        stamp: Stamp { epoch: 0, sequence: 0 },
    };
    store.store.desire(&wish).await.unwrap();
}

#[tokio::test]
async fn a_command_drains_waits_and_lets_requests_in_again() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    server.set(Gauges { waiting: 0, running: 1 });
    let agent = Setup::new().store(&store).inference(&server).start().await;
    agent.in_lifecycle("available").await;

    assert_eq!(order(&agent, &["drain"]).await, (Some(0), "draining\n".to_owned()));
    let body = agent.health_when("503", |code, _| code == 503).await;
    assert_eq!(body["life"]["drain"], json!({ "causes": ["command"], "over": null }));
    store.report_when("draining", |report| report.lifecycle == Lifecycle::Draining).await;
    let late = order(&agent, &["drain", "--wait", "--timeout", "0"]).await;
    assert_eq!(late, (Some(1), "mrgc-agent: not done within 0 s: \"draining\"\n".to_owned()));

    server.set(Gauges::default());
    let waited = order(&agent, &["drain", "--wait"]).await;
    assert_eq!(waited, (Some(0), "drained: idle\n".to_owned()));
    assert_eq!(order(&agent, &["undrain"]).await, (Some(0), "available\n".to_owned()));
    agent.health_when("200", |code, _| code == 200).await;
    store.report_when("available", |report| report.lifecycle == Lifecycle::Available).await;
}

#[tokio::test]
async fn orders_are_refused_with_a_reason() {
    let store = Engine::start().await;
    let agent = Setup::new().store(&store).with(&[("MRGC_AGENT__LISTEN", "0.0.0.0:0")]);
    let agent = agent.start().await;
    let (code, said) = order(&agent, &["clean"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing is configured that could be looked at"), "{said}");
    assert_eq!(agent.get("/drain").await.status(), 405);
    let nobody = command().args(["drain", "--address", "127.0.0.1:1"]).output().await.unwrap();
    let told = String::from_utf8(nobody.stderr).unwrap();
    assert!(told.contains("no agent answers at 127.0.0.1:1"), "{told}");

    // Who comes by another address of this machine might as well be elsewhere.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let is_routed = socket.connect("192.0.2.1:9").is_ok();
    if let Some(ip) =
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| is_routed && !ip.is_loopback())
    {
        let url = format!("http://{ip}:{}/drain", agent.address.port());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        assert_eq!(http.post(url).send().await.unwrap().status(), 403);
    }
    agent.in_lifecycle("available").await;
}

#[tokio::test]
async fn an_operator_is_obeyed_also_by_an_agent_that_was_killed() {
    let store = Engine::start().await;
    let setup = || Setup::new().store(&store);
    let agent = setup().start().await;
    agent.in_lifecycle("available").await;
    wish(&store, DesiredState::Quarantined).await;
    let body = agent.in_lifecycle("quarantined").await;
    assert_eq!(body["life"]["reason"], "wanted quarantined by eve");
    let before =
        store.report_when("told", |report| report.lifecycle == Lifecycle::Quarantined).await;
    assert_eq!(agent.health().await.0, 503);
    let (code, said) = order(&agent, &["undrain"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("it is wanted quarantined by eve (ticket 4711)"), "{said}");

    agent.kill().await;
    let agent = setup().start().await;
    let report = store.report_when("a new generation", |r| r.generation > before.generation).await;
    assert_eq!(report.lifecycle, Lifecycle::Quarantined, "not available for a moment");
    agent.in_lifecycle("quarantined").await;
    wish(&store, DesiredState::Serving).await;
    store.report_when("released", |report| report.lifecycle == Lifecycle::Available).await;
    agent.health_when("200", |code, _| code == 200).await;
}

#[tokio::test]
async fn an_unfit_gpu_quarantines_until_an_operator_releases() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let script = folder.path().join("script");
    fs::write(&script, "").unwrap();
    let setup = || Setup::new().store(&store).gpus(&script).keeping(folder.path());
    let agent = setup().start().await;
    agent.health_when("sampled", |_, body| body["gpus"]["fitness"] == "fit").await;
    agent.in_lifecycle("available").await;
    fs::write(&script, "gpus 1\n").unwrap();
    let body = agent.in_lifecycle("quarantined").await;
    assert_eq!(body["life"]["quarantine"]["cause"], "unfit_gpu");
    let reason = body["life"]["reason"].as_str().unwrap();
    assert!(reason.contains("NVML lists 1 of 2 GPUs"), "{reason}");

    // The one that is left is fit, and nobody looked at the other.
    kept(folder.path(), "unfit_gpu").await;
    agent.kill().await;
    let agent = setup().start().await;
    let report = store.report_when("a new generation", |report| report.generation == 2).await;
    assert_eq!(report.lifecycle, Lifecycle::Quarantined, "not available for a moment");
    agent.health_when("sampled", |_, body| body["gpus"]["fitness"] == "fit").await;
    assert_eq!(agent.health().await.0, 503);
    wish(&store, DesiredState::Serving).await;
    agent.in_lifecycle("available").await;
}

#[tokio::test]
async fn a_drain_by_command_outlives_the_agent() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let setup = || Setup::new().store(&store).keeping(folder.path());
    let mut agent = setup().start().await;
    agent.in_lifecycle("available").await;
    order(&agent, &["drain", "--wait"]).await;
    kept(folder.path(), r#""drained":true"#).await;
    agent.signal("KILL").await;
    assert!(!agent.exit().await.success());

    let mut agent = setup().start().await;
    let report = store.report_when("a new generation", |report| report.generation == 2).await;
    assert_eq!(report.lifecycle, Lifecycle::Draining, "not available for a moment");
    agent.signal("TERM").await;
    assert!(agent.exit().await.success());
    assert_eq!(store.standing().await, None);

    let agent = setup().start().await;
    agent.in_lifecycle("draining").await;
    order(&agent, &["undrain"]).await;
    agent.in_lifecycle("available").await;
    kept(folder.path(), r#""drained":false"#).await;
    agent.kill().await;
    let agent = setup().start().await;
    agent.in_lifecycle("available").await;
}

#[tokio::test]
async fn a_state_file_that_cannot_be_written_is_told_and_stops_nothing() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    // As on a disk that is full.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("life.json")).unwrap();
    let agent = Setup::new().store(&store).keeping(folder.path()).start().await;
    // What it was is unknown, too: the device reads as zeros, without an end.
    let body =
        agent.health_when("told", |_, body| body["life"]["state_file"]["status"] == "error").await;
    let reason = body["life"]["state_file"]["reason"].as_str().unwrap();
    assert!(reason.contains("No space left on device"), "{reason}");
    agent.in_lifecycle("available").await;
    assert_eq!(agent.post("/drain").await, (200, json!({ "lifecycle": "draining" })));
}

#[tokio::test]
async fn what_happens_while_the_store_is_gone_is_told_when_it_is_back() {
    let store = Engine::start().await;
    let agent = Setup::new().store(&store).start().await;
    store.report_when("available", |report| report.lifecycle == Lifecycle::Available).await;
    let (address, folder) = store.kill().await;
    agent.post("/drain").await;
    agent.post("/undrain").await;
    agent.post("/drain").await;
    agent.health_when("silent", |_, body| body["checks"]["store"]["status"] == "degraded").await;
    let store = Engine::start_at(address, folder).await;
    let report =
        store.report_when("draining", |report| report.lifecycle == Lifecycle::Draining).await;
    assert_eq!(report.generation, 1, "an outage is no reason to register");
    agent.post("/undrain").await;
    store.report_when("available", |report| report.lifecycle == Lifecycle::Available).await;
}
