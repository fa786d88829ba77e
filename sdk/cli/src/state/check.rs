//! `mrgc state check`: the live tables beside what the programs need.

use anyhow::Result;
use mrgc_store::{Difference, Inspection};
use serde_json::{Value, json};

use crate::{
    Verdict,
    store::StoreArgs,
    table::{self, BAD, Cell, DOUBTFUL, GOOD},
};

const EXAMPLES: &str = "\
Examples:
  mrgc state check --aws-region us-west-2
  mrgc state check --config /etc/mrgc/router.toml
  mrgc state check --json | jq '.tables[] | select(.ok | not)'

It changes nothing. Exit code 0: the tables are as they must be; 1: they differ, or could not
be looked at.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Tell the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let inspections = args.store.connect().await?.inspect().await?;
    let verdict = verdict(&inspections);
    if args.json {
        let tables: Vec<Value> = inspections.iter().map(as_json).collect();
        table::say(&format!("{:#}\n", json!({"ok": verdict == Verdict::Good, "tables": tables})))?;
        return Ok(verdict);
    }
    let rows: Vec<Vec<Cell>> = inspections
        .iter()
        .flat_map(|inspection| {
            let items = inspection.items.map_or_else(|| "-".to_owned(), |n| n.to_string());
            rows(inspection, &items)
        })
        .collect();
    table::say(&table::render(&["TABLE", "ITEMS", "STATE", "WHAT TO DO"], &rows))?;
    Ok(verdict)
}

pub(super) fn verdict(inspections: &[Inspection]) -> Verdict {
    let good = inspections.iter().all(|inspection| inspection.differences.is_empty());
    if good { Verdict::Good } else { Verdict::Bad }
}

/// One row for each difference of a table, or one that says that there is none. `second` is the second
/// column of the first.
pub(super) fn rows(inspection: &Inspection, second: &str) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Vec<Cell>> = inspection
        .differences
        .iter()
        .map(|difference| {
            let style = if difference.is_fatal() { BAD } else { DOUBTFUL };
            let state = Cell::styled(difference.to_string(), style);
            vec![Cell::new(""), Cell::new(""), state, Cell::new(difference.advice())]
        })
        .collect();
    if rows.is_empty() {
        let mut state = "ok".to_owned();
        if !inspection.unknown.is_empty() {
            state.push_str(&format!(" (unknown: {})", inspection.unknown.join(", ")));
        }
        rows.push(vec![Cell::new(""), Cell::new(""), Cell::styled(state, GOOD), Cell::new("")]);
    }
    rows[0][0] = Cell::new(&inspection.table);
    rows[0][1] = Cell::new(second);
    rows
}

pub(super) fn as_json(inspection: &Inspection) -> Value {
    let differences: Vec<Value> = inspection
        .differences
        .iter()
        .map(|difference| {
            json!({
                "kind": kind(difference),
                "message": difference.to_string(),
                "advice": difference.advice(),
                "fatal": difference.is_fatal(),
            })
        })
        .collect();
    json!({
        "table": inspection.table,
        "ok": inspection.differences.is_empty(),
        "differences": differences,
        "unknown": inspection.unknown,
        "items": inspection.items,
    })
}

fn kind(difference: &Difference) -> &'static str {
    match difference {
        Difference::Missing => "missing",
        Difference::NotReady { .. } => "not_ready",
        Difference::Key { .. } => "key",
        Difference::TimeToLive { .. } => "time_to_live",
        Difference::Billing { .. } => "billing",
    }
}
