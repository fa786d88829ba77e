//! One child process: started, waited for until it listens, signalled, and killed at the end.

use std::{
    collections::BTreeMap,
    fs::File,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::PATIENCE;

/// Between two looks at what is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running program.
#[derive(Debug)]
pub struct Program {
    start: Start,
    child: Child,
    /// By name, as in `data=127.0.0.1:8000`; a lone address has the empty name.
    addresses: BTreeMap<String, SocketAddr>,
}

/// How a program is started.
#[derive(Clone, Debug)]
struct Start {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
}

impl Program {
    /// Starts a binary of this workspace and waits for its line `listening …`. What it writes to standard
    /// error goes to a file in `dir`.
    pub async fn start(dir: &Path, name: &str, binary: &str, args: &[String]) -> Result<Self> {
        Self::start_with(dir, name, binary, args, &[]).await
    }

    /// The same, with variables added to the environment.
    pub async fn start_with(
        dir: &Path,
        name: &str,
        binary: &str,
        args: &[String],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let owned = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        let start = Start {
            name: name.to_owned(),
            path: binary_path(binary)?,
            args: args.to_owned(),
            environment: environment.iter().map(owned).collect(),
            log: dir.join(format!("{name}.log")),
        };
        File::create(&start.log)?;
        start.run(&[]).await
    }

    /// Starts it again as it was started, after its end; with variables over those of its environment. Its
    /// log goes on.
    pub async fn restart(&mut self, environment: &[(&str, &str)]) -> Result<()> {
        let start = self.start.clone();
        *self = start.run(environment).await?;
        Ok(())
    }
}

impl Start {
    async fn run(self, environment: &[(&str, &str)]) -> Result<Program> {
        let Self { name, path, args, log, .. } = &self;
        let mut child = Command::new(path)
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).open(log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let listening = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix("listening ") {
                    return Ok(Some(rest.to_owned()));
                }
            }
            anyhow::Ok(None)
        });
        let Some(line) = listening.await.with_context(|| format!("{name} does not listen"))??
        else {
            bail!("{name} ended at start:\n{}", std::fs::read_to_string(log)?);
        };
        Ok(Program { addresses: parse(&line)?, child, start: self })
    }
}

impl Program {
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        self.addresses
            .get(name)
            .copied()
            .with_context(|| format!("{} has no address {name:?}", self.start.name))
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.start.log).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends a signal by name, as in `TERM`, `STOP` or `CONT`.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        self::signal(signal, [self]).await
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        Ok(ended.with_context(|| format!("{} does not end", self.start.name))??)
    }
}

/// Sends one signal to many, in their order and at once.
pub async fn signal(signal: &str, programs: impl IntoIterator<Item = &Program>) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}"));
    for program in programs {
        let pid = program.pid().with_context(|| format!("{} has ended", program.start.name))?;
        kill.arg(pid.to_string());
    }
    ensure!(kill.status().await?.success(), "cannot send {signal} to all");
    Ok(())
}

fn parse(line: &str) -> Result<BTreeMap<String, SocketAddr>> {
    line.split_whitespace()
        .map(|part| {
            let (name, address) = part.split_once('=').unwrap_or(("", part));
            let address = address.parse().with_context(|| format!("address in `{line}`"))?;
            Ok((name.to_owned(), address))
        })
        .collect()
}

/// Waits for a state by looking, with a deadline; what cannot be looked at yet is looked at again.
pub async fn eventually<T, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(e) => Some(e),
        };
        if Instant::now() > end {
            return match last {
                Some(e) => Err(e.context(format!("not within {limit:?}: {what}"))),
                None => bail!("not within {limit:?}: {what}"),
            };
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The path of a program built beside this one, or in the folder that `MRGC_PROGRAMS` names.
pub fn binary_path(binary: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("MRGC_PROGRAMS") {
        Some(folder) => folder.into(),
        None => profile_folder()?,
    };
    let path = folder.join(binary);
    ensure!(path.exists(), "{} is not built: run `cargo build --workspace`", path.display());
    Ok(path)
}

/// `target/debug`, or another profile's: where this program is, but for `deps`.
fn profile_folder() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder = here.parent().context("no folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder };
    Ok(folder.to_owned())
}

pub(super) fn target_folder() -> Result<PathBuf> {
    Ok(profile_folder()?.parent().context("no target folder")?.to_owned())
}
