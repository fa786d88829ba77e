//! `mrgc failover simulate`.

use std::cell::Cell;

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::{
    failover::{PoolSimulation, Simulation, Target},
    model::RegionId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Verdict,
    operator::{self, OperatorArgs},
    router::Router,
    table::{self, BAD, harmless, render},
    view::ViewArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc failover simulate us-east-1
  mrgc failover simulate us-east-1 --to us-west-2 --watch
  mrgc failover simulate us-east-1 --json | jq '.pools[] | select(.shortfall > 0)'

MOVES is how many requests are under way there at once, SPARE what fits elsewhere before other
regions' requests are refused. REFUSED is what would fit nowhere, of ordinary priority. Nothing is
changed; that somebody asked is in the audit trail. Exit code 1: some requests would be refused, or
a failover would have to be forced.";

const HEADS: [&str; 6] = ["POOL", "MOVES", "TO", "PART", "SPARE", "REFUSED"];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The region that would fail over, as in us-east-1
    #[arg(value_name = "REGION", value_parser = NonEmptyStringValueParser::new().map(RegionId::from))]
    region: RegionId,
    /// The region that would take its traffic first
    #[arg(long, value_name = "REGION", value_parser = NonEmptyStringValueParser::new().map(RegionId::from))]
    to: Option<RegionId>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    view: ViewArgs,
}

#[derive(Debug, Deserialize)]
struct Simulated {
    #[serde(flatten)]
    simulation: Simulation,
    refused: Option<String>,
}

pub(super) async fn run(args: &Args) -> Result<Verdict> {
    let question = json!({"region": args.region, "to_region": args.to});
    let reason = args.reason.as_deref().map(operator::reason).transpose()?;
    // Recorded once, however often it is drawn.
    let signature = Cell::new(Some((args.operator.name()?, reason)));
    let draw = async |router: &Router| {
        let mut body = question.clone();
        if let Some((operator, reason)) = signature.take() {
            (body["operator"], body["reason"]) = (operator.into(), reason.into());
        }
        let answer: Value = router.post(&["failover", "simulate"], &body).await?;
        let simulated: Simulated =
            serde_json::from_value(answer.clone()).context("cannot read the router's answer")?;
        let text = if args.view.json { format!("{answer}\n") } else { as_text(&simulated) };
        Ok((text, verdict(&simulated)))
    };
    args.view.show(draw).await
}

fn verdict(simulated: &Simulated) -> Verdict {
    let is_short = |pool: &PoolSimulation| pool.shortfall.is_some_and(|shortfall| shortfall > 0);
    if simulated.refused.is_some() || simulated.simulation.pools.iter().any(is_short) {
        Verdict::Bad
    } else {
        Verdict::Good
    }
}

fn as_text(simulated: &Simulated) -> String {
    let Simulation { region, pools } = &simulated.simulation;
    let mut text = if pools.is_empty() {
        format!("{region} has no instances: nothing would move\n")
    } else {
        let rows: Vec<_> = pools.iter().flat_map(rows).collect();
        render(&HEADS, &rows)
    };
    if let Some(refused) = &simulated.refused {
        text.push_str(&format!("\nIt would be refused: {}\n", harmless(refused)));
    }
    text
}

/// One for each region that would take a part, and one for a pool that nobody would take.
fn rows(pool: &PoolSimulation) -> Vec<Vec<table::Cell>> {
    let number = |number: Option<u32>| number.map_or("unknown".to_owned(), |n| n.to_string());
    let refused = match pool.shortfall {
        Some(0) => table::Cell::number("0"),
        Some(shortfall) => table::Cell::styled(shortfall.to_string(), BAD),
        None => table::Cell::number("unknown"),
    };
    let head = [table::Cell::new(pool.pool.as_str()), table::Cell::number(number(pool.moved))];
    if pool.to.is_empty() {
        let nobody = [
            table::Cell::new("nobody"),
            table::Cell::number("-"),
            table::Cell::number("-"),
            refused,
        ];
        return vec![head.into_iter().chain(nobody).collect()];
    }
    let row = |(i, target): (usize, &Target)| {
        let blank = || table::Cell::new("");
        let [pool, moved] = if i == 0 { head.clone() } else { [blank(), table::Cell::number("")] };
        let refused = if i == 0 { refused.clone() } else { table::Cell::number("") };
        vec![
            pool,
            moved,
            table::Cell::new(target.region.as_str()),
            table::Cell::number(format!("{:.0} %", 100.0 * target.share)),
            table::Cell::number(number(target.spare)),
            refused,
        ]
    };
    pool.to.iter().enumerate().map(row).collect()
}
