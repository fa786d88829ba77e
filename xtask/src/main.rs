//! `cargo xtask <command>`: what building this project needs beyond `cargo build`.
//!
//! Each command is a module with an `Args` and a `run(Args) -> anyhow::Result<()>`.

#![allow(clippy::print_stdout, reason = "a command line answers on stdout")]

mod bench;
mod demo;
mod deploy;
mod dist;
mod pgo;
mod policies;
mod sim;
mod steps;
mod template;
mod test;
mod wasm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask policies            build the stock policies into target/policies/
  cargo xtask policies score      only that one
  cargo xtask policies --all      and the test policies, and mrgc-fleet for wasm32
  cargo xtask demo                a fleet on this machine, policies swapped under traffic
  cargo xtask test                formatting, lints, WASM builds and all tests
  cargo xtask test --store http://127.0.0.1:8000
                                  the store's tests against another DynamoDB engine
  cargo xtask sim --seeds 20000   routers, agents and a store through as many disasters, simulated
  cargo xtask sim --seed 17       one of them again
  cargo xtask bench               score calls, decisions, proxied requests, against their peers
  cargo xtask bench policy        only the score calls
  cargo xtask bench agent         what an agent costs its machine
  cargo xtask bench proxy --no-pgo
                                  the router as it is built once, in half the time
  cargo xtask dist                .deb and .rpm of the agent and the router, into target/dist-packages/
  cargo xtask dist --check        and installs, runs, upgrades and removes them in a root of their own

Environment:
  MRGC_WASM_TOOLCHAIN=<folder>    use the wasm32 toolchain in this folder, made there from Debian's
                                  packages when it is missing; several checkouts may share one.
                                  Without it: rustup's target, else target/wasm-toolchain/";

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "Build and check MRGC", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the routing policies as WASM components
    Policies(policies::Args),
    /// Watch a fleet of real processes, policies swapped under traffic, an instance killed
    Demo(demo::Args),
    /// Run everything that must pass
    Test(test::Args),
    /// Simulate the fleet under every fault, from seeds
    Sim(sim::Args),
    /// Measure what is claimed to be fast
    Bench(bench::Args),
    /// Package the programs, and check the packages
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Policies(args) => policies::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Dist(args) => dist::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}
