//! `mrgc instances`: who is in the fleet, and what is wanted of them.

mod list;
mod place;
mod show;
mod wish;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Subcommand;
use mrgc_fleet::model::{DesiredState, Health, Lifecycle, Timestamp};

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
    /// Give instances nothing new, and let them finish what they have
    #[command(after_help = wish::DRAIN_EXAMPLES)]
    Drain(wish::Args),
    /// Take instances out of service, as those with a fault that somebody is to look at
    #[command(after_help = wish::QUARANTINE_EXAMPLES)]
    Quarantine(wish::Args),
    /// Let instances serve again
    #[command(after_help = wish::RELEASE_EXAMPLES)]
    Release(wish::Args),
}

pub(crate) async fn run(command: Command) -> Result<Verdict> {
    match command {
        Command::List(args) => list::run(&args).await,
        Command::Show(args) => show::run(&args).await,
        Command::Drain(args) => wish::run(&args, DesiredState::Draining).await,
        Command::Quarantine(args) => wish::run(&args, DesiredState::Quarantined).await,
        Command::Release(args) => wish::run(&args, DesiredState::Serving).await,
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// In whole units of the largest that there is one of, as in `3 s` or `12 d`.
fn age(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let (unit_ms, unit) = UNITS.into_iter().find(|(unit_ms, _)| ms >= *unit_ms).unwrap_or(UNITS[3]);
    format!("{} {unit}", ms / unit_ms)
}

fn lifecycle_cell(lifecycle: Lifecycle) -> Cell {
    let style = match lifecycle {
        Lifecycle::Available => GOOD,
        Lifecycle::Registering | Lifecycle::Draining | Lifecycle::Cleaning => DOUBTFUL,
        Lifecycle::Quarantined | Lifecycle::Terminated => BAD,
    };
    Cell::styled(lifecycle.as_str(), style)
}

fn health_cell(health: Health) -> Cell {
    let style = match health {
        Health::Healthy => GOOD,
        Health::Degraded => DOUBTFUL,
        Health::Unhealthy => BAD,
    };
    Cell::styled(health.as_str(), style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_largest_unit_that_fits() {
        for (ms, expected) in [
            (0, "0 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (7_199_999, "1 h"),
            (86_400_000, "1 d"),
            (u64::MAX, "213503982334 d"),
        ] {
            assert_eq!(age(ms), expected);
        }
    }
}
