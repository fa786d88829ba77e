//! `cargo xtask test`: everything that must pass, in the order in which it is cheapest to fail.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{policies, wasm, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Skip formatting and lints
    #[arg(long)]
    no_lint: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let started = Instant::now();
    if !args.no_lint {
        step(&mut with(workspace::cargo("fmt"), &["--all", "--check"]))?;
        let lints = ["--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        step(&mut with(workspace::cargo("clippy"), &lints))?;
    }
    let toolchain = wasm::find_or_make()?;
    policies::build_fleet(&toolchain)?;
    policies::build_stock(&toolchain)?;
    policies::build_tests(&toolchain)?;
    // What the end-to-end tests run: tests of one crate do not build the binaries of another.
    step(&mut with(workspace::cargo("build"), &["--workspace", "--bins"]))?;
    step(&mut with(workspace::cargo("test"), &["--workspace", "--no-fail-fast"]))?;
    println!("all passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
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
