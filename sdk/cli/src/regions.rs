//! `mrgc regions`: a row for each registered region.

use std::io::{self, Write};

use anyhow::{Context, Result};
use mrgc_fleet::{
    failover::RegionStatus,
    model::{Region, RegionId},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Verdict,
    failover::{Overview, keeps, state_cell},
    router::Router,
    table::{Cell, render},
    view::ViewArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc regions
  mrgc regions --watch 5
  mrgc regions --json | jq -r 'select(.failover.state != \"normal\") | .region_id'

As the router that is asked sees them. KEEPS is the share of its own traffic that a region keeps,
READY how many of its instances take requests, of all that are there, USED how much of its slots is
in use, and RTT the round trip to its routers. With --json, each line is a region.";

const HEADS: [&str; 8] = ["REGION", "NAME", "STATE", "KEEPS", "READY", "USED", "RTT", "ENDPOINT"];
const NOTHING: &str = "-";
/// In place of a table without rows.
pub(crate) const NO_REGION: &str = "no region is registered: list them as [[regions]] in the \
    router's configuration, or post them to its /regions";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    view: ViewArgs,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(flatten)]
    region: Region,
    instances: u32,
    ready_instances: u32,
    capacity_utilization: Option<f64>,
    rtt_ms: Option<f64>,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let draw = async |router: &Router| {
        let regions: Vec<Value> = router.get(&["regions"]).await?;
        if regions.is_empty() {
            // A reader of standard output gets an empty list.
            let _ = writeln!(io::stderr(), "{NO_REGION}");
            return Ok((String::new(), Verdict::Good));
        }
        let overview: Overview = router.get(&["failover"]).await?;
        let text =
            if args.view.json { lines(regions, &overview)? } else { as_table(regions, &overview)? };
        Ok((text, Verdict::Good))
    };
    args.view.show(draw).await
}

/// The ids of all regions that a router knows.
pub(crate) async fn names(router: &Router) -> Result<Vec<RegionId>> {
    let regions: Vec<Listed> = router.get(&["regions"]).await?;
    Ok(regions.into_iter().map(|listed| listed.region.id).collect())
}

fn lines(regions: Vec<Value>, overview: &Overview) -> Result<String> {
    let mut lines = String::new();
    for mut region in regions {
        let id = RegionId::from(region["region_id"].as_str().unwrap_or_default());
        let status = serde_json::to_value(overview.status(&id)).context("a region as JSON")?;
        region["failover"] = status;
        lines.push_str(&format!("{region}\n"));
    }
    Ok(lines)
}

fn as_table(regions: Vec<Value>, overview: &Overview) -> Result<String> {
    let row = |region: Value| {
        let listed: Listed =
            serde_json::from_value(region).context("cannot read the router's answer")?;
        let status = overview.status(&listed.region.id);
        Ok(row(&listed, status))
    };
    let rows = regions.into_iter().map(row).collect::<Result<Vec<_>>>()?;
    Ok(render(&HEADS, &rows))
}

fn row(listed: &Listed, status: Option<&RegionStatus>) -> Vec<Cell> {
    let Listed { region, instances, ready_instances, capacity_utilization, rtt_ms } = listed;
    let or_nothing = |text: Option<String>| Cell::number(text.unwrap_or(NOTHING.to_owned()));
    vec![
        Cell::new(region.id.as_str()),
        Cell::new(region.name.as_str()),
        status.map_or(Cell::new(NOTHING), |status| state_cell(status.state)),
        or_nothing(status.map(|status| keeps(status.share))),
        Cell::number(format!("{ready_instances} of {instances}")),
        or_nothing(capacity_utilization.map(|percent| format!("{percent:.0} %"))),
        or_nothing(rtt_ms.map(|ms| format!("{ms:.1} ms"))),
        Cell::new(region.endpoint.as_str()),
    ]
}
