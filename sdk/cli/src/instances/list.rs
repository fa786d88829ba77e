//! `mrgc instances list`: a row for each registered instance.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{DesiredState, Lifecycle, PoolId, RegionId, Standing, Timestamp};
use mrgc_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    health_cell, lifecycle_cell,
    place::{Fleet, Place},
    ready_cell,
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
the report was made, by the instance's clock. READY is whether it gets requests, and REASON why not:
only a router knows, which probes it and sends them, so ask one of its region with --router; without
one it is `?`. A router shows what it read last: ask one while the store is away, too. With --json,
each line is an instance. Exit code 1: something could not be read.";

const HEADS: [&str; 10] =
    ["ID", "REGION", "POOL", "LIFECYCLE", "HEALTH", "WANTED", "REPORT", "AGE", "READY", "REASON"];
/// In place of what nobody was asked.
const UNKNOWN: &str = "?";
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

/// An instance, as the store or a router has it.
#[derive(Deserialize, Serialize)]
struct Listed {
    #[serde(flatten)]
    standing: Standing,
    /// What a router knows beyond that; empty where none was asked.
    #[serde(flatten)]
    known: Map<String, Value>,
}

impl Listed {
    fn region(&self) -> &RegionId {
        &self.standing.registration.region
    }

    /// Why it gets no requests of the router that was asked.
    fn out_because(&self) -> Option<&str> {
        self.known.get("out_because")?.as_str()
    }

    fn ready_cell(&self) -> Cell {
        match self.known.get("ready") {
            Some(ready) => ready_cell(*ready == true),
            None => Cell::new(UNKNOWN),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    lifecycle: Lifecycle,
    #[serde(flatten)]
    listed: &'a Listed,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    if let Some(url) = &args.router {
        let router = Router::at(url)?;
        let region = args.place.region();
        let draw = async || {
            let mut listed: Vec<Listed> = router.get(&["instances"]).await?;
            listed.retain(|listed| region.is_none_or(|region| listed.region() == region));
            let place = region.map_or("any region that the router knows", RegionId::as_str);
            Ok((draw(args, listed, place)?, Verdict::Good))
        };
        return args.watch.show(draw).await;
    }
    let fleet = args.place.open().await?;
    let draw = async || {
        let listed = stored(&fleet).await?;
        Ok((draw(args, listed, &fleet.names())?, verdict(&fleet.store)))
    };
    args.watch.show(draw).await
}

async fn stored(fleet: &Fleet) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for region in &fleet.regions {
        let standings = fleet.store.instances(region).await;
        let standings = standings.with_context(|| format!("cannot list {region}"))?;
        let known = |standing| Listed { standing, known: Map::new() };
        listed.extend(standings.into_iter().map(known));
    }
    Ok(listed)
}

/// `place` is where these were looked for.
fn draw(args: &Args, mut listed: Vec<Listed>, place: &str) -> Result<String> {
    let is_of = |pool: &PoolId, listed: &Listed| listed.standing.registration.pool == *pool;
    listed.retain(|listed| args.pool.as_ref().is_none_or(|pool| is_of(pool, listed)));
    if listed.is_empty() {
        let pool = args.pool.as_ref().map_or_else(String::new, |pool| format!(" of pool {pool}"));
        // A reader of standard output gets an empty list.
        let _ = writeln!(io::stderr(), "no instances{pool} in {place}");
        return Ok(String::new());
    }
    if args.json {
        let mut lines = String::new();
        for listed in &listed {
            let line = Line { lifecycle: listed.standing.lifecycle(), listed };
            lines.push_str(&serde_json::to_string(&line).context("an instance as JSON")?);
            lines.push('\n');
        }
        return Ok(lines);
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = listed.iter().map(|listed| row(listed, now)).collect();
    Ok(table::render(&HEADS, &rows))
}

fn row(listed: &Listed, now: Timestamp) -> Vec<Cell> {
    let standing = &listed.standing;
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
    // A router's words have both in them.
    let reasons: Vec<&str> = match listed.out_because() {
        Some(out) => vec![out],
        None => [wanted_because, because].into_iter().flatten().collect(),
    };
    vec![
        Cell::new(registration.id.as_str()),
        Cell::new(registration.region.as_str()),
        Cell::new(registration.pool.as_str()),
        lifecycle_cell(standing.lifecycle()),
        health,
        Cell::new(held.map_or(NOTHING, |desired| desired.state.as_str())),
        Cell::number(sequence),
        Cell::number(age),
        listed.ready_cell(),
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
