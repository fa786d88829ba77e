//! `mrgc`: the operator's command. See `mrgc --help`.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done; of a check, that nothing is wrong |
//! | 1 | it failed, or something is wrong |
//! | 2 | it was asked for wrongly: arguments or configuration |
//! | 130 | it was interrupted |
#![forbid(unsafe_code)]

mod clock;
mod completions;
mod failover;
mod instances;
mod operator;
mod progress;
mod regions;
mod router;
mod runtime;
mod state;
mod store;
mod table;
mod view;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  mrgc state init --aws-region us-east-1
  mrgc state check --config /etc/mrgc/router.toml
  mrgc state export backup.jsonl
  mrgc state cost --instances 1000 --interval 10
  mrgc instances list --pool llama
  mrgc instances drain i-1234567890abcdef0 --reason 'new driver'
  mrgc regions --watch
  mrgc failover status
  mrgc failover start us-east-1 --strategy graceful --reason 'maintenance'
  mrgc completions bash > /etc/bash_completion.d/mrgc

Exit codes: 0 done, 1 failed or something is wrong, 2 wrong arguments or configuration.";

/// The operator's command for MRGC.
#[derive(Debug, Parser)]
#[command(name = "mrgc", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The tables of the fleet's state: create, check, copy, and what they cost
    #[command(subcommand)]
    State(state::Command),
    /// The fleet's instances: list, show, check, drain, quarantine, release, forget
    #[command(subcommand)]
    Instances(instances::Command),
    /// The fleet's regions, as a router sees them
    Regions(regions::Args),
    /// Where regions' traffic goes: look, fail over, drill, recover
    #[command(subcommand)]
    Failover(failover::Command),
    /// Write the completions for a shell
    Completions(completions::Args),
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// What it looked at is not as it should be, and it has said so.
    Bad,
}

/// Arguments or a configuration that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Ctrl-C or SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::State(command) => ask(state::run(command)),
        Command::Instances(command) => ask(instances::run(command)),
        Command::Regions(args) => ask(async move { regions::run(&args).await }),
        Command::Failover(command) => ask(failover::run(command)),
        Command::Completions(args) => completions::run(&args, Cli::command()),
    };
    match done {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "mrgc: {error:#}");
            if error.is::<Usage>() {
                ExitCode::from(2)
            } else if error.is::<Interrupted>() {
                ExitCode::from(130)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn ask(work: impl Future<Output = anyhow::Result<Verdict>>) -> anyhow::Result<Verdict> {
    start_logging()?;
    runtime::run(work)
}

/// What goes wrong is told by the error; the log is for looking closer, as with `MRGC_LOG=debug`.
fn start_logging() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("MRGC_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    Ok(())
}
