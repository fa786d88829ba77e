//! The GPUs: the real wrapper over the NVML double.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time;

use crate::support::{Agent, Engine, ModelServer, Setup};

/// What the double is told; it reads it on each call.
struct Script {
    path: PathBuf,
    _folder: TempDir,
}

impl Script {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Self { path: folder.path().join("script"), _folder: folder };
        script.say(content);
        script
    }

    fn say(&self, content: &str) {
        fs::write(&self.path, content).unwrap();
    }
}

async fn sampled(agent: &Agent) -> Value {
    agent
        .health_when("GPUs sampled", |_, body| {
            body["checks"]["gpu"]["reason"] != "not sampled yet" && body["model_loaded"] == true
        })
        .await
}

#[tokio::test]
async fn two_gpus_are_answered_and_reported() {
    let (store, server, script) =
        (Engine::start().await, ModelServer::start().await, Script::new(""));
    let agent = Setup::new().store(&store).inference(&server).gpus(&script.path).start().await;
    let body = sampled(&agent).await;
    assert_eq!(
        body["gpu"],
        json!([
            {
                "index": 0,
                "uuid": "GPU-00000000-0000-0000-0000-000000000001",
                "name": "NVIDIA H100 80GB HBM3",
                "utilization": 0.35,
                "memory_total_bytes": 85_899_345_920_u64,
                "memory_used_bytes": 21_474_836_480_u64,
                "temperature_celsius": 41,
                "power_watts": 310.5
            },
            {
                "index": 1,
                "uuid": "GPU-00000000-0000-0000-0000-000000000002",
                "name": "NVIDIA H100 80GB HBM3",
                "utilization": 0.65,
                "memory_total_bytes": 85_899_345_920_u64,
                "memory_used_bytes": 42_949_672_960_u64,
                "temperature_celsius": 47,
                "power_watts": 420.25
            }
        ])
    );
    assert_eq!(body["checks"]["gpu"], json!({ "status": "ok", "reason": null }));
    assert_eq!(body["status"], "healthy");
    let report = store.report_when("GPUs in a report", |r| r.gpu_utilization.is_some()).await;
    assert_eq!(report.gpu_utilization, Some(0.5));
    assert_eq!(report.gpu_memory_free_bytes, Some(107_374_182_400));
}

#[tokio::test]
async fn a_hung_driver_hangs_nothing_but_its_own_sample() {
    let (server, script) = (ModelServer::start().await, Script::new("hang"));
    let mut agent = Setup::new().inference(&server).gpus(&script.path).start().await;
    let is_hung = |body: &Value| body["checks"]["gpu"]["status"] == "error";
    let body = agent.health_when("hung", |code, body| code == 200 && is_hung(body)).await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("nvmlDeviceGetUtilizationRates of GPU 0"), "{reason}");
    assert_eq!((&body["gpu"], &body["status"]), (&Value::Null, &json!("degraded")));
    for _ in 0..20 {
        let answered = time::timeout(Duration::from_secs(2), agent.health()).await;
        assert_eq!(answered.expect("/health does not wait for NVML").0, 200);
    }

    script.say("");
    agent
        .health_when("well again", |_, body| {
            body["status"] == "healthy" && body["gpu"][1].is_object()
        })
        .await;

    script.say("hang");
    agent.health_when("hung again", |_, body| is_hung(body)).await;
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
}

#[tokio::test]
async fn what_is_wrong_with_the_gpus_is_told() {
    let server = ModelServer::start().await;
    for (script, required, http, check, told) in [
        ("", "true", 200, "ok", ""),
        ("lost", "true", 200, "degraded", "GPU 1: nvmlDeviceGetUUID: device fell off the bus"),
        ("all-lost", "true", 503, "error", "GPU 0: "),
        ("all-lost", "false", 200, "error", "GPU 1: "),
        ("no-gpus", "true", 503, "missing", "lists no GPU"),
        ("no-gpus", "false", 200, "missing", "lists no GPU"),
        ("no-driver", "true", 503, "error", "NVIDIA driver is not loaded"),
    ] {
        let script_file = Script::new(script);
        let agent = Setup::new()
            .inference(&server)
            .gpus(&script_file.path)
            .with(&[("MRGC_AGENT__GPU__REQUIRED", required)])
            .start()
            .await;
        let body = sampled(&agent).await;
        assert_eq!(body["checks"]["gpu"]["status"], check, "{script}");
        let reason = body["checks"]["gpu"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(told), "{script}: {reason}");
        assert_eq!(agent.health().await.0, http, "{script}, required: {required}");
    }
}

#[tokio::test]
async fn a_driver_that_comes_later_is_found() {
    let (server, script) = (ModelServer::start().await, Script::new("no-driver"));
    let agent = Setup::new().inference(&server).gpus(&script.path).start().await;
    assert_eq!(sampled(&agent).await["gpu"], Value::Null);
    script.say("");
    agent.health_when("found", |_, body| body["gpu"][1].is_object()).await;
}

#[tokio::test]
async fn a_library_that_is_not_there_is_an_error_where_it_was_asked_for() {
    let agent =
        Setup::new().with(&[("MRGC_AGENT__GPU__LIBRARY", "/nowhere/libnvml.so")]).start().await;
    let body =
        agent.health_when("looked for", |_, body| body["checks"]["gpu"]["status"] == "error").await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("/nowhere/libnvml.so"), "{reason}");
}
