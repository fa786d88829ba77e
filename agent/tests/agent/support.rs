//! What the tests share: an agent, a store and an inference server, each on a free port.

mod model_server;

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use mrgc_agent::config::Config;
use mrgc_fleet::model::{InstanceId, RegionId, Report, Standing};
use mrgc_store::{Store, StoreConfig, embedded};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time,
};

pub(crate) use self::model_server::{Gauges, ModelServer};

/// Longer than anything takes on a busy machine; nothing waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// Asks until there is an answer, or the deadline passes; `last` says then what was seen.
pub(crate) async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut last = String::new();
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(seen) => last = seen,
            }
            time::sleep(POLL).await;
        }
    };
    match time::timeout(DEADLINE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
    }
}

/// An agent in a process of its own.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// Its configuration file.
    pub(crate) config: PathBuf,
    log: PathBuf,
    http: reqwest::Client,
    _folder: TempDir,
}

/// How an agent is started. The base: nothing is there, and the store's port is closed.
pub(crate) struct Setup {
    sections: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let variables = [
            ("MRGC_AGENT__LISTEN", "127.0.0.1:0"),
            ("MRGC_AGENT__INSTANCE__ID", "i-1"),
            ("MRGC_AGENT__INSTANCE__REGION", "us-east-1"),
            ("MRGC_AGENT__INSTANCE__POOL", "model-a"),
            ("MRGC_AGENT__INSTANCE__ADDRESS", "127.0.0.1:8000"),
            ("MRGC_AGENT__STORE__ENDPOINT", "http://127.0.0.1:1"),
            ("MRGC_AGENT__HEARTBEAT__INTERVAL_SECONDS", "1"),
            ("MRGC_AGENT__HEARTBEAT__MODE", "fixed"),
            ("MRGC_AGENT__DRAIN__SETTLE_SECONDS", "0"),
        ];
        Self { sections: Vec::new(), variables: Vec::new() }.with(&variables)
    }

    pub(crate) fn with(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables.extend(
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self
    }

    /// Nothing says who the instance is.
    pub(crate) fn without_identity(mut self) -> Self {
        let names = ["ID", "REGION", "ADDRESS"].map(|key| format!("MRGC_AGENT__INSTANCE__{key}"));
        self.variables.retain(|(name, _)| !names.contains(name));
        self
    }

    /// What must outlive the agent is kept there.
    pub(crate) fn keeping(self, directory: &Path) -> Self {
        self.with(&[("MRGC_AGENT__STATE_DIRECTORY", directory.to_str().unwrap())])
    }

    /// A piece of the configuration file.
    pub(crate) fn file(mut self, section: &str) -> Self {
        self.sections.push(section.to_owned());
        self
    }

    pub(crate) fn store(self, store: &Engine) -> Self {
        self.store_at(store.address)
    }

    pub(crate) fn store_at(self, address: SocketAddr) -> Self {
        self.with(&[("MRGC_AGENT__STORE__ENDPOINT", &format!("http://{address}"))])
    }

    pub(crate) fn variables(self) -> Vec<(String, String)> {
        self.variables
    }

    /// The configuration, for an agent within the test's own process.
    pub(crate) fn config(self) -> Config {
        let variables = self.variables.into_iter();
        Config::load(None, variables.map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    pub(crate) fn inference(self, server: &ModelServer) -> Self {
        self.with(&[
            ("MRGC_AGENT__INFERENCE__URL", &format!("http://{}", server.address)),
            ("MRGC_AGENT__INFERENCE__POLL_INTERVAL_MS", "50"),
        ])
    }

    /// GPUs by the NVML double, which does what `script` says.
    pub(crate) fn gpus(self, script: &Path) -> Self {
        self.with(&[
            ("MRGC_AGENT__GPU__LIBRARY", nvml_double().to_str().unwrap()),
            ("MRGC_AGENT__GPU__INTERVAL_MS", "100"),
            ("MRGC_AGENT__GPU__DEADLINE_MS", "100"),
            ("NVML_DOUBLE_SCRIPT", script.to_str().unwrap()),
        ])
    }

    pub(crate) async fn start(self) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("agent.toml");
        fs::write(&config, self.sections.join("\n")).unwrap();
        let log = folder.path().join("log");
        let mut child = command()
            .args(["run", "--print-address", "--config"])
            .arg(&config)
            .envs(self.variables)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
        let address = line
            .as_deref()
            .and_then(|line| line.strip_prefix("listening "))
            .unwrap_or_else(|| panic!("it said {line:?}:\n{}", fs::read_to_string(&log).unwrap()))
            .parse()
            .unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Agent { child, address, config, log, http, _folder: folder }
    }
}

/// The program, with nothing of this test's surroundings that could steer it.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrgc-agent"));
    command.env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command
}

