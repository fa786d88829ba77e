//! `mrgc-router`: the command line around the library.
#![forbid(unsafe_code)]

use std::{fs, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mrgc_router::{
    Running,
    config::{Config, Role},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Forwards each inference request to the best GPU instance, by policies that are sandboxed WASM.
#[derive(Debug, Parser)]
#[command(
    name = "mrgc-router",
    version,
    after_help = "\
Examples:
  mrgc-router run --config /etc/mrgc/router.toml
  mrgc-router run --config router.toml --roles proxy,health,failover,state   one machine, state included
  mrgc-router validate --config router.toml                  every error at once
  MRGC_ROUTER__HEALTH_CHECK__INTERVAL_SECONDS=5 mrgc-router run --config router.toml

The operator's API listens on 127.0.0.1:9000 unless configured otherwise; see GET /openapi.json."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the router until SIGTERM or SIGINT; then drain and stop
    Run {
        #[command(flatten)]
        config: ConfigFile,
        /// What this process does, in place of `roles` in the file
        #[arg(long, value_delimiter = ',')]
        roles: Vec<Role>,
        /// Print a line `listening data=… control=… state=…` once all listen
        #[arg(long)]
        print_address: bool,
    },
    /// Read the configuration and tell everything that is wrong with it
    Validate {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Print completions for a shell
    Completions { shell: Shell },
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// TOML; each key can also be set as MRGC_ROUTER__SECTION__KEY
    #[arg(long = "config", short = 'c', default_value = "/etc/mrgc/router.toml")]
    path: PathBuf,
}

impl ConfigFile {
    /// With `roles` in place of those that are configured, unless there are none.
    fn read(&self, roles: &[Role]) -> Result<Config> {
        let name = self.path.display().to_string();
        let text = fs::read_to_string(&self.path).with_context(|| format!("cannot read {name}"))?;
        // As one more variable: what other roles ask of the configuration is checked, too.
        let variable = |list: String| ("MRGC_ROUTER__ROLES".into(), list.into());
        let roles = match roles.is_empty() {
            true => None,
            false => Some(variable(serde_json::to_string(roles)?)),
        };
        Ok(Config::read(&name, &text, std::env::vars_os().chain(roles))?)
    }
}

fn main() -> ExitCode {
    match work(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Run { config, roles, print_address } => serve(config.read(&roles)?, print_address),
        Command::Validate { config } => {
            config.read(&[])?;
            writeln!(std::io::stdout(), "{}: ok", config.path.display())?;
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "mrgc-router",
                &mut std::io::stdout(),
            );
            Ok(())
        }
    }
}

/// One runtime for all but the data plane, whose threads have their own.
fn serve(config: Config, print_address: bool) -> Result<()> {
    let filter = EnvFilter::try_from_env("MRGC_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,dynoxide=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            let _ = stop.send(true);
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            // Asked twice: now.
            std::process::exit(130);
        });
        mrgc_router::run(config, stopped, |running| announce(running, print_address)).await
    })
}

fn announce(running: Running, print: bool) {
    let Running { data, control, state } = running;
    tracing::info!(?data, ?control, ?state, "listening");
    if print {
        let all = [("data", data), ("control", control), ("state", state)];
        let line: String = all
            .iter()
            .filter_map(|(name, address)| Some(format!(" {name}={}", (*address)?)))
            .collect();
        let mut stdout = std::io::stdout();
        let _ = writeln!(stdout, "listening{line}").and_then(|()| stdout.flush());
    }
}
