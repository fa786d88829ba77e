//! What `/health` says, and how it says it.

use std::path::Path;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{Engine, Gauges, ModelServer, Setup, program, until};

#[tokio::test]
async fn a_bare_machine_answers_200_and_says_what_is_missing() {
    let agent = Setup::new().start().await;
    let body = agent
        .health_when("sampled", |_, body| {
            body["host"].is_object()
                && body["checks"]["store"]["status"] == "degraded"
                && body["checks"]["gpu"]["reason"] != "not sampled yet"
                && body["checks"]["enclave"]["reason"] != "not sampled yet"
        })
        .await;
    assert_eq!(agent.health().await.0, 200);
    for key in ["queue_depth", "avg_latency_ms", "model_loaded", "enclave_running"] {
        assert_eq!(body.get(key), Some(&Value::Null), "{key}");
    }
    // Where nothing says whether this instance serves, it is not healthy by assumption.
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["lifecycle"], "registering");
    assert_eq!(body["instance"]["id"], "i-1");
    assert_eq!(body["instance"]["health_address"], agent.address.to_string());
    assert!(body["host"]["memory_total_bytes"].as_u64().unwrap() > 0);
    assert_eq!(body["checks"]["inference"]["status"], "missing");
    assert_eq!(body["checks"]["enclave"]["status"], "missing");
    let reason = body["checks"]["store"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("not registered: "), "{reason}");

    let has_driver = Path::new("/proc/driver/nvidia/version").exists();
    if !has_driver {
        let reason = "NVML library libnvidia-ml.so.1 not found: no NVIDIA driver on this machine";
        assert_eq!(body["gpu"], Value::Null);
        assert_eq!(body["checks"]["gpu"], json!({ "status": "missing", "reason": reason }));
    }
}

#[tokio::test]
async fn the_inference_server_is_followed() {
    let server = ModelServer::start().await;
    server.set(Gauges { waiting: 2, running: 3 });
    let agent = Setup::new().inference(&server).start().await;
    let body =
        agent.health_when("healthy", |code, body| code == 200 && body["status"] == "healthy").await;
    for (key, expected) in [
        ("queue_depth", json!(2)),
        ("running", json!(3)),
        ("avg_latency_ms", json!(150.0)),
        ("time_to_first_token_ms", json!(20.0)),
        ("model_loaded", json!(true)),
        ("models", json!(["llama"])),
        ("reason", Value::Null),
    ] {
        assert_eq!(body[key], expected, "{key}");
    }

    server.stop().await;
    let body = agent
        .health_when("unhealthy", |code, body| code == 503 && body["status"] == "unhealthy")
        .await;
    assert_eq!((&body["queue_depth"], &body["model_loaded"]), (&Value::Null, &Value::Null));
    let reason = body["reason"].as_str().unwrap();
    assert!(reason.contains("Connection refused"), "{reason}");
}

#[tokio::test]
async fn an_optional_inference_server_may_be_down() {
    let server = ModelServer::start().await;
    let setup = Setup::new().inference(&server);
    server.stop().await;
    let agent = setup.with(&[("MRGC_AGENT__INFERENCE__REQUIRED", "false")]).start().await;
    let down = |body: &Value| body["checks"]["inference"]["status"] == "error";
    agent
        .health_when("degraded", |code, body| {
            code == 200 && body["status"] == "degraded" && down(body)
        })
        .await;
}

