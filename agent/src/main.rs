//! `mrgc-agent`: see `mrgc-agent --help`.
#![forbid(unsafe_code)]

mod check;
mod order;
mod serve;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mrgc_agent::config::{Config, ConfigError};

const EXAMPLES: &str = "\
Examples:
  mrgc-agent --config /etc/mrgc/agent.toml
  mrgc-agent validate --config agent.toml
  mrgc-agent check --config agent.toml
  mrgc-agent drain --wait && systemctl restart vllm && mrgc-agent undrain
  MRGC_AGENT__INSTANCE__ID=i-1 MRGC_AGENT__INSTANCE__REGION=us-east-1 \\
    MRGC_AGENT__INSTANCE__ADDRESS=10.0.0.5:8000 mrgc-agent
  mrgc-agent completions bash > /etc/bash_completion.d/mrgc-agent

Every key of the file can be set as MRGC_AGENT__SECTION__KEY, which wins over the file.
SIGTERM drains: /health turns 503, requests in flight end, the instance is deregistered.
A second SIGTERM or Ctrl-C ends the agent at once.
SIGHUP reads the configuration again; what needs a restart is told, and one with an error changes nothing.";

/// The MRGC agent: says how this GPU instance is, at /health and in heartbeats.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (the default)
    #[command(after_help = EXAMPLES)]
    Run(Run),
    /// Check the configuration and tell everything that is wrong with it
    Validate(ConfigFile),
    /// Say in a table how this instance is: as the running agent says, or else by looking once
    #[command(after_help = check::HELP)]
    Check(check::Options),
    /// Keep new requests away from this instance until `undrain`
    Drain(order::Waiting),
    /// Let requests in again
    Undrain(check::Which),
    /// Drain, validate that nothing of a tenant is left, and serve again
    Clean(order::Waiting),
    /// Write the completions for a shell
    Completions { shell: Shell },
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Write `listening ADDRESS` to standard output once the port is bound
    #[arg(long)]
    print_address: bool,
}

#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration, TOML; without it, the environment alone
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> anyhow::Result<Config> {
        self.read().context("the configuration is not valid")
    }

    fn read(&self) -> Result<Config, ConfigError> {
        Config::load(self.path.as_deref(), std::env::vars_os())
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(options) => serve::run(&options),
        Command::Validate(file) => file.load().and_then(|_| say("the configuration is valid")),
        Command::Check(options) => match check::run(&options) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Drain(waiting) => order::drain(&waiting),
        Command::Undrain(which) => order::undrain(&which),
        Command::Clean(waiting) => order::clean(&waiting),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mrgc-agent", &mut io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "mrgc-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}
