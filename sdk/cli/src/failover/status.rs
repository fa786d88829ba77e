//! `mrgc failover status`.

use std::fmt::Write as _;

use anyhow::Result;
use mrgc_fleet::{
    failover::{RegionState, RegionStatus},
    model::Timestamp,
};

use super::answer::{Overview, describe, healthy, keeps, names, state_cell};
use crate::{
    Verdict,
    clock::{age, now},
    regions::NO_REGION,
    router::Router,
    table::{Cell, harmless, render},
    view::ViewArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc failover status
  mrgc failover status --watch
  mrgc failover status --router http://10.66.0.10:9000 --json | jq '.regions[] | {region, state}'

KEEPS is the share of its own traffic that a region keeps; the rest goes to other regions. HEALTHY
counts the instances that take requests among those whose drain is not planned. WHY is what holds
the region where it is by now, and when more traffic comes back if that stays so. A failover is late
that took longer than the router's failover_timeout_seconds. Each router judges for itself: this is
how the one that is asked sees it.";

const HEADS: [&str; 7] = ["REGION", "STATE", "KEEPS", "HEALTHY", "SINCE", "ORDER", "WHY"];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    view: ViewArgs,
}

pub(super) async fn run(args: &Args) -> Result<Verdict> {
    let draw = async |router: &Router| {
        let text = if args.view.json {
            format!("{}\n", router.get::<serde_json::Value>(&["failover"]).await?)
        } else {
            as_text(&router.get(&["failover"]).await?, now())
        };
        Ok((text, Verdict::Good))
    };
    args.view.show(draw).await
}

fn as_text(overview: &Overview, now: Timestamp) -> String {
    let Overview { region, router, lease_holder, summary, regions, unstored_orders, .. } = overview;
    let mut text = harmless(&format!(
        "{region} is {}; traffic goes to {}",
        summary.current_state,
        names(&summary.routing_preference)
    ));
    let failovers = match (summary.total_failovers, summary.average_duration_ms) {
        (0, _) => "no failover so far".to_owned(),
        (n, Some(ms)) => format!("failovers: {n}, {ms:.0} ms to move the traffic on average"),
        (n, None) => format!("failovers: {n}"),
    };
    let late = match summary.late_failovers {
        0 => String::new(),
        n => format!(", {n} late"),
    };
    let holder = match lease_holder {
        Some(holder) if holder == router => "this router writes the region's state".to_owned(),
        Some(holder) => format!("{holder} writes the region's state"),
        None => "no router is known to write the region's state".to_owned(),
    };
    // Writing to a string does not fail.
    let _ = write!(text, "\n{failovers}{late}; {}\n", harmless(&holder));
    if *unstored_orders > 0 {
        let _ = writeln!(
            text,
            "orders that hold on this router only, until the store is back: {unstored_orders}"
        );
    }
    let rows: Vec<_> = regions.iter().map(|status| row(status, now)).collect();
    text.push('\n');
    text.push_str(&match rows.is_empty() {
        true => format!("{NO_REGION}\n"),
        false => render(&HEADS, &rows),
    });
    text
}

fn row(status: &RegionStatus, now: Timestamp) -> Vec<Cell> {
    vec![
        Cell::new(status.region.as_str()),
        state_cell(status.state),
        Cell::number(keeps(status.share)),
        Cell::number(healthy(status)),
        Cell::number(age(now.since_ms(status.since))),
        Cell::new(status.order.as_ref().map_or("-".to_owned(), describe)),
        Cell::new(why(status, now)),
    ]
}

/// As in `9 of 10 instances take requests; back to 60 % in 12 s`; a dash where all is as it should be.
fn why(status: &RegionStatus, now: Timestamp) -> String {
    let is_normal = status.state == RegionState::Normal && status.order.is_none();
    let reason = status.reason.as_deref().filter(|_| !is_normal).unwrap_or("-");
    match &status.next {
        Some(next) => {
            let (share, due) = (keeps(next.share), age(next.at.since_ms(now)));
            format!("{reason}; back to {share} in {due}")
        }
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mrgc_fleet::failover::{Evidence, NextStep, RegionOrder, Strategy, Summary, Wish};

    use super::*;

    #[test]
    fn a_status_says_what_an_operator_asks_first() {
        let order = RegionOrder {
            region: "us-east-1".into(),
            wish: Wish::FailOver { to: Some("us-west-2".into()), strategy: Strategy::Graceful },
            reason: Some("ticket\u{7} 4711".to_owned()),
            operator: Some("ada".to_owned()),
            at: Timestamp(0),
            writer_region: "us-east-1".into(),
            stamp: Default::default(),
        };
        let status = |region: &str, state, share, reachable, order| RegionStatus {
            region: region.into(),
            state,
            share,
            since: Timestamp(60_000),
            evidence: Some(Evidence { healthy: 8, all: 10, reachable }),
            reason: (state == RegionState::Degraded).then(|| "8 of 10".to_owned()),
            next: (state == RegionState::Degraded)
                .then_some(NextStep { at: Timestamp(192_900), share: 0.95 }),
            order,
        };
        let overview = Overview {
            region: "us-west-2".into(),
            router: "us-west-2-00000001".to_owned(),
            lease_holder: Some("us-west-2-00000002".to_owned()),
            summary: Summary {
                current_state: RegionState::Normal,
                routing_preference: vec!["us-west-2".into()],
                total_failovers: 2,
                average_duration_ms: Some(149.6),
                late_failovers: 1,
            },
            regions: vec![
                status("us-east-1", RegionState::FailoverActive, 0.0, true, Some(order)),
                status("us-west-2", RegionState::Degraded, 0.7, true, None),
                status("eu-west-1", RegionState::FailoverActive, 0.0, false, None),
            ],
            events: Vec::new(),
            unstored_orders: 1,
        };
        let nobody = Overview { regions: Vec::new(), ..overview.clone() };
        assert!(as_text(&nobody, Timestamp(0)).ends_with(&format!("\n\n{NO_REGION}\n")));
        let text = as_text(&overview, Timestamp(180_000));
        let plain = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0], "us-west-2 is NORMAL; traffic goes to us-west-2");
        assert_eq!(
            lines[1],
            "failovers: 2, 150 ms to move the traffic on average, 1 late; us-west-2-00000002 writes \
             the region's state"
        );
        assert!(lines[2].ends_with("until the store is back: 1"), "{plain}");
        let ordered = "failed over to us-west-2 gracefully by ada (ticket\u{fffd} 4711)";
        for (line, parts) in [
            (lines[5], ["FAILOVER_ACTIVE", "0 %", "8 of 10", "2 min", ordered]),
            (lines[6], ["DEGRADED", "70 %", "8 of 10", "2 min", "8 of 10; back to 95 % in 12 s"]),
            (lines[7], ["FAILOVER_ACTIVE", "0 %", "unreachable", "2 min", "-"]),
        ] {
            for part in parts {
                assert!(line.contains(part), "{part:?} is not in {line:?}");
            }
        }
    }
}
