//! `mrgc-agent check`, with an agent to ask and without.

use std::{fs, process::Output};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Engine, ModelServer, Setup, command};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn check(setup: Setup, arguments: &[&str]) -> Output {
    command().arg("check").args(arguments).envs(setup.variables()).output().await.unwrap()
}

/// An address at which nothing listens.
async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn the_agent_that_runs_is_asked() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let agent = Setup::new().store(&store).inference(&server).start().await;
    agent
        .health_when("available", |_, body| {
            body["lifecycle"] == "available" && body["status"] == "healthy"
        })
        .await;
    let address = agent.address.to_string();
    let listen = Setup::new().with(&[("MRGC_AGENT__LISTEN", &address)]);
    for (setup, arguments) in [(Setup::new(), &["--address", &address][..]), (listen, &[])] {
        let output = check(setup, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(shown.contains(&format!("at {address}\n")), "{shown}");
        assert!(shown.contains("available, healthy, says mrgc-agent"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "no colours where nobody sees them: {shown}");
    }
    let output = check(Setup::new(), &["--address", &address, "--json"]).await;
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["source"], json!({ "agent": address }));
    assert_eq!((&said["status"], &said["running"]), (&json!("healthy"), &json!(0)));
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    let agent = Setup::new().start().await;
    let address = agent.address.to_string();
    for (variable, is_coloured) in [("CLICOLOR_FORCE", true), ("NO_COLOR", false)] {
        let setup = Setup::new().with(&[(variable, "1")]);
        let shown = text(&check(setup, &["--address", &address]).await.stdout);
        assert_eq!(shown.contains('\u{1b}'), is_coloured, "{variable}: {shown}");
    }
}

#[tokio::test]
async fn an_unfit_instance_exits_with_3() {
    let required =
        [("MRGC_AGENT__GPU__LIBRARY", "/nowhere/nvml.so"), ("MRGC_AGENT__GPU__REQUIRED", "true")];
    let agent = Setup::new().with(&required).start().await;
    agent.health_when("unhealthy", |_, body| body["checks"]["gpu"]["status"] == "error").await;
    let asked = check(Setup::new(), &["--address", &agent.address.to_string()]).await;
    let address = free_address().await;
    let looked =
        check(Setup::new().with(&required).with(&[("MRGC_AGENT__LISTEN", &address)]), &[]).await;
    for output in [asked, looked] {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(shown.contains("unhealthy") && shown.contains("/nowhere/nvml.so"), "{shown}");
    }
}

#[tokio::test]
async fn without_an_agent_it_looks_for_itself_and_changes_nothing() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    let address = free_address().await;
    let listen = [("MRGC_AGENT__LISTEN", address.as_str())];
    // What the double does, whether the store is there, and what is found.
    for (gpus, with_store, gpu, store_status) in
        [("", true, "ok", "ok"), ("hang", true, "error", "ok"), ("", false, "ok", "error")]
    {
        fs::write(&script, gpus).unwrap();
        let setup = Setup::new().inference(&server).gpus(&script).with(&listen);
        let setup = if with_store { setup.store(&store) } else { setup };
        let output = check(setup, &["--json"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["source"], json!({ "agent": null }));
        assert_eq!(said["checks"]["gpu"]["status"], gpu, "{said}");
        assert_eq!(said["checks"]["store"]["status"], store_status, "{said}");
        assert_eq!(said["model_loaded"], true, "{said}");
    }
    let push = Setup::new().with(&listen).with(&[("MRGC_AGENT__INFERENCE__KIND", "push")]);
    let output = check(push, &["--json"]).await;
    assert_eq!(output.status.code(), Some(0), "nobody could have reported to it");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reason = said["checks"]["inference"]["reason"].as_str().unwrap();
    assert!(reason.contains("reports itself to an agent that runs"), "{reason}");
    let shown = check(Setup::new().with(&listen), &[]).await;
    let shown = text(&shown.stdout);
    assert!(shown.contains(&format!("no agent listens at {address}")), "{shown}");
    assert_eq!(store.standing().await, None, "it registered nothing");
}

#[tokio::test]
async fn what_cannot_be_found_out_exits_with_1() {
    let server = ModelServer::start().await;
    let (taken, free) = (server.address.to_string(), free_address().await);
    for (setup, arguments, told) in [
        (Setup::new(), &["--address", &free][..], "no answer from http://"),
        (Setup::new(), &["--address", &taken], "and not as mrgc-agent does"),
        (Setup::new().with(&[("MRGC_AGENT__LISTEN", &taken)]), &[], "and not as mrgc-agent does"),
        (Setup::new().with(&[("MRGC_AGENT__GPU__INTERVAL", "1")]), &[], "there is no such key"),
        (Setup::new(), &["--config", "/nowhere.toml"], "cannot read /nowhere.toml"),
    ] {
        let output = check(setup, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
    let usage = check(Setup::new(), &["--address", "a:1", "--config", "b"]).await;
    assert_eq!(usage.status.code(), Some(2));
}
