//! `cargo xtask test`: everything that must pass, in the order in which it is cheapest to fail.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{deploy, policies, template, wasm, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Skip formatting and lints
    #[arg(long)]
    no_lint: bool,
    /// Run only the store's contract tests, against the DynamoDB engine at this address, on this machine
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// What that engine lacks, so that tests of it are skipped: atomic-writes, keep-alive
    #[arg(long, value_name = "LIST", requires = "store", default_value = "")]
    store_without: String,
    /// Give what may take a minute its minute: a store that is away for longer than agents may be silent
    #[arg(long)]
    long: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let started = Instant::now();
    if let Some(endpoint) = &args.store {
        return contract(endpoint, &args.store_without);
    }
    if !args.no_lint {
        step(&mut with(workspace::cargo("fmt"), &["--all", "--check"]))?;
        let lints = ["--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        step(&mut with(workspace::cargo("clippy"), &lints))?;
        template::lint()?;
        deploy::lint()?;
    }
    let toolchain = wasm::find_or_make()?;
    policies::build_fleet(&toolchain)?;
    policies::build_stock(&toolchain)?;
    policies::build_tests(&toolchain)?;
    // What the end-to-end tests run: tests of one crate do not build the binaries of another.
    step(&mut with(workspace::cargo("build"), &["--workspace", "--bins"]))?;
    let mut tests = with(workspace::cargo("test"), &["--workspace", "--no-fail-fast"]);
    if args.long {
        tests.env("MRGC_TEST_LONG", "1");
    }
    step(&mut tests)?;
    simulate()?;
    println!("all passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The simulation, built to be fast: many seeds hold, and each fault that is planted in the core is found,
/// by a test of its own and by the simulation.
fn simulate() -> Result<()> {
    let package = ["--profile", "sim", "--package", "mrgc-sim"];
    let mut seeds = with(workspace::cargo("run"), &package);
    step(seeds.args(["--", "--seeds", "500", "--steps", "2000"]))?;
    let core = ["--package", "mrgc-fleet", "--features", "planted", "--lib"];
    step(&mut with(workspace::cargo("test"), &core))?;
    let mut planted = with(workspace::cargo("test"), &package);
    step(planted.args(["--features", "planted", "--test", "planted"]))
}

/// The tests that every DynamoDB engine must pass. What only the embedded engine can be put through is
/// skipped, and said so.
fn contract(endpoint: &str, without: &str) -> Result<()> {
    let tests =
        ["--package", "mrgc-store", "--features", "embedded", "--test", "store", "--no-fail-fast"];
    let mut command = with(workspace::cargo("test"), &tests);
    command.env("MRGC_TEST_STORE", endpoint).env("MRGC_TEST_STORE_WITHOUT", without);
    step(command.args(["--", "--nocapture"]))
}

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

/// Runs a command whose output is for whoever runs the tests.
fn step(command: &mut Command) -> Result<()> {
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let line = format!("cargo {}", words.join(" "));
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}
