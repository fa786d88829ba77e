//! The mock model server as a process of its own, for the demo, end-to-end tests and benchmarks.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use mrgc_tests::model_server::{Config, Failure, ModelServer};
use tokio::signal::unix::{SignalKind, signal};

/// Answers OpenAI-style chat completions with made-up text, and fails in the ways asked for
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What the `x-served-by` header says
    #[arg(long, default_value = "mock")]
    name: String,
    /// The one model served
    #[arg(long, default_value = "mock-model")]
    model: String,
    /// Completions that run at once; the rest waits
    #[arg(long, default_value_t = 4)]
    slots: usize,
    /// How long a completion takes once it runs
    #[arg(long, default_value_t = 80)]
    latency_ms: u64,
    /// Tokens in each completion
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// How completions fail
    #[arg(long, value_enum, default_value_t = Failure::None)]
    failure: Failure,
    /// Threads to serve with; one for each core when left out
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print `listening ADDRESS` on standard output once it does
    #[arg(long)]
    print_address: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(threads.into());
    }
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let server = ModelServer::start(Config {
        listen: arguments.listen,
        name: arguments.name,
        model: arguments.model,
        slots: arguments.slots,
        latency_ms: arguments.latency_ms,
        tokens: arguments.tokens,
        failure: arguments.failure,
    })
    .await?;
    if arguments.print_address {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "listening {}", server.address())?;
        stdout.flush()?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for Ctrl-C")?,
    }
    server.stop().await;
    Ok(())
}
