//! `mrgc failover`: how the regions stand, and what is ordered of their traffic, over a router's control API.

mod answer;
mod confirm;
mod history;
mod order;
mod simulate;
mod status;

use anyhow::Result;
use clap::Subcommand;

use crate::Verdict;
pub(crate) use answer::{Overview, keeps, state_cell};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the regions: states, shares, orders, and who takes traffic
    Status(status::Args),
    /// Fail a region over: its traffic goes elsewhere
    Start(order::Start),
    /// Tell what a failover would do, without doing it
    Simulate(simulate::Args),
    /// End a failover that was ordered: traffic comes back by steps
    Recover(order::Recover),
    /// Hold a region in a state, whatever the evidence says
    Pin(order::Pin),
    /// Leave a region to its evidence again
    Unpin(order::Unpin),
    /// Show past failovers and orders as a timeline
    History(history::Args),
}

pub(crate) async fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::Status(args) => status::run(&args).await,
        Command::Start(args) => order::start(&args).await,
        Command::Simulate(args) => simulate::run(&args).await,
        Command::Recover(args) => order::recover(&args).await,
        Command::Pin(args) => order::pin(&args).await,
        Command::Unpin(args) => order::unpin(&args).await,
        Command::History(args) => history::run(&args).await,
    }
}
