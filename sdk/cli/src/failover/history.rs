//! `mrgc failover history`: what happened, and what was ordered, as one timeline.

mod sightings;

use anyhow::{Context, Result};
use mrgc_fleet::{
    failover::{Cause, FailoverEvent},
    model::{AuditRecord, Timestamp},
};
use serde::Deserialize;
use serde_json::Value;

use self::sightings::{Sightings, merged};
use super::answer::names;
use crate::{
    Verdict,
    clock::{age, instant},
    router::Router,
    table::{BAD, Cell, GOOD, PLAIN, harmless, render},
    view::ViewArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc failover history
  mrgc failover history --days 400 --limit 1000
  mrgc failover history --json | jq '.events[] | select(.duration_ms > 1000)'

The last line is the latest. TOOK is how long the traffic took to move, from the first sign of the
failure or from the order; of its return, how long it was away. Each region judges the others for
itself: SEEN BY is who saw it, or how many did, and TOOK is then the slowest's. --all has a line for
each of them, --json each one's record. Failovers and orders are kept for 400 days. Where the store
cannot be read, or the router has none, it is what that has seen since it started, without orders.";

const HEADS: [&str; 6] = ["TIME", "REGION", "WHAT", "TOOK", "SEEN BY", "WHY"];
/// That a router gives at once. A failover has as many as there are regions that saw it.
const MAX_RECORDS: u32 = 1_000;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show each region's record of a failover, and not one line for all of them
    #[arg(long)]
    all: bool,
    /// How many failovers, and orders, at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// How far back
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
    #[command(flatten)]
    view: ViewArgs,
}

#[derive(Debug, Deserialize)]
struct History {
    source: String,
    not_from_store_because: Option<String>,
    events: Vec<FailoverEvent>,
    orders: Option<Vec<AuditRecord>>,
}

/// A line of the timeline.
#[derive(Debug)]
struct Moment {
    at: Timestamp,
    region: String,
    what: Cell,
    took: String,
    seen_by: String,
    why: String,
}

pub(super) async fn run(args: &Args) -> Result<Verdict> {
    let is_merged = !args.all && !args.view.json;
    let limit = if is_merged { MAX_RECORDS } else { args.limit };
    let query = [("limit", limit), ("days", args.days)];
    let draw = async |router: &Router| {
        let answer: Value = router.query(&["failover", "history"], &query).await?;
        let text = if args.view.json {
            format!("{answer}\n")
        } else {
            let history =
                serde_json::from_value(answer).context("cannot read the router's answer")?;
            as_text(history, args.all, args.limit as usize)
        };
        Ok((text, Verdict::Good))
    };
    args.view.show(draw).await
}

/// With the latest failovers and orders, `limit` of each at most.
fn as_text(history: History, all: bool, limit: usize) -> String {
    let History { source, not_from_store_because, events, orders } = history;
    let failovers: Vec<Sightings> = match all {
        true => events.into_iter().rev().map(Sightings::from).collect(),
        false => merged(events),
    };
    let mut moments: Vec<_> = failovers.iter().rev().take(limit).flat_map(of_failover).collect();
    moments.extend(orders.iter().flatten().take(limit).map(of_order));
    // Where an order and what follows have the same millisecond, the order was first.
    moments.sort_by_key(|moment| (moment.at, moment.took.len()));
    let rows: Vec<_> = moments.into_iter().map(row).collect();
    let mut text = match rows.is_empty() {
        true => "there was no failover and no order\n".to_owned(),
        false => render(&HEADS, &rows),
    };
    if source != "store" {
        let why = not_from_store_because.map(|why| format!(": {why}")).unwrap_or_default();
        let note = format!("This is what the router has seen since it started{why}.");
        text.push_str(&format!("\n{}\n", harmless(&note)));
    }
    text
}

fn of_failover(failover: &Sightings) -> Vec<Moment> {
    let event = failover.first();
    let how = match event.cause {
        Cause::Automatic => "failed over",
        Cause::Manual => "failed over, as ordered,",
    };
    let what = match event.to.is_empty() {
        true => format!("{how} to nobody"),
        false => format!("{how} to {}", names(&event.to)),
    };
    let began = Moment {
        at: event.at,
        region: event.from.to_string(),
        what: Cell::styled(what, BAD),
        took: failover.duration_ms().map_or("under way".to_owned(), |ms| format!("{ms} ms")),
        seen_by: failover.seen_by(),
        why: event.reason.clone().unwrap_or_default(),
    };
    let ended = failover.ended_at().map(|at| Moment {
        at,
        region: event.from.to_string(),
        what: Cell::styled("has its traffic back", GOOD),
        took: age(at.since_ms(event.at)),
        seen_by: failover.end_seen_by(),
        why: String::new(),
    });
    [began].into_iter().chain(ended).collect()
}

