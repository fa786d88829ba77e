//! `mrgc failover history`: what happened, and what was ordered, as one timeline.

use anyhow::{Context, Result};
use mrgc_fleet::{
    failover::{Cause, FailoverEvent},
    model::{AuditRecord, Timestamp},
};
use serde::Deserialize;
use serde_json::Value;

use super::answer::names;
use crate::{
    Verdict,
    clock::{age, instant},
    router::RouterArgs,
    table::{BAD, Cell, GOOD, PLAIN, render},
    watch::WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc failover history
  mrgc failover history --days 400 --limit 1000
  mrgc failover history --json | jq '.events[] | select(.duration_ms > 1000)'

The last line is the latest. TOOK is how long the traffic took to move, from the first sign of the
failure or from the order; of its return, how long it was away. Failovers and orders are kept for
400 days. While the store is away it is what the router has seen since it started, without orders.";

const HEADS: [&str; 5] = ["TIME", "REGION", "WHAT", "TOOK", "WHY"];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    router: RouterArgs,
    /// How many failovers, and orders, at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// How far back
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=400))]
    days: u32,
    #[command(flatten)]
    watch: WatchArgs,
    /// Tell it as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct History {
    source: String,
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
    why: String,
}

pub(super) async fn run(args: &Args) -> Result<Verdict> {
    let router = args.router.open()?;
    let query = [("limit", args.limit), ("days", args.days)];
    let draw = async || {
        let answer: Value = router.query(&["failover", "history"], &query).await?;
        let text = if args.json {
            format!("{answer}\n")
        } else {
            as_text(serde_json::from_value(answer).context("cannot read the router's answer")?)
        };
        Ok((text, Verdict::Good))
    };
    args.watch.show(draw).await
}

fn as_text(history: History) -> String {
    let is_whole = history.source == "store";
    let mut moments: Vec<_> = history.events.iter().flat_map(of_event).collect();
    moments.extend(history.orders.iter().flatten().map(of_order));
    // Where an order and what follows have the same millisecond, the order was first.
    moments.sort_by_key(|moment| (moment.at, moment.took.len()));
    let rows: Vec<_> = moments.into_iter().map(row).collect();
    let mut text = match rows.is_empty() {
        true => "there was no failover and no order\n".to_owned(),
        false => render(&HEADS, &rows),
    };
    if !is_whole {
        text.push_str("\nThe store is away: this is what the router has seen since it started.\n");
    }
    text
}

fn of_event(event: &FailoverEvent) -> Vec<Moment> {
    let how = match event.cause {
        Cause::Automatic => "failed over to",
        Cause::Manual => "failed over, as ordered, to",
    };
    let began = Moment {
        at: event.at,
        region: event.from.to_string(),
        what: Cell::styled(format!("{how} {}", names(&event.to)), BAD),
        took: event.duration_ms.map_or("under way".to_owned(), |ms| format!("{ms} ms")),
        why: event.reason.clone().unwrap_or_default(),
    };
    let ended = event.ended_at.map(|at| Moment {
        at,
        region: event.from.to_string(),
        what: Cell::styled("has its traffic back", GOOD),
        took: age(at.since_ms(event.at)),
        why: String::new(),
    });
    [began].into_iter().chain(ended).collect()
}

/// Subjects are as in `region us-east-1 to us-west-2, graceful`.
fn of_order(record: &AuditRecord) -> Moment {
    let subject = record.subject.strip_prefix("region ").unwrap_or(&record.subject);
    let end = subject.find([' ', ',']).unwrap_or(subject.len());
    let (region, rest) = subject.split_at(end);
    let what = format!("{}{rest}: ordered by {}", record.action, record.operator);
    Moment {
        at: record.at,
        region: region.to_owned(),
        what: Cell::styled(what, PLAIN),
        took: String::new(),
        why: record.reason.clone().unwrap_or_default(),
    }
}

fn row(moment: Moment) -> Vec<Cell> {
    let Moment { at, region, what, took, why } = moment;
    vec![Cell::new(instant(at)), Cell::new(region), what, Cell::number(took), Cell::new(why)]
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
        let under_way = FailoverEvent {
            at: Timestamp(200_000),
            ended_at: None,
            duration_ms: None,
            to: Vec::new(),
            cause: Cause::Automatic,
            ..event.clone()
        };
        let history = History {
            source: "router".to_owned(),
            events: vec![under_way, event],
            orders: Some(orders),
        };
        let plain = anstream::adapter::strip_str(&as_text(history)).to_string();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = plain.lines().skip(1).take(5).map(words).collect();
        let at = ["00:00:01Z", "00:00:01Z", "00:01:00Z", "00:03:01Z", "00:03:20Z"];
        let whats = [
            "failover to us-west-2, graceful: ordered by ada",
            "failed over, as ordered, to us-west-2, eu-west-1 2500 ms maintenance",
            "recover: ordered by ada",
            "has its traffic back 3 min",
            "failed over to - under way maintenance",
        ];
        assert_eq!(lines.len(), whats.len(), "{plain}");
        for ((line, at), what) in lines.iter().zip(at).zip(whats) {
            assert_eq!(*line, format!("1970-01-01 {at} us-east-1 {what}"), "{plain}");
        }
        assert!(plain.ends_with("since it started.\n"), "{plain}");
    }
}
