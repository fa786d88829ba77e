//! `mrgc state`: the tables of the fleet's state.

mod check;
mod cost;
mod estimate;
mod export;
mod import;
mod init;

use anyhow::Result;
use clap::Subcommand;

use crate::Verdict;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the tables that are missing
    Init(init::Args),
    /// Compare the live tables with what the programs need
    Check(check::Args),
    /// Copy the whole state into a file
    Export(export::Args),
    /// Write a copy into the tables
    Import(import::Args),
    /// What the state costs a month
    Cost(cost::Args),
}

pub(crate) async fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::Init(args) => init::run(&args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Export(args) => export::run(&args).await,
        Command::Import(args) => import::run(&args).await,
        Command::Cost(args) => cost::run(&args),
    }
}
