//! The command, an engine for it, and what it said.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, process::Output, time::Duration};

use mrgc_store::{
    Store, StoreConfig,
    embedded::{self, EmbeddedError},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, process::Command, sync::oneshot, task::JoinHandle, time::sleep};

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The command without the settings of whoever runs the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mrgc"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("MRGC_") || text.starts_with("AWS_") {
            command.env_remove(&name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").kill_on_drop(true);
    command
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) async fn said(command: &mut Command) -> Said {
    tokio::time::timeout(DEADLINE, command.output()).await.unwrap().unwrap().into()
}

pub(crate) async fn mrgc(arguments: &[&str]) -> Said {
    said(command().args(arguments)).await
}

/// An embedded engine with its tables, under the prefix `mrgc`.
pub(crate) struct Engine {
    pub(crate) endpoint: String,
    pub(crate) folder: TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), EmbeddedError>>,
}

impl Engine {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.db");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            embedded::serve(&file, listener, "mrgc", shutdown).await
        });
        Self { endpoint: format!("http://{address}"), folder, stop, served }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `mrgc state …` with this engine's endpoint.
    pub(crate) fn state(&self, arguments: &[&str]) -> Command {
        self.command("state", arguments)
    }

    /// `mrgc instances …` with this engine's endpoint.
    pub(crate) fn instances(&self, arguments: &[&str]) -> Command {
        self.command("instances", arguments)
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = command();
        command.arg(name).args(arguments).args(["--endpoint", &self.endpoint]);
        command
    }

    /// The state, as agents and routers use it.
    pub(crate) async fn store(&self) -> Store {
        let endpoint = Some(self.endpoint.clone());
        Store::connect(&StoreConfig { endpoint, ..StoreConfig::default() }).await.unwrap()
    }

    /// A file with `items` items of about 2 KB in the table `metrics`.
    pub(crate) fn copy_of(&self, items: usize) -> PathBuf {
        let mut text = String::from(
            "{\"format\":\"mrgc-state\",\"version\":1,\"table_prefix\":\"x\",\"tables\":[\"metrics\"]}\n",
        );
        let filler = "x".repeat(2_000);
        for n in 0..items {
            let item = format!(
                r#"{{"pk":{{"S":"p{}"}},"sk":{{"S":"{n:06}"}},"filler":{{"S":"{filler}"}},"n":{{"N":"{n}"}}}}"#,
                n % 7
            );
            writeln!(text, r#"{{"table":"metrics","item":{item}}}"#).unwrap();
        }
        writeln!(text, r#"{{"end":{{"items":{{"metrics":{items}}}}}}}"#).unwrap();
        let path = self.path("made.jsonl");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The files in the engine's folder that are not the engine's.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("state.db")).collect();
        names.sort();
        names
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_it: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !is_it() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {DEADLINE:?}: {what}");
}
