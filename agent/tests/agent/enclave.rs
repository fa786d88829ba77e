//! Enclaves end to end: a `nitro-cli` of the test's, and a program behind a socket in place of one in an enclave.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
    task::JoinHandle,
};

use crate::support::{ModelServer, Setup, command, program};

const RUNNING: &str = r#"[{"State":"RUNNING","EnclaveID":"i-1-enc1","EnclaveCID":16}]"#;

/// Answers heartbeats, until it is told to hang.
struct Enclave {
    socket: PathBuf,
    hangs: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Enclave {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("enclave.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let hangs = Arc::new(AtomicBool::new(false));
        let is_hanging = Arc::clone(&hangs);
        let serving = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let mut stream = BufReader::new(listener.accept().await.unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if is_hanging.load(Relaxed) {
                    kept.push(stream);
                    continue;
                }
                let nonce = serde_json::from_str::<Value>(&line).unwrap()["nonce"].clone();
                let operations = json!([{ "name": "decrypt", "ms": 4.0 }]);
                let answer = json!({ "nonce": nonce, "operations": operations });
                // The agent may have given up.
                let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
            }
        });
        Self { socket, hangs, serving }
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn setup(nitro_cli: &Path, enclave: &Enclave, required: &str) -> Setup {
    Setup::new().with(&[
        ("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap()),
        ("MRGC_AGENT__ENCLAVE__SOCKET", enclave.socket.to_str().unwrap()),
        ("MRGC_AGENT__ENCLAVE__REQUIRED", required),
        ("MRGC_AGENT__ENCLAVE__INTERVAL_MS", "100"),
        ("MRGC_AGENT__ENCLAVE__TIMEOUT_MS", "2000"),
        ("MRGC_AGENT__ENCLAVE__DEVICE", "/dev/null"),
        ("MRGC_AGENT__ENCLAVE__ALLOCATOR", "/nowhere/allocator.yaml"),
    ])
}

#[tokio::test]
async fn an_enclave_that_runs_must_answer() {
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::start().await;
    let nitro_cli = program(folder.path(), "nitro-cli", RUNNING, 0);
    for (required, code, status) in [("true", 503, "unhealthy"), ("false", 200, "degraded")] {
        let within = tempfile::tempdir().unwrap();
        let enclave = Enclave::start(within.path());
        let agent = setup(&nitro_cli, &enclave, required).inference(&server).start().await;
        let body = agent
            .health_when("healthy", |code, body| {
                code == 200 && body["status"] == "healthy" && body["enclave"]["healthy"] == true
            })
            .await;
        let shown = &body["enclave"];
        assert_eq!((&shown["running"], &shown["attested"]), (&json!(1), &Value::Null), "{shown}");
        assert_eq!((&shown["enclaves"][0]["cid"], &shown["reason"]), (&json!(16), &Value::Null));
        assert_eq!(shown["device"]["status"], "ok");
        assert_eq!(shown["allocator"]["status"], "missing");
        assert_eq!(shown["operations"]["decrypt"]["mean_ms"], 4.0);
        let page = agent.metrics().await;
        assert!(page.contains("mrgc_agent_enclave_up 1\n"), "{page}");
        let count = "mrgc_agent_enclave_operation_seconds_count{operation=\"decrypt\"}";
        assert!(page.contains(count), "{page}");

        enclave.hangs.store(true, Relaxed);
        let body = agent
            .health_when("it hangs", |got, body| got == code && body["status"] == status)
            .await;
        let reason = body["reason"].as_str().unwrap();
        assert!(reason.contains("did not answer within 2000 ms"), "{reason}");
        assert_eq!(body["enclave"]["healthy"], false);

        enclave.hangs.store(false, Relaxed);
        agent.health_when("well again", |_, body| body["status"] == "healthy").await;
    }
}

#[tokio::test]
async fn what_an_enclave_lacks_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = ModelServer::start().await;
    let enclave = Enclave::start(folder.path());
    let listed = r#"[{"State":"TERMINATING"},{"state":"empty"}]"#;
    let nitro_cli = program(folder.path(), "nitro-cli", listed, 0);
    let agent = setup(&nitro_cli, &enclave, "true").inference(&server).start().await;
    let body = agent.health_when("unhealthy", |code, body| {
        code == 503 && body["checks"]["enclave"]["status"] == "error"
    });
    let body = body.await;
    let reason = body["checks"]["enclave"]["reason"].as_str().unwrap();
    let expected = "an enclave is required: none of the 2 listed is running: TERMINATING, EMPTY; \
                    /nowhere/allocator.yaml does not exist";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(body["enclave"]["healthy"], false);
    assert_eq!(body["enclave_running"], false);
}

/// As within systemd's sandbox, where its own folder cannot be written.
#[tokio::test]
async fn nitro_cli_is_given_a_folder_for_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let nitro_cli = folder.path().join("nitro-cli");
    let script = "#!/bin/sh\necho started >> \"$NITRO_CLI_LOGS_PATH/nitro_enclaves.log\" \
                  || exit 19\necho '[]'\n";
    fs::write(&nitro_cli, script).unwrap();
    fs::set_permissions(&nitro_cli, fs::Permissions::from_mode(0o755)).unwrap();
    let enclave = Enclave::start(folder.path());
    let logs = folder.path().join("logs");
    for setup in [
        setup(&nitro_cli, &enclave, "false"),
        setup(&nitro_cli, &enclave, "false").with(&[("LOGS_DIRECTORY", logs.to_str().unwrap())]),
    ] {
        let agent = setup.start().await;
        agent.health_when("listed", |_, body| body["enclave"]["listed"] == 0).await;
    }
    assert!(logs.join("nitro_enclaves.log").exists());
}

#[tokio::test]
async fn there_is_one_way_to_an_enclave() {
    let checked = command()
        .arg("validate")
        .env("MRGC_AGENT__ENCLAVE__PORT", "5005")
        .env("MRGC_AGENT__ENCLAVE__SOCKET", "/run/enclave.sock")
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(checked.stderr).unwrap();
    assert!(told.contains("enclave.socket: is set beside enclave.port: choose one"), "{told}");
}

#[tokio::test]
async fn without_a_way_to_the_enclave_nothing_is_relayed() {
    let folder = tempfile::tempdir().unwrap();
    let nitro_cli = program(folder.path(), "nitro-cli", RUNNING, 0);
    let agent = Setup::new()
        .with(&[("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap())])
        .start()
        .await;
    agent.health_when("running", |_, body| body["enclave_running"] == true).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/attestation", agent.address);
    let answer = http.post(url).body(r#"{"nonce":"eA=="}"#).send().await.unwrap();
    assert_eq!(answer.status(), 501);
    let problem: Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("enclave.port"), "{problem}");
}