/// Subjects are as in `region us-east-1 to us-west-2, graceful`.
fn of_order(record: &AuditRecord) -> Moment {
    let subject = record.subject.strip_prefix("region ").unwrap_or(&record.subject);
    let end = subject.find([' ', ',']).unwrap_or(subject.len());
    let (region, rest) = subject.split_at(end);
    // Who simulates changes nothing.
    let verb = if record.action == "simulate" { "asked" } else { "ordered" };
    let what = format!("{}{rest}: {verb} by {}", record.action, record.operator);
    Moment {
        at: record.at,
        region: region.to_owned(),
        what: Cell::styled(what, PLAIN),
        took: String::new(),
        seen_by: String::new(),
        why: record.reason.clone().unwrap_or_default(),
    }
}

fn row(moment: Moment) -> Vec<Cell> {
    let Moment { at, region, what, took, seen_by, why } = moment;
    let (at, took) = (Cell::new(instant(at)), Cell::number(took));
    vec![at, Cell::new(region), what, took, Cell::new(seen_by), Cell::new(why)]
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::failover::Strategy;

    use super::*;

    #[test]
    fn a_timeline_runs_from_the_order_to_the_return() {
        let event = FailoverEvent {
            id: "1".to_owned(),
            from: "us-east-1".into(),
            to: vec!["us-west-2".into(), "eu-west-1".into()],
            at: Timestamp(1_000),
            ended_at: Some(Timestamp(181_000)),
            duration_ms: Some(2_500),
            cause: Cause::Manual,
            strategy: Strategy::Graceful,
            reason: Some("maintenance".to_owned()),
            operator: Some("ada".to_owned()),
            writer_region: "us-west-2".into(),
        };
        let order = |ms, action: &str, subject: &str| AuditRecord {
            at: Timestamp(ms),
            id: "0".to_owned(),
            operator: "ada".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            reason: None,
            expires_at: 0,
        };
        let orders = vec![
            order(60_000, "recover", "region us-east-1"),
            order(1_000, "failover", "region us-east-1 to us-west-2, graceful"),
        ];
        let seen_elsewhere = FailoverEvent {
            id: "2".to_owned(),
            at: Timestamp(1_400),
            ended_at: None,
            duration_ms: Some(1_900),
            writer_region: "eu-west-1".into(),
            ..event.clone()
        };
        let under_way = FailoverEvent {
            at: Timestamp(200_000),
            ended_at: None,
            duration_ms: None,
            to: Vec::new(),
            cause: Cause::Automatic,
            ..event.clone()
        };
        let history = || History {
            source: "router".to_owned(),
            not_from_store_because: Some("this router has no store".to_owned()),
            events: vec![under_way.clone(), seen_elsewhere.clone(), event.clone()],
            orders: Some(orders.clone()),
        };
        let shown = |all, limit| {
            let text = as_text(history(), all, limit);
            anstream::adapter::strip_str(&text).to_string()
        };
        let plain = shown(false, 50);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = plain.lines().skip(1).take(5).map(words).collect();
        let at = ["00:00:01Z", "00:00:01Z", "00:01:00Z", "00:03:01Z", "00:03:20Z"];
        let whats = [
            "failover to us-west-2, graceful: ordered by ada",
            "failed over, as ordered, to us-west-2, eu-west-1 2500 ms 2 regions maintenance",
            "recover: ordered by ada",
            "has its traffic back 3 min 1 of 2 regions",
            "failed over to nobody under way us-west-2 maintenance",
        ];
        assert_eq!(lines.len(), whats.len(), "{plain}");
        for ((line, at), what) in lines.iter().zip(at).zip(whats) {
            assert_eq!(*line, format!("1970-01-01 {at} us-east-1 {what}"), "{plain}");
        }
        assert!(plain.ends_with("since it started: this router has no store.\n"), "{plain}");
        let count = |text: &str, what| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count(&shown(true, 50), "failed over"), 3);
        assert_eq!(count(&shown(true, 50), "1900 ms  eu-west-1"), 1);
        assert_eq!(count(&shown(false, 1), "failed over"), 1, "the latest alone");
        assert_eq!(count(&shown(false, 1), "ordered by"), 1);
    }
}
