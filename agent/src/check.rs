//! `mrgc-agent check`: how this instance is, for people.
//!
//! The agent that runs is asked, since it has looked for longer than any command could. Where none runs, as
//! before the service is enabled on a new image, the machine is looked at once.

mod table;
mod view;

use std::{
    io::{ErrorKind, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use mrgc_agent::{answer::Detail, config::Config};
use serde_json::Value;

use crate::ConfigFile;

/// Where the packages put it.
const DEFAULT_FILE: &str = "/etc/mrgc/agent.toml";

/// An agent answers within a millisecond; a machine may be busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A machine full of GPUs in slices, with all that happened to them, many times over.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The table was made, and shows an instance that should not serve.
const UNFIT: u8 = 3;

pub(crate) const HELP: &str = "\
Examples:
  mrgc-agent check
  mrgc-agent check --json | jq .checks.gpu
  mrgc-agent check --address 10.66.10.50:8080
  mrgc-agent check --config agent.toml && systemctl enable --now mrgc-agent

Without --config, /etc/mrgc/agent.toml is read where there is one; the environment wins over it.
Where no agent listens at its `listen`, this looks at the machine itself, once, and changes nothing.

Exit codes:
  0  fit: healthy, or degraded and still serving
  1  it could not be found out: the configuration is wrong, or --address does not answer
  2  the command line is wrong
  3  unfit: unhealthy or quarantined";

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    which: Which,
    /// Write what `GET /health?detail` answers, and who says so, as JSON
    #[arg(long)]
    json: bool,
}

/// Which agent is meant: the one at `listen` of the configuration, or one that is named.
#[derive(Debug, Args)]
pub(crate) struct Which {
    #[command(flatten)]
    config: ConfigFile,
    /// Ask the agent there, and no other; no configuration is read
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "path")]
    address: Option<String>,
}

impl Which {
    /// Where it answers.
    pub(crate) fn address(&self) -> anyhow::Result<String> {
        match &self.address {
            Some(address) => Ok(address.clone()),
            None => Ok(local(self.load()?.listen).to_string()),
        }
    }

    fn load(&self) -> anyhow::Result<Config> {
        let default = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        ConfigFile { path: self.config.path.clone().or_else(default) }.load()
    }
}

/// Who says how the instance is.
#[derive(Debug)]
enum Source {
    Agent(String),
    /// This command; nothing listens at the agent's address.
    Look(SocketAddr),
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(find_out(&options.which));
    // NVML may hang, and the command need not.
    runtime.shutdown_background();
    let (source, detail) = found?;
    let text = if options.json {
        view::json(&source, detail.clone())
    } else {
        view::text(&source, &detail, mrgc_agent::now().0)
    };
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")?;
    let is_unfit = detail["status"] == "unhealthy" || detail["lifecycle"] == "quarantined";
    Ok(if is_unfit { ExitCode::from(UNFIT) } else { ExitCode::SUCCESS })
}

async fn find_out(which: &Which) -> anyhow::Result<(Source, Value)> {
    if let Some(address) = &which.address {
        let detail = ask(address).await?;
        return Ok((Source::Agent(address.clone()), detail));
    }
    let config = which.load()?;
    let address = local(config.listen);
    if address.port() != 0 && listens(address) {
        let address = address.to_string();
        let detail = ask(&address).await?;
        return Ok((Source::Agent(address), detail));
    }
    let snapshot = mrgc_agent::look(config).await?;
    Ok((Source::Look(address), serde_json::to_value(Detail::of(&snapshot))?))
}

/// Where this machine reaches what listens at `listen`.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn listens(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, ANSWER_LIMIT) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::ConnectionRefused,
    }
}

/// For an agent, beside which there is no proxy.
pub(crate) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()
}

/// What the agent says there, whatever its code.
pub(crate) async fn ask(address: &str) -> anyhow::Result<Value> {
    let http = client()?;
    let url = format!("http://{address}/health?detail");
    let mut response =
        http.get(&url).send().await.with_context(|| format!("no answer from {url}"))?;
    let code = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.with_context(|| format!("{url} broke off"))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            bail!("{url} answers with more than {MAX_ANSWER_BYTES} bytes");
        }
    }
    match serde_json::from_slice::<Value>(&body) {
        Ok(detail) if detail["checks"].is_object() => Ok(detail),
        _ => bail!(
            "{address} answered {code}, and not as mrgc-agent does: give its --address, or free the port"
        ),
    }
}
