//! The demo as a program: see `mrgc-demo --help`, and `cargo xtask demo`, which builds what it needs.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use mrgc_tests::demo::{self, Ending, Options, Sabotage};

const EXAMPLES: &str = "\
Examples:
  mrgc-demo                          play, then go on until Ctrl-C; prints what to try
  mrgc-demo --once                   play, judge, exit with 0 only if all went well
  mrgc-demo --once --json | jq .failed
  mrgc-demo --seconds 60 --rate 200  longer, and with more traffic
  mrgc-demo --once --sabotage policy-traps; echo $?

It needs the other binaries, the policies and, for sabotage, the test policies: `cargo xtask demo`
builds them all.";

/// A fleet of real processes on this machine: two regions, six instances, policies swapped under traffic
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// End with the scenario and its verdict, instead of running until Ctrl-C
    #[arg(long)]
    once: bool,
    /// How long the scenario takes, at least
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(5..=86_400))]
    seconds: u32,
    /// Requests per second, to both routers together
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=5_000))]
    rate: u32,
    /// Write the summary as JSON to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
    /// Break something on purpose: the demo has to notice and fail
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments) {
        Ok(Ending::Passed) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::FAILURE,
        Ok(Ending::Interrupted) => ExitCode::from(130),
        Err(error) => {
            // With standard error closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(demo::run(&Options {
        once: arguments.once,
        length: Duration::from_secs(arguments.seconds.into()),
        per_second: arguments.rate.into(),
        json: arguments.json,
        sabotage: arguments.sabotage,
    }))
}
