//! `mrgc instances list`: a row for each registered instance.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{DesiredState, Lifecycle, PoolId, RegionId, Standing, Timestamp};
use mrgc_store::Store;
use serde::Serialize;

use super::{
    health_cell, lifecycle_cell,
    place::{Fleet, Place},
};
use crate::{
    Verdict,
    clock::{age, now},
    router::Router,
    table::{self, Cell},
    watch::WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc instances list
  mrgc instances list --region us-east-1 --pool llama
  mrgc instances list --router http://10.66.0.10:9000
  mrgc instances list --json | jq -r 'select(.lifecycle == \"quarantined\") | .registration.id'

LIFECYCLE is the stricter of what the instance reports and what is wanted of it. AGE is how long ago
the report was made, by the instance's clock. A router shows what it read last: ask one while the
store is away. With --json, each line is an instance. Exit code 1: something could not be read.";

const HEADS: [&str; 9] =
    ["ID", "REGION", "POOL", "LIFECYCLE", "HEALTH", "WANTED", "REPORT", "AGE", "REASON"];
const NOTHING: &str = "-";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Only the instances of this pool
    #[arg(long, value_name = "POOL", value_parser = NonEmptyStringValueParser::new().map(PoolId::from))]
    pool: Option<PoolId>,
    /// Ask this router's control API, as in http://127.0.0.1:9000, in place of the store
    #[arg(long, value_name = "URL", conflicts_with = "StoreArgs")]
    router: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
    /// Tell each instance as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    lifecycle: Lifecycle,
    #[serde(flatten)]
    standing: &'a Standing,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    if let Some(url) = &args.router {
        let router = Router::at(url)?;
        let region = args.place.region();
        let draw = async || {
            let mut standings: Vec<Standing> = router.get(&["instances"]).await?;
            standings.retain(|s| region.is_none_or(|region| s.registration.region == *region));
            let place = region.map_or("any region that the router knows", RegionId::as_str);
            Ok((draw(args, standings, place)?, Verdict::Good))
        };
        return args.watch.show(draw).await;
    }
    let fleet = args.place.open().await?;
    let draw = async || {
        let standings = stored(&fleet).await?;
        Ok((draw(args, standings, &fleet.names())?, verdict(&fleet.store)))
    };
    args.watch.show(draw).await
}

async fn stored(fleet: &Fleet) -> Result<Vec<Standing>> {
    let mut standings = Vec::new();
    for region in &fleet.regions {
        let listed = fleet.store.instances(region).await;
        standings.extend(listed.with_context(|| format!("cannot list {region}"))?);
    }
    Ok(standings)
}

/// `place` is where these were looked for.
fn draw(args: &Args, mut standings: Vec<Standing>, place: &str) -> Result<String> {
    standings.retain(|s| args.pool.as_ref().is_none_or(|pool| s.registration.pool == *pool));
    if standings.is_empty() {
        let pool = args.pool.as_ref().map_or_else(String::new, |pool| format!(" of pool {pool}"));
        // A reader of standard output gets an empty list.
        let _ = writeln!(io::stderr(), "no instances{pool} in {place}");
        return Ok(String::new());
    }
    if args.json {
        let mut lines = String::new();
        for standing in &standings {
            let line = Line { lifecycle: standing.lifecycle(), standing };
            lines.push_str(&serde_json::to_string(&line).context("an instance as JSON")?);
            lines.push('\n');
        }
        return Ok(lines);
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = standings.iter().map(|standing| row(standing, now)).collect();
    Ok(table::render(&HEADS, &rows))
}

fn row(standing: &Standing, now: Timestamp) -> Vec<Cell> {
    let registration = &standing.registration;
    let held = standing.desired.as_ref().filter(|desired| desired.state != DesiredState::Serving);
    let wanted_because = held.and_then(|desired| desired.reason.as_deref());
    let (health, sequence, age, because) = match &standing.report {
        Some(report) => (
            health_cell(report.health),
            report.sequence.to_string(),
            age(now.since_ms(report.at)),
            report.reason.as_deref(),
        ),
        None => {
            let nothing = NOTHING.to_owned();
            (Cell::new(NOTHING), nothing.clone(), nothing, Some("has not reported yet"))
        }
    };
    let reasons: Vec<&str> = [wanted_because, because].into_iter().flatten().collect();
    vec![
        Cell::new(registration.id.as_str()),
        Cell::new(registration.region.as_str()),
        Cell::new(registration.pool.as_str()),
        lifecycle_cell(standing.lifecycle()),
        health,
        Cell::new(held.map_or(NOTHING, |desired| desired.state.as_str())),
        Cell::number(sequence),
        Cell::number(age),
        Cell::new(reasons.join("; ")),
    ]
}

/// A list that lacks something says so.
fn verdict(store: &Store) -> Verdict {
    let skipped = store.counts().corrupt_items;
    if skipped == 0 {
        return Verdict::Good;
    }
    let mut err = io::stderr();
    // The exit code says it, too.
    let _ = writeln!(err, "{skipped} items could not be read:");
    for item in store.corrupt_items() {
        let text = format!("{}: {}: {}", item.table, item.key, item.reason);
        let _ = writeln!(err, "  {}", table::harmless(&text));
    }
    Verdict::Bad
}
