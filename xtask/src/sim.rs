//! `cargo xtask sim`: the fleet's decisions through thousands of simulated disasters.

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The options are the program's own: `cargo xtask sim --help`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// --seed, --seeds, --first, --steps, --jobs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut command = workspace::cargo("run");
    command.args(["--quiet", "--profile", "sim", "--package", "mrgc-sim", "--"]);
    let status = command.args(args.options).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the simulation did not hold ({status})");
    }
    Ok(())
}
