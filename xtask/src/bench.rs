//! `cargo xtask bench`: what we claim to be fast, measured against what it is compared with, in one run.
//! What each measures, and how, is said where it is written: `tests/benches/` and `router/benches/`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::{pgo, policies, wasm, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these [default: all]
    #[arg(value_enum)]
    names: Vec<Bench>,
    #[command(flatten)]
    pgo: pgo::Options,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Bench {
    /// Score calls as WASM against the same code natively
    Policy,
    /// Whole decisions with three policies against the native score
    Decision,
    /// Requests through the router against HAProxy and nginx
    Proxy,
    /// A router that follows 10,000 instances
    Follow,
    /// What an agent costs its machine
    Agent,
    /// Steps of health and failover, and snapshots, of 10,000 instances
    Monitor,
    /// Requests in flight while snapshots of 10,000 instances are published
    Publish,
    /// A region that is killed or stopped under traffic, twenty times each
    Failover,
}

const ALL: [Bench; 8] = [
    Bench::Policy,
    Bench::Decision,
    Bench::Proxy,
    Bench::Follow,
    Bench::Agent,
    Bench::Monitor,
    Bench::Publish,
    Bench::Failover,
];

/// Fails when a goal is missed, after all have run.
pub(crate) fn run(args: Args) -> Result<()> {
    let wanted = if args.names.is_empty() { ALL.to_vec() } else { args.names };
    if wanted.contains(&Bench::Proxy) {
        for tool in ["haproxy", "nginx", "wrk"] {
            ensure!(is_installed(tool), "`{tool}` is missing: `apt-get install haproxy nginx wrk`");
        }
    }
    if wanted.iter().any(|bench| !matches!(bench, Bench::Agent | Bench::Monitor)) {
        policies::build_stock(&wasm::find_or_make()?)?;
    }
    let mut missed = Vec::new();
    for bench in wanted {
        if !measure(bench, &args.pgo)? {
            missed.push(format!("{bench:?}").to_lowercase());
        }
    }
    if !missed.is_empty() {
        bail!("goals missed: {}", missed.join(", "));
    }
    Ok(())
}

/// Whether its goals were met.
fn measure(bench: Bench, pgo: &pgo::Options) -> Result<bool> {
    let (package, name) = match bench {
        Bench::Policy => ("mrgc-tests", "policy"),
        Bench::Decision => ("mrgc-router", "decision"),
        Bench::Proxy => ("mrgc-tests", "proxy"),
        Bench::Follow => ("mrgc-tests", "follow"),
        Bench::Agent => ("mrgc-tests", "agent"),
        Bench::Monitor => ("mrgc-router", "monitor"),
        Bench::Publish => ("mrgc-tests", "publish"),
        Bench::Failover => ("mrgc-tests", "failover"),
    };
    // What ships is what is measured; where a router's speed is not the question, the plain one does.
    let is_optimised = bench == Bench::Proxy && pgo::build(pgo, &pgo::steps()?)?;
    if package == "mrgc-tests" && bench != Bench::Policy && !is_optimised {
        cargo("build", &["--package", "mrgc-router", "--bins"])?;
    }
    if matches!(bench, Bench::Agent | Bench::Publish | Bench::Failover) {
        // Alone, as it is shipped: features that another program wants do not come in.
        cargo("build", &["--package", "mrgc-agent", "--bins"])?;
    }
    if bench == Bench::Agent {
        cargo("build", &["--package", "nvml-double"])?;
    }
    cargo("bench", &["--package", package, "--bench", name, "--no-run"])?;
    let status = workspace::cargo("bench")
        .args(["--profile", "dist", "--package", package, "--bench", name])
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}

/// Builds as what is shipped is built.
fn cargo(subcommand: &str, args: &[&str]) -> Result<()> {
    let status = workspace::cargo(subcommand).args(["--profile", "dist"]).args(args).status();
    ensure!(status.context("cannot start cargo")?.success(), "`cargo {subcommand}` failed");
    Ok(())
}

fn is_installed(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| Path::new(&folder).join(tool).exists())
}
