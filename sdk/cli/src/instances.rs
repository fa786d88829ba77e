//! `mrgc instances`: who is in the fleet, and what is wanted of them.

mod check;
mod forget;
mod list;
mod place;
mod show;
mod wish;

use anyhow::Result;
use clap::Subcommand;
use mrgc_fleet::model::{DesiredState, Health, Lifecycle};

use crate::{
    Verdict,
    table::{BAD, Cell, DOUBTFUL, GOOD},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the instances
    List(list::Args),
    /// Show all that is known of an instance
    Show(show::Args),
    /// Probe an instance now, through its region's router
    Check(check::Args),
    /// Give instances nothing new, and let them finish what they have
    #[command(after_help = wish::DRAIN_EXAMPLES)]
    Drain(wish::Args),
    /// Take instances out of service, as those with a fault that somebody is to look at
    #[command(after_help = wish::QUARANTINE_EXAMPLES)]
    Quarantine(wish::Args),
    /// Let instances serve again
    #[command(after_help = wish::RELEASE_EXAMPLES)]
    Release(wish::Args),
    /// Remove instances whose machines are gone for good
    Forget(forget::Args),
}

pub(crate) async fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::List(args) => list::run(&args).await,
        Command::Show(args) => show::run(&args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Drain(args) => wish::run(&args, DesiredState::Draining).await,
        Command::Quarantine(args) => wish::run(&args, DesiredState::Quarantined).await,
        Command::Release(args) => wish::run(&args, DesiredState::Serving).await,
        Command::Forget(args) => forget::run(&args).await,
    }
}

fn lifecycle_cell(lifecycle: Lifecycle) -> Cell {
    let style = match lifecycle {
        Lifecycle::Available => GOOD,
        Lifecycle::Registering | Lifecycle::Draining | Lifecycle::Cleaning => DOUBTFUL,
        Lifecycle::Quarantined | Lifecycle::Terminated => BAD,
    };
    Cell::styled(lifecycle.as_str(), style)
}

/// Whether it gets requests.
fn ready_cell(is_ready: bool) -> Cell {
    if is_ready { Cell::styled("yes", GOOD) } else { Cell::styled("no", BAD) }
}

fn health_cell(health: Health) -> Cell {
    let style = match health {
        Health::Healthy => GOOD,
        Health::Degraded => DOUBTFUL,
        Health::Unhealthy => BAD,
    };
    Cell::styled(health.as_str(), style)
}
