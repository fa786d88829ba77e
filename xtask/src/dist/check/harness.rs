//! Runs a unit's `ExecStart` out of the unpacked package, with the unit's environment, as systemd's side of
//! sd_notify(3): it needs no root, and no systemd.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Packed, fresh, output};
use crate::deploy::Unit;
use crate::steps::Steps;

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Shorter than the unit's, so as not to wait for it.
const WATCHDOG: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// A place that both programs can be in: no store, no peers, ports of their own.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("MRGC_AGENT__LISTEN", "127.0.0.1:0"),
    ("MRGC_AGENT__INSTANCE__ID", "packaged"),
    ("MRGC_AGENT__INSTANCE__REGION", "us-east-1"),
    ("MRGC_AGENT__INSTANCE__ADDRESS", "127.0.0.1:8000"),
    ("MRGC_AGENT__STORE__ENDPOINT", "http://127.0.0.1:9"),
    ("MRGC_AGENT__DRAIN__UNKNOWN_GRACE_SECONDS", "1"),
    ("MRGC_AGENT__DRAIN__SETTLE_SECONDS", "0"),
    ("MRGC_ROUTER__LISTEN__DATA", "127.0.0.1:0"),
    ("MRGC_ROUTER__LISTEN__CONTROL", "127.0.0.1:0"),
    ("MRGC_ROUTER__LISTEN__THREADS", "2"),
    ("MRGC_ROUTER__STORE__ENDPOINT", "http://127.0.0.1:9"),
];

pub(super) fn run(steps: &Steps, folder: &Path, packed: &Packed) -> Result<()> {
    let name = packed.package.name;
    steps.say(&format!("{name}: starts, notifies and stops"));
    fresh(folder)?;
    output(Command::new("dpkg-deb").arg("--extract").arg(&packed.deb).arg(folder))?;
    let unit = fs::read_to_string(folder.join(format!("usr/lib/systemd/system/{name}.service")))?;
    let unit = Unit::parse(&unit);
    // Not in the folder: a socket's path has to be short.
    let socket = std::env::temp_dir().join(format!("mrgc-notify-{}", std::process::id()));
    let manager = UnixDatagram::bind(&socket).context("cannot listen for notifications")?;
    manager.set_read_timeout(Some(POLL))?;

    let mut command = command(&unit, folder)?;
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .env("NITRO_CLI_LOGS_PATH", folder);
    let log = fs::File::create(folder.join("log"))?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    let mut service =
        Service { child: child.context("cannot start")?, manager, heard: String::new() };
    let done = service.live();
    fs::remove_file(&socket)?;
    if done.is_err() {
        // It may have ended already.
        let _ = service.child.kill();
        let _ = service.child.wait();
    }
    done.with_context(|| {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        format!("{name}, which said to systemd:\n{}\nand to its log:\n{log}", service.heard)
    })
}

/// What the unit starts, with its paths moved under `folder`.
fn command(unit: &Unit, folder: &Path) -> Result<Command> {
    let start = unit.value("Service", "ExecStart").context("the unit has no ExecStart")?;
    let moved = |word: &str| match word.strip_prefix('/') {
        Some(path) => folder.join(path).into_os_string(),
        None => word.into(),
    };
    let mut words = start.split_whitespace();
    let mut command = Command::new(moved(words.next().context("ExecStart is empty")?));
    command.args(words.map(moved)).current_dir(folder).envs(ENVIRONMENT);
    command.env("MRGC_ROUTER__POLICIES__DIR", folder.join("usr/lib/mrgc/policies"));
    // Credentials, so that nobody goes and looks for them.
    command.env("AWS_ACCESS_KEY_ID", "none").env("AWS_SECRET_ACCESS_KEY", "none");
    Ok(command)
}

struct Service {
    child: Child,
    manager: UnixDatagram,
    heard: String,
}

impl Service {
    fn live(&mut self) -> Result<()> {
        self.hear("READY=1", READY_LIMIT)?;
        self.hear("WATCHDOG=1", WATCHDOG)?;
        let pid = self.child.id().to_string();
        output(Command::new("kill").args(["-TERM", &pid]))?;
        self.hear("STOPPING=1", STOP_LIMIT)?;
        self.hear("EXTEND_TIMEOUT_USEC=", STOP_LIMIT)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "SIGTERM ends it with {status}");
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("it does not end within {STOP_LIMIT:?} of SIGTERM")
    }

    fn hear(&mut self, line: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut message = [0; 4096];
        while !self.heard.lines().any(|said| said.starts_with(line)) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before it said {line}");
            }
            ensure!(Instant::now() < deadline, "it did not say {line} within {limit:?}");
            if let Ok(length) = self.manager.recv(&mut message) {
                self.heard.push_str(&String::from_utf8_lossy(&message[..length]));
                self.heard.push('\n');
            }
        }
        Ok(())
    }
}
