//! `mrgc-agent`: see `mrgc-agent --help`.
#![forbid(unsafe_code)]

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mrgc_agent::config::{Config, Log, LogFormat};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  mrgc-agent --config /etc/mrgc/agent.toml
  mrgc-agent validate --config agent.toml
  MRGC_AGENT__INSTANCE__ID=i-1 MRGC_AGENT__INSTANCE__REGION=us-east-1 \\
    MRGC_AGENT__INSTANCE__ADDRESS=10.0.0.5:8000 mrgc-agent
  mrgc-agent completions bash > /etc/bash_completion.d/mrgc-agent

Every key of the file can be set as MRGC_AGENT__SECTION__KEY, which wins over the file.
SIGTERM drains: /health turns 503, requests in flight end, the instance is deregistered.
A second SIGTERM or Ctrl-C ends the agent at once.";

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

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration, TOML; without it, the environment alone
    #[arg(long = "config", value_name = "FILE")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self) -> anyhow::Result<Config> {
        Config::load(self.path.as_deref(), std::env::vars_os())
            .context("the configuration is not valid")
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(options) => run(&options),
        Command::Validate(file) => file.load().and_then(|_| say("the configuration is valid")),
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

/// One thread is enough: the agent waits most of the time. NVML has a thread of its own.
fn run(options: &Run) -> anyhow::Result<()> {
    let config = options.config.load()?;
    start_logging(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let ran = runtime.block_on(serve(config, options.print_address));
    // A thread of the pool may wait for a system call, as for a name to resolve: the process does not.
    runtime.shutdown_background();
    ran
}

async fn serve(config: Config, print_address: bool) -> anyhow::Result<()> {
    // Before anything else, so that a signal that comes early drains, too.
    let mut signals = Signals::listen()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {} (`listen`)", config.listen))?;
    if print_address {
        say(&format!("listening {}", listener.local_addr()?))?;
    }
    let (drain, drained) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        // Sent by the first signal; never dropped before.
        let _ = drained.await;
    };
    let twice = async {
        let first = signals.next().await;
        tracing::info!(signal = first, "a second signal ends the agent at once");
        let _ = drain.send(());
        signals.next().await
    };
    tokio::select! {
        ran = mrgc_agent::run(listener, config, shutdown) => Ok(ran?),
        signal = twice => bail!("{signal} while draining: ended at once, and not deregistered"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn start_logging(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .with_context(|| format!("log.level is \"{}\": use a level, as in info", log.level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}
