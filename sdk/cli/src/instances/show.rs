//! `mrgc instances show`: one instance, with all that the state has of it.

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{CleanupValidation, InstanceId, Standing, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::place::{Known, Place};
use crate::{
    Verdict,
    clock::{age, now},
    table::{self, BAD, Cell, GOOD},
};

const EXAMPLES: &str = "\
Examples:
  mrgc instances show i-1234567890abcdef0
  mrgc instances show i-1234567890abcdef0 --json | jq .desired

What it registered, what it last reported, what is wanted of it, and its last cleanups. An instance
that is not registered is shown while somebody wants it out of service.";

/// Cleanups that are shown.
const LAST_CLEANUPS: usize = 5;
/// What the headings say already.
const IN_HEADINGS: [&str; 5] = ["id", "instance", "region", "at", "registered_at"];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The instance's id, as in i-1234567890abcdef0
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new().map(InstanceId::from))]
    id: InstanceId,
    #[command(flatten)]
    place: Place,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let fleet = args.place.open().await?;
    let known = fleet.find(&args.id).await?;
    let cleanups = fleet.store.cleanups(&args.id, LAST_CLEANUPS).await;
    let cleanups = cleanups.context("cannot read its cleanups")?;
    let text = if args.json {
        format!("{:#}\n", as_json(&known, &cleanups))
    } else {
        as_text(&known, &cleanups, now()).context("cannot show it")?
    };
    table::say(&text)?;
    Ok(Verdict::Good)
}

fn as_json(known: &Known, cleanups: &[CleanupValidation]) -> Value {
    let standing = known.standing.as_ref();
    json!({
        "id": known.id,
        "region": known.region,
        "lifecycle": standing.map(Standing::lifecycle),
        "registration": standing.map(|standing| &standing.registration),
        "report": standing.and_then(|standing| standing.report.as_ref()),
        "desired": known.desired,
        "cleanups": cleanups,
    })
}

fn as_text(known: &Known, cleanups: &[CleanupValidation], now: Timestamp) -> Result<String> {
    let Known { id, region, standing, desired } = known;
    let since = |at: Timestamp| format!("{} ago", age(now.since_ms(at)));
    let mut parts = Vec::new();
    match standing {
        Some(standing) => {
            let Standing { registration, report, .. } = standing;
            parts.push(format!("{id} in {region} is {}\n", standing.lifecycle()));
            parts.push(section("REGISTERED", &since(registration.registered_at), registration)?);
            parts.push(match report {
                Some(report) => section("REPORTED", &since(report.at), report)?,
                None => "It has not reported yet.\n".to_owned(),
            });
        }
        None => parts.push(format!("{id} in {region} is not registered\n")),
    }
    parts.push(match desired {
        Some(desired) => section("WANTED", &since(desired.at), desired)?,
        None => "Nothing is wanted of it.\n".to_owned(),
    });
    parts.push(if cleanups.is_empty() {
        "No cleanup of it is recorded.\n".to_owned()
    } else {
        let rows: Vec<_> =
            cleanups.iter().map(|cleanup| cleanup_row(cleanup, since(cleanup.at))).collect();
        table::render(&["CLEANED", "GENERATION", "SEQUENCE", "VERDICT", "FOUND"], &rows)
    });
    Ok(parts.join("\n"))
}

/// A record's fields by name, under its name and how old it is.
fn section(name: &str, age: &str, record: &impl Serialize) -> Result<String> {
    let Value::Object(fields) = serde_json::to_value(record)? else {
        anyhow::bail!("a record that is no object");
    };
    let rows: Vec<Vec<Cell>> = fields
        .into_iter()
        .filter(|(name, _)| !IN_HEADINGS.contains(&name.as_str()))
        .map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            vec![Cell::new(name), Cell::new(text)]
        })
        .collect();
    Ok(table::render(&[name, age], &rows))
}

fn cleanup_row(cleanup: &CleanupValidation, when: String) -> Vec<Cell> {
    let failures: Vec<String> = cleanup
        .failures()
        .map(|check| match &check.detail {
            Some(detail) => format!("{}: {detail}", check.kind.as_str()),
            None => check.kind.as_str().to_owned(),
        })
        .collect();
    let (verdict, style) = if cleanup.passed { ("passed", GOOD) } else { ("failed", BAD) };
    vec![
        Cell::new(when),
        Cell::number(cleanup.generation.to_string()),
        Cell::number(cleanup.sequence.to_string()),
        Cell::styled(verdict, style),
        Cell::new(failures.join("; ")),
    ]
}