/// The shared library, which cargo builds beside this test as one of its dependencies.
pub(crate) fn nvml_double() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let beside = test.parent().unwrap();
    let places = [beside.to_owned(), beside.parent().unwrap().to_owned()];
    let found =
        places.iter().map(|place| place.join("libnvidia_ml_double.so")).find(|p| p.exists());
    found.unwrap_or_else(|| {
        panic!("no libnvidia_ml_double.so in {places:?}: cargo build -p nvml-double")
    })
}

impl Agent {
    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let response = self.http.get(format!("http://{}{path}", self.address)).send().await;
        response.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    pub(crate) async fn post(&self, path: &str) -> (u16, Value) {
        let response = self.http.post(format!("http://{}{path}", self.address)).send().await;
        let response = response.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Without its leave.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// The code and the body of `/health?detail`.
    pub(crate) async fn health(&self) -> (u16, Value) {
        let response = self.get("/health?detail").await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Waits until `/health` is as it should be, and gives that body.
    pub(crate) async fn health_when(
        &self,
        what: &str,
        is_it: impl Fn(u16, &Value) -> bool,
    ) -> Value {
        until(what, async || {
            let (code, body) = self.health().await;
            if is_it(code, &body) {
                Ok(body)
            } else {
                Err(format!("{code} {body}\n{}", self.log()))
            }
        })
        .await
    }

    /// Waits until its lifecycle is this one, and gives that body.
    pub(crate) async fn in_lifecycle(&self, lifecycle: &str) -> Value {
        self.health_when(lifecycle, |_, body| body["lifecycle"] == lifecycle).await
    }

    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.text().await.unwrap()
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn metrics_say(&self, line: &str) {
        until(line, async || {
            let text = self.metrics().await;
            if text.lines().any(|told| told == line) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs");
        let kill = format!("kill -{name} {pid}");
        assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        match time::timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it still runs:\n{}", self.log()),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the agent's log:\n{log}");
        }
    }
}

/// A DynamoDB engine on a free port.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    folder: Arc<TempDir>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Engine {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// At an address where one was before, or will be, with that one's data.
    pub(crate) async fn start_at(address: SocketAddr, folder: Arc<TempDir>) -> Self {
        let listener = until("the store's port", async || {
            TcpListener::bind(address).await.map_err(|error| error.to_string())
        })
        .await;
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let file = folder.path().join("state.db");
        let served = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            embedded::serve(&file, listener, "mrgc", shutdown).await.unwrap();
        });
        let config =
            StoreConfig { endpoint: Some(format!("http://{address}")), ..StoreConfig::default() };
        let store = Store::connect(&config).await.unwrap();
        Self { address, store, folder, stop, served }
    }

    pub(crate) async fn stop(self) -> (SocketAddr, Arc<TempDir>) {
        let Self { address, store, folder, stop, served } = self;
        drop(store);
        drop(stop);
        served.await.unwrap();
        (address, folder)
    }

    /// Without its leave: what it was doing is cut off.
    pub(crate) async fn kill(self) -> (SocketAddr, Arc<TempDir>) {
        let Self { address, store, folder, stop, served } = self;
        drop(store);
        served.abort();
        assert!(served.await.unwrap_err().is_cancelled());
        drop(stop);
        (address, folder)
    }

    pub(crate) async fn standing(&self) -> Option<Standing> {
        let (region, id) = (RegionId::from("us-east-1"), InstanceId::from("i-1"));
        self.store.instance(&region, &id).await.unwrap()
    }

    /// Waits until a report is as it should be, and gives it.
    pub(crate) async fn report_when(&self, what: &str, is_it: impl Fn(&Report) -> bool) -> Report {
        until(what, async || {
            let report = self.standing().await.and_then(|standing| standing.report);
            let seen = format!("{report:?}");
            report.filter(&is_it).ok_or(seen)
        })
        .await
    }
}

/// Waits until this is on record in the directory: an agent that is killed before it has written it forgets it.
pub(crate) async fn kept(directory: &Path, what: &str) {
    until(what, async || {
        let record = fs::read_to_string(directory.join("life.json")).unwrap_or_default();
        if record.contains(what) { Ok(()) } else { Err(record) }
    })
    .await;
}

/// A program in `folder` that says `answer` and exits with `code`.
pub(crate) fn program(folder: &Path, name: &str, answer: &str, code: i32) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {code}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
