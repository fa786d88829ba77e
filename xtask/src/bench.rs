//! `cargo xtask bench`: what we claim to be fast, measured against what it is compared with, in one run.

mod policy;

use anyhow::Result;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these [default: all]
    #[arg(value_enum)]
    names: Vec<Bench>,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Bench {
    /// Policies as WASM against the same code natively
    Policy,
}

/// Fails when a goal is missed, after all have run.
pub(crate) fn run(args: Args) -> Result<()> {
    let wanted = |bench| args.names.is_empty() || args.names.contains(&bench);
    if wanted(Bench::Policy) {
        policy::run()?;
    }
    Ok(())
}