#[tokio::test]
async fn enclaves_are_what_nitro_cli_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::start().await;
    for (answer, code, required, running, http, check) in [
        (r#"[{"State":"RUNNING"}]"#, 0, "true", json!(true), 200, "ok"),
        ("[]", 0, "true", json!(false), 503, "error"),
        ("[]", 0, "false", json!(false), 200, "ok"),
        ("[ E45 ] broken", 45, "true", Value::Null, 503, "error"),
        ("[ E45 ] broken", 45, "false", Value::Null, 200, "error"),
        ("not json", 0, "false", Value::Null, 200, "error"),
    ] {
        let nitro_cli = program(folder.path(), "nitro-cli", answer, code);
        let agent = Setup::new()
            .inference(&server)
            .with(&[
                ("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap()),
                ("MRGC_AGENT__ENCLAVE__REQUIRED", required),
            ])
            .start()
            .await;
        let body = agent
            .health_when(answer, |_, body| {
                body["checks"]["enclave"]["reason"] != "not sampled yet"
                    && body["model_loaded"] == true
            })
            .await;
        assert_eq!(body["enclave_running"], running, "{answer}");
        assert_eq!(body["checks"]["enclave"]["status"], check, "{answer}");
        assert_eq!(agent.health().await.0, http, "{answer}, required: {required}");
    }
}

/// What load balancers and monitors read stays as it is.
#[tokio::test]
async fn the_brief_answer_is_a_few_fields() {
    let server = ModelServer::start().await;
    server.set(Gauges { waiting: 2, running: 3 });
    let agent = Setup::new().inference(&server).start().await;
    let detail = agent.health_when("healthy", |_, body| body["status"] == "healthy").await;
    let response = agent.get("/health").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let text = response.text().await.unwrap();
    let seeds = [
        "\"status\":\"healthy\"",
        "\"queue_depth\":2",
        "\"avg_latency_ms\":150.0",
        "\"model_loaded\":true",
        "\"enclave_running\":null",
    ];
    assert!(text.starts_with(&format!("{{{},", seeds.join(","))), "{text}");
    let brief: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<&String> = brief.as_object().unwrap().keys().collect();
    let rest = ["checks", "instance", "lifecycle", "reason"];
    assert!(rest.iter().all(|key| brief.get(key).is_some()), "{keys:?}");
    assert_eq!(keys.len(), seeds.len() + rest.len(), "{keys:?}");
    assert_eq!(brief["instance"], detail["instance"]);

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let head = http.head(format!("http://{}/health", agent.address)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 100);

    assert_eq!(agent.get("/health?").await.status(), 200);
    for query in ["verbose", "detail=no", "detail&more=1"] {
        let refused = agent.get(&format!("/health?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}");
        let problem: Value = refused.json().await.unwrap();
        let told = problem["detail"].as_str().unwrap();
        assert!(told.contains(query) && told.contains("/health?detail"), "{told}");
    }
}

#[tokio::test]
async fn ready_is_who_registered_or_cannot() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let registered = Setup::new().inference(&server).store(&store).start().await;
    let alone = Setup::new().inference(&server).start().await;
    for agent in [&registered, &alone] {
        until("ready", async || {
            let response = agent.get("/readyz").await;
            let code = response.status();
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["ready"], code == 200, "{body}");
            if code == 200 { Ok(()) } else { Err(body.to_string()) }
        })
        .await;
    }
    server.set(Gauges { waiting: 0, running: 1 });
    registered.health_when("busy", |_, body| body["running"] == 1).await;
    registered.signal("TERM").await;
    registered.health_when("draining", |code, _| code == 503).await;
    let unready = registered.get("/readyz").await;
    assert_eq!(unready.status(), 503);
    let body: Value = unready.json().await.unwrap();
    assert_eq!(body["reasons"], json!(["draining, healthy: /health answers 503"]));
    assert_eq!(registered.get("/livez").await.status(), 200);
}

#[tokio::test]
async fn the_other_paths_are_told() {
    let agent = Setup::new().start().await;
    let live = agent.get("/livez").await;
    assert_eq!(
        (live.status().as_u16(), live.text().await.unwrap()),
        (200, r#"{"status":"alive"}"#.to_owned())
    );

    let unknown = agent.get("/nothing").await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.headers()["content-type"], "application/problem+json");
    let problem: Value = unknown.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["title"]), (&json!(404), &json!("Not Found")));

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let wrong = http.post(format!("http://{}/health", agent.address)).send().await.unwrap();
    assert_eq!(
        (wrong.status().as_u16(), wrong.headers()["allow"].to_str().unwrap()),
        (405, "GET, HEAD")
    );
}

#[tokio::test]
async fn strange_clients_disturb_nobody() {
    let agent = Setup::new().start().await;
    let mut half = TcpStream::connect(agent.address).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nhost:").await.unwrap();
    let mut garbled = TcpStream::connect(agent.address).await.unwrap();
    garbled.write_all(b"\0\xff\r\n\r\n").await.unwrap();
    let mut endless = TcpStream::connect(agent.address).await.unwrap();
    // The agent may close while this is still being written.
    let _ = endless.write_all(&vec![b'a'; 1 << 20]).await;
    // More than may be open at once: the last ones are closed, and nothing hangs.
    let mut many = Vec::new();
    for _ in 0..300 {
        many.push(TcpStream::connect(agent.address).await.unwrap());
    }
    drop(many);
    until("served again", async || {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = http.get(format!("http://{}/health", agent.address)).send().await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
