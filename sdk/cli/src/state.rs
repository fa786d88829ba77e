//! `mrgc state`: the tables of the fleet's state.

mod check;
mod cost;
mod estimate;
mod export;
mod import;
mod init;

use anyhow::{Context, Result};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Interrupted, Verdict};

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

pub(crate) fn run(command: Command) -> Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let work = async {
            match command {
                Command::Init(args) => init::run(&args).await,
                Command::Check(args) => check::run(&args).await,
                Command::Export(args) => export::run(&args).await,
                Command::Import(args) => import::run(&args).await,
                Command::Cost(args) => cost::run(&args),
            }
        };
        // Work that is dropped takes its temporary file along.
        tokio::select! {
            // First, so that it listens before anything is asked.
            biased;
            _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
            done = work => done,
            _ = terminate.recv() => Err(Interrupted.into()),
        }
    })
}
