//! The car wash, as a process does it: a command, paths, the record, quarantine.

use std::{fs, path::Path};

use mrgc_fleet::model::{CleanupCheckKind, CleanupValidation, Lifecycle};

use crate::support::{Engine, Setup, kept, program, until};

/// One whose command does what `script` says, and whose only path is `folder`'s `scratch`.
fn washing(store: &Engine, folder: &Path, script: &str) -> Setup {
    let wash = program(folder, "wash", "", 0);
    fs::write(&wash, format!("#!/bin/sh\n{script}\n")).unwrap();
    let scratch = folder.join("scratch");
    Setup::new().store(store).keeping(folder).file(&format!(
        "[cleanup]\npaths = [\"{}\"]\ncommand = [\"{}\"]\n",
        scratch.display(),
        wash.display()
    ))
}

async fn recorded(store: &Engine, passed: bool) -> CleanupValidation {
    until("it is on record", async || {
        let latest = store.store.latest_cleanup(&"i-1".into()).await.unwrap();
        let seen = format!("{latest:?}");
        latest.filter(|validation| validation.passed == passed).ok_or(seen)
    })
    .await
}

#[tokio::test]
async fn what_fails_is_recorded_and_quarantines_until_it_passes() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    fs::write(scratch.join("weights.bin"), "x").unwrap();
    let setup = || washing(&store, folder.path(), "exit 0");
    let agent = setup().start().await;
    agent.in_lifecycle("available").await;

    agent.post("/clean").await;
    let body = agent.in_lifecycle("quarantined").await;
    assert_eq!(body["life"]["quarantine"]["cause"], "failed_cleanup");
    let reason = body["life"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("quarantined: paths: weights.bin is left in "), "{reason}");
    let failed = recorded(&store, false).await;
    assert_eq!((failed.generation, failed.sequence), (1, 1));
    let kinds: Vec<_> = failed.checks.iter().map(|check| (check.kind, check.passed)).collect();
    assert_eq!(kinds, [(CleanupCheckKind::Command, true), (CleanupCheckKind::Paths, false)]);
    let report =
        store.report_when("told", |report| report.lifecycle == Lifecycle::Quarantined).await;
    assert!(report.reason.unwrap().starts_with("quarantined: paths: "));

    kept(folder.path(), "failed_cleanup").await;
    agent.kill().await;
    let agent = setup().start().await;
    let report = store.report_when("a new generation", |report| report.generation == 2).await;
    assert_eq!(report.lifecycle, Lifecycle::Quarantined, "not available for a moment");
    fs::remove_file(scratch.join("weights.bin")).unwrap();
    agent.post("/clean").await;
    agent.in_lifecycle("available").await;
    let passed = recorded(&store, true).await;
    assert_eq!((passed.generation, passed.sequence), (2, 1));
    agent.health_when("200", |code, _| code == 200).await;
}

#[tokio::test]
async fn a_drain_that_was_over_is_followed_by_a_cleanup() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    fs::write(scratch.join("left"), "x").unwrap();
    let script = format!("rm -f {}/*", scratch.display());
    let agent = washing(&store, folder.path(), &script).start().await;
    agent.in_lifecycle("available").await;
    agent.post("/drain").await;
    agent.health_when("drained", |_, body| body["life"]["drain"]["over"] == "idle").await;
    assert!(scratch.join("left").exists(), "held, and not cleaned before it is let in again");
    agent.post("/undrain").await;
    agent.in_lifecycle("available").await;
    assert!(recorded(&store, true).await.passed);
    assert!(!scratch.join("left").exists());
}

#[tokio::test]
async fn an_agent_that_was_killed_in_a_cleanup_begins_it_anew() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let (begun, go) = (folder.path().join("begun"), folder.path().join("go"));
    let script =
        format!("touch {}; while ! test -e {}; do sleep 0.05; done", begun.display(), go.display());
    let setup = || washing(&store, folder.path(), &script);
    let agent = setup().start().await;
    agent.in_lifecycle("available").await;
    agent.post("/clean").await;
    until("it cleans", async || if begun.exists() { Ok(()) } else { Err(String::new()) }).await;
    agent.in_lifecycle("cleaning").await;
    assert_eq!(agent.health().await.0, 503);
    agent.kill().await;

    let agent = setup().start().await;
    let report = store.report_when("a new generation", |report| report.generation == 2).await;
    assert!(matches!(report.lifecycle, Lifecycle::Draining | Lifecycle::Cleaning), "{report:?}");
    agent.in_lifecycle("cleaning").await;
    fs::write(&go, "").unwrap();
    agent.in_lifecycle("available").await;
    assert_eq!(recorded(&store, true).await.generation, 2);
}

#[tokio::test]
async fn a_cleanup_that_is_not_on_record_lets_nothing_in() {
    let (store, folder) = (Engine::start().await, tempfile::tempdir().unwrap());
    let agent = washing(&store, folder.path(), "exit 0").start().await;
    agent.in_lifecycle("available").await;
    let (address, data) = store.kill().await;
    agent.post("/clean").await;
    let body =
        agent.health_when("it waits", |_, body| body["life"]["unrecorded_cleanups"] == 1).await;
    assert_eq!(body["lifecycle"], "cleaning");
    assert_eq!(body["life"]["last_cleanup"]["checks"][0]["passed"], true);
    let store = Engine::start_at(address, data).await;
    agent.in_lifecycle("available").await;
    assert!(recorded(&store, true).await.passed);
}
