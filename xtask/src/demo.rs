//! `cargo xtask demo`: builds what the demo needs, then becomes it.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{policies, wasm, workspace};

const PROGRAM: &str = "mrgc-demo";

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                          play, then go on until Ctrl-C; prints what to try
  cargo xtask demo --once                   play, judge, exit with 0 only if all went well
  cargo xtask demo --once --json | jq .failed
  cargo xtask demo --seconds 60 --rate 200  longer, and with more traffic
  cargo xtask demo --once --sabotage policy-traps; echo $?

What plays: the state, two regions with a router each, six instances with an agent and a mock model
server each. Everything listens on loopback, on ports of its own choosing.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// End with the scenario and its verdict, instead of running until Ctrl-C
    #[arg(long)]
    once: bool,
    /// How long the scenario takes, at least [default: 20]
    #[arg(long)]
    seconds: Option<u32>,
    /// Requests per second, to both routers together [default: 60]
    #[arg(long)]
    rate: Option<u32>,
    /// Write the summary as JSON to standard output, and everything else to standard error
    #[arg(long)]
    json: bool,
    /// Break something on purpose: the demo has to notice and fail
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Sabotage {
    /// One of the versions swapped in passes its trial and then traps on every call
    PolicyTraps,
    /// An instance answers 500 while its agent says that it is healthy
    LyingAgent,
}

impl Args {
    /// As the demo itself takes them.
    fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        for (flag, given) in [("--once", self.once), ("--json", self.json)] {
            flags.extend(given.then(|| flag.to_owned()));
        }
        for (flag, value) in [("--seconds", self.seconds), ("--rate", self.rate)] {
            flags.extend(value.map(|value| format!("{flag}={value}")));
        }
        flags.extend(self.sabotage.map(|sabotage| match sabotage {
            Sabotage::PolicyTraps => "--sabotage=policy-traps".to_owned(),
            Sabotage::LyingAgent => "--sabotage=lying-agent".to_owned(),
        }));
        flags
    }
}

/// Returns only where the demo could not be built or started.
pub(crate) fn run(args: Args) -> Result<()> {
    let toolchain = wasm::find_or_make()?;
    eprintln!("Building the policies");
    policies::build_stock(&toolchain)?;
    if args.sabotage == Some(Sabotage::PolicyTraps) {
        policies::build_tests(&toolchain)?;
    }
    eprintln!("Building the programs");
    // As `cargo xtask test` builds them, so that neither undoes the other's work.
    let mut build = workspace::cargo("build");
    build.args(["--workspace", "--bins"]);
    let status = build.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build the programs ({status})");
    // This program and those lie in one folder: the same cargo has built them, with the same profile.
    let program = env::current_exe().context("where is xtask?")?.with_file_name(PROGRAM);
    let error = Command::new(&program).args(args.flags()).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_passed_on() {
        let args = Args {
            once: true,
            seconds: Some(9),
            rate: None,
            json: true,
            sabotage: Some(Sabotage::LyingAgent),
        };
        assert_eq!(args.flags(), ["--once", "--json", "--seconds=9", "--sabotage=lying-agent"]);
    }
}
