//! What systemd hears, over a real socket: readiness, status, the watchdog's food, reloads and the end.

use std::{
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram as StdDatagram},
    },
    thread,
    time::{Duration, Instant},
};

use mrgc_agent::{notify::Notifier, supervisor::Supervisor};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixDatagram},
    sync::{mpsc, oneshot},
    time,
};

use crate::support::{DEADLINE, Engine, ModelServer, Setup, program};

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: TempDir,
}

impl Manager {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, name: path.to_str().unwrap().to_owned(), _folder: folder }
    }

    fn supervise(&self, setup: Setup, watchdog: Duration) -> Setup {
        let usec = watchdog.as_micros().to_string();
        setup.with(&[("NOTIFY_SOCKET", &self.name), ("WATCHDOG_USEC", &usec)])
    }

    async fn message(&self) -> String {
        let mut message = vec![0; 4_096];
        let length = time::timeout(DEADLINE, self.socket.recv(&mut message)).await.unwrap();
        message.truncate(length.unwrap());
        String::from_utf8(message).unwrap()
    }

    /// The next message with a line that begins so, and that line's rest.
    async fn hears(&self, start: &str) -> (String, String) {
        loop {
            let message = self.message().await;
            let rest = message.lines().find_map(|line| line.strip_prefix(start));
            if let Some(rest) = rest.map(str::to_owned) {
                return (message, rest);
            }
        }
    }

    /// How many messages there are within a time.
    async fn count(&self, message: &str, within: Duration) -> usize {
        let mut count = 0;
        let counting = async {
            loop {
                count += usize::from(self.message().await == message);
            }
        };
        let _ = time::timeout(within, counting).await;
        count
    }
}

const WATCHDOG: Duration = Duration::from_millis(100);

#[tokio::test]
async fn ready_is_told_once_every_part_was_sampled() {
    let (manager, server) = (Manager::start(), ModelServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    // A slow one.
    let nitro_cli = program(folder.path(), "nitro-cli", "", 0);
    std::fs::write(&nitro_cli, "#!/bin/sh\nsleep 1\necho '[]'\n").unwrap();
    let setup = Setup::new()
        .inference(&server)
        .with(&[("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap())]);
    let agent = manager.supervise(setup, DEADLINE).start().await;
    assert_eq!(agent.get("/readyz").await.status(), 503);
    manager.hears("READY=1").await;
    let (_, body) = agent.health().await;
    for check in body["checks"].as_object().unwrap().values() {
        assert_ne!(check["reason"], "not sampled yet", "{body}");
    }
}

#[tokio::test]
async fn the_status_is_the_health_in_words() {
    let (manager, store, server) =
        (Manager::start(), Engine::start().await, ModelServer::start().await);
    let setup = Setup::new().store(&store).inference(&server);
    let mut agent = manager.supervise(setup, DEADLINE).start().await;
    while manager.hears("STATUS=").await.1 != "available, healthy" {}
    server.stop().await;
    let (_, status) = manager.hears("STATUS=available, unhealthy: ").await;
    assert!(status.contains("Connection refused"), "{status}");

    agent.signal("TERM").await;
    let (message, usec) = manager.hears("EXTEND_TIMEOUT_USEC=").await;
    assert!(message.starts_with("STOPPING=1\n"), "{message}");
    // The drain's deadline, and what deregistering may take.
    assert!(usec.parse::<u64>().unwrap() > 60_000_000, "{usec}");
    assert!(agent.exit().await.success(), "{}", agent.log());
}

#[tokio::test]
async fn the_watchdog_is_fed_while_nvml_hangs() {
    let (manager, folder) = (Manager::start(), tempfile::tempdir().unwrap());
    let script = folder.path().join("script");
    std::fs::write(&script, "hang").unwrap();
    let agent = manager.supervise(Setup::new().gpus(&script), WATCHDOG).start().await;
    let hung = |_, body: &Value| body["checks"]["gpu"]["status"] == "error";
    agent.health_when("a hung NVML", hung).await;
    let fed = manager.count("WATCHDOG=1", 20 * WATCHDOG).await;
    assert!(fed >= 10, "fed {fed} times in 20 times the watchdog's time");
}

#[tokio::test]
async fn a_process_that_is_stopped_starves_the_watchdog() {
    let manager = Manager::start();
    let agent = manager.supervise(Setup::new(), WATCHDOG).start().await;
    manager.hears("WATCHDOG=1").await;
    agent.signal("STOP").await;
    // What was sent before.
    manager.count("WATCHDOG=1", WATCHDOG).await;
    assert_eq!(manager.count("WATCHDOG=1", 5 * WATCHDOG).await, 0);
    agent.signal("CONT").await;
    manager.hears("WATCHDOG=1").await;
}

/// An agent within this process, whose only thread is held up.
#[tokio::test]
async fn a_control_loop_that_is_stuck_starves_the_watchdog() {
    // An abstract socket, as systemd uses within some containers.
    let name = format!("mrgc-agent-test-{}", std::process::id());
    let manager = StdDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_nonblocking(true).unwrap();
    let fed = || {
        let mut message = [0; 4_096];
        let messages = std::iter::from_fn(|| manager.recv(&mut message).ok());
        messages.count()
    };
    let notifier = Notifier::connect(OsStr::new(&format!("@{name}")), Some(WATCHDOG)).unwrap();
    let (_reload, reloads) = mpsc::channel(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let agent = tokio::spawn(mrgc_agent::run(
        listener,
        Setup::new().config(),
        Supervisor::new(notifier, reloads),
        async move {
            let _ = stopped.await;
        },
    ));
    time::sleep(10 * WATCHDOG).await;
    assert!(fed() >= 10, "the loop turns");

    let stuck = Instant::now();
    thread::sleep(10 * WATCHDOG);
    assert_eq!(fed(), 0, "nobody else feeds it for {:?}", stuck.elapsed());
    time::sleep(5 * WATCHDOG).await;
    assert!(fed() > 0, "the loop turns again");
    stop.send(()).unwrap();
    agent.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reload_begins_and_ends() {
    let manager = Manager::start();
    let agent = manager.supervise(Setup::new(), DEADLINE).start().await;
    manager.hears("READY=1").await;
    agent.signal("HUP").await;
    let (message, usec) = manager.hears("MONOTONIC_USEC=").await;
    assert!(message.starts_with("RELOADING=1\n") && usec.parse::<u64>().unwrap() > 0, "{message}");
    manager.hears("READY=1").await;

    std::fs::write(&agent.config, "[gpu]\ninterval = 1\n").unwrap();
    agent.signal("HUP").await;
    manager.hears("RELOADING=1").await;
    let (_, status) = manager.hears("STATUS=reload refused ").await;
    assert!(status.contains("gpu.interval: there is no such key"), "{status}");
}
