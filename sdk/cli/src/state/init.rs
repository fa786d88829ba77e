//! `mrgc state init`: the tables, created where they are missing.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result};
use mrgc_store::{ProvisionOptions, ProvisionStep};
use serde_json::json;

use super::check;
use crate::{
    Verdict,
    store::StoreArgs,
    table::{self, Cell},
};

const EXAMPLES: &str = "\
Examples:
  mrgc state init --aws-region us-east-1
  mrgc state init --endpoint http://127.0.0.1:8000 --table-prefix staging

It can be repeated: a table that exists is left as it is. For tables in several regions, with
backups, keys and alarms, deploy deploy/cloudformation/state.yaml instead.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Back the tables up continuously (point-in-time recovery), those that exist, too
    #[arg(long)]
    point_in_time_recovery: bool,
    /// How long to wait until all tables are active
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait_seconds: u64,
    /// Tell the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let store = args.store.connect().await?;
    let options = ProvisionOptions {
        point_in_time_recovery: args.point_in_time_recovery,
        timeout: Duration::from_secs(args.wait_seconds),
    };
    let mut steps: Vec<(String, ProvisionStep)> = Vec::new();
    let told = |table: &str, step| {
        if !args.json {
            // Steps are news; the result goes to standard output.
            let _ = writeln!(io::stderr(), "{table}: {}", describe(step));
        }
        steps.push((table.to_owned(), step));
    };
    store.create_tables(&options, told).await.context("the tables are not all there")?;
    let inspections = store.inspect().await?;
    let verdict = check::verdict(&inspections);
    let created = |table: &str| steps.contains(&(table.to_owned(), ProvisionStep::Created));
    if args.json {
        let tables: Vec<_> = inspections
            .iter()
            .map(|inspection| {
                let mut entry = check::as_json(inspection);
                entry["created"] = json!(created(&inspection.table));
                entry
            })
            .collect();
        table::say(&format!("{:#}\n", json!({"ok": verdict == Verdict::Good, "tables": tables})))?;
        return Ok(verdict);
    }
    let rows: Vec<Vec<Cell>> = inspections
        .iter()
        .flat_map(|inspection| {
            let done = if created(&inspection.table) { "created" } else { "was there" };
            check::rows(inspection, done)
        })
        .collect();
    table::say(&table::render(&["TABLE", "DONE", "STATE", "WHAT TO DO"], &rows))?;
    Ok(verdict)
}

fn describe(step: ProvisionStep) -> String {
    match step {
        ProvisionStep::Exists => "exists".to_owned(),
        ProvisionStep::Created => "created".to_owned(),
        ProvisionStep::Active => "active".to_owned(),
        ProvisionStep::TimeToLive => "time to live turned on".to_owned(),
        ProvisionStep::PointInTimeRecovery => "point-in-time recovery turned on".to_owned(),
        ProvisionStep::Unsupported(feature) => format!("this engine has no {feature}"),
    }
}
