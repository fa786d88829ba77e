//! `mrgc state cost`: what heartbeats and routers' polls cost a month.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use mrgc_fleet::lease::RENEW_SHARE;
use mrgc_store::{FollowerConfig, SHARDS_FRESH, look_interval, typical_item_sizes};
use serde_json::json;

use super::estimate::{Estimate, PriceList, Workload, estimate};
use crate::{
    Usage, Verdict,
    table::{self, Cell},
};

const EXAMPLES: &str = "\
Examples:
  mrgc state cost
  mrgc state cost --instances 1000 --interval 10 --mode adaptive
  mrgc state cost --replicas 1 --routers 2 --poll 5 --json

Without arguments: 100, 1,000 and 10,000 instances, heartbeats every 5, 10 and 30 s, fixed and
adaptive.";

/// Of adaptive heartbeats, the share of intervals in which something is written: 124 to 139 of 360 in an hour
/// of steady load, as the agent's tests of its pace count them.
const ADAPTIVE_SHARE: f64 = 0.36;
/// The longest silence between adaptive heartbeats, in intervals, where `heartbeat.max_interval_seconds` is not
/// configured.
const SILENT_INTERVALS: f64 = 3.0;
/// Between two records of a region, as the router's monitor writes them where nothing changes.
const RECORD_SECONDS: f64 = 5.0;
/// The time to live of a router's leases, where `failover.lease_seconds` is not configured.
const LEASE_SECONDS: f64 = 10.0;
/// Partitions that a region of 10,000 instances wants.
const PARTITIONS: u64 = 16;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Instances of the whole fleet
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [100, 1_000, 10_000], value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    instances: Vec<u64>,
    /// Seconds between two heartbeats
    #[arg(long, value_name = "SECONDS", value_delimiter = ',', default_values_t = [5.0, 10.0, 30.0], value_parser = positive)]
    interval: Vec<f64>,
    /// Whether each heartbeat is written, or those that say something new; without it, both
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// The region whose prices apply
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Regions that hold the tables
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    replicas: u64,
    /// Routers of all regions together
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    routers: u64,
    /// Seconds between two looks of a router at a small fleet's tables; at a large fleet's, up to 4 times that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = positive)]
    poll: f64,
    /// Of adaptive heartbeats, the share that is written
    #[arg(long, value_name = "SHARE", default_value_t = ADAPTIVE_SHARE, value_parser = share)]
    adaptive_share: f64,
    /// Tell the result as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Tell the result as a Markdown table
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Fixed,
    Adaptive,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Adaptive => "adaptive",
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be between 0 and 1".to_owned()),
    }
}

struct Row {
    mode: Mode,
    workload: Workload,
    month: Estimate,
}

pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let list = PriceList::built_in()?;
    let rows = rows(args, &list)?;
    let text = if args.json {
        as_json(args, &list, &rows)
    } else if args.markdown {
        as_markdown(&rows) + &footnote(args, &list, &rows)
    } else {
        let cells: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| {
                let [instances, interval, mode, numbers @ ..] = columns(row);
                let start = [Cell::number(instances), Cell::number(interval), Cell::new(mode)];
                start.into_iter().chain(numbers.map(Cell::number)).collect()
            })
            .collect();
        table::render(&HEADS, &cells) + &footnote(args, &list, &rows)
    };
    table::say(&text)?;
    Ok(Verdict::Good)
}

fn rows(args: &Args, list: &PriceList) -> Result<Vec<Row>> {
    let prices = list.of(&args.region).ok_or_else(|| {
        let known: Vec<&str> = list.regions().collect();
        Usage(format!(
            "there are no prices of `{}` (`--region`): they are known of {}",
            args.region,
            known.join(", ")
        ))
    })?;
    let sizes = typical_item_sizes().map_err(|reason| anyhow!("an item's size: {reason}"))?;
    let modes: &[Mode] = match args.mode {
        Some(Mode::Fixed) => &[Mode::Fixed],
        Some(Mode::Adaptive) => &[Mode::Adaptive],
        None => &[Mode::Fixed, Mode::Adaptive],
    };
    let FollowerConfig { registrations_every, .. } = FollowerConfig::default();
    let mut rows = Vec::new();
    for &instances in &args.instances {
        for &interval_seconds in &args.interval {
            for &mode in modes {
                let (written_share, silent_intervals) = match mode {
                    Mode::Fixed => (1.0, 1.0),
                    Mode::Adaptive => (args.adaptive_share, SILENT_INTERVALS),
                };
                let workload = Workload {
                    instances,
                    interval_seconds,
                    written_share,
                    report_bytes: sizes.report_bytes as u64,
                    registration_bytes: sizes.registration_bytes as u64,
                    replicas: args.replicas,
                    routers: args.routers,
                    poll_seconds: look_interval(Duration::from_secs_f64(args.poll), instances)
                        .as_secs_f64(),
                    registrations_seconds: registrations_every.as_secs_f64(),
                    wish_seconds: interval_seconds * silent_intervals,
                    shards_seconds: SHARDS_FRESH.as_secs_f64().max(interval_seconds),
                    record_seconds: RECORD_SECONDS,
                    renewal_seconds: LEASE_SECONDS * RENEW_SHARE,
                    partitions: PARTITIONS,
                };
                rows.push(Row { mode, workload, month: estimate(&workload, prices) });
            }
        }
    }
    Ok(rows)
}

const HEADS: [&str; 8] =
    ["instances", "interval s", "mode", "M writes", "writes $", "reads $", "transfer $", "total $"];

fn columns(row: &Row) -> [String; 8] {
    let month = &row.month;
    [
        grouped(row.workload.instances as f64),
        row.workload.interval_seconds.to_string(),
        row.mode.as_str().to_owned(),
        format!("{:.1}", month.writes / 1e6),
        grouped(month.write_dollars),
        grouped(month.read_dollars),
        grouped(month.transfer_dollars),
        grouped(month.total_dollars),
    ]
}

/// Whole, with a comma between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn footnote(args: &Args, list: &PriceList, rows: &[Row]) -> String {
    let Some(Row { workload, .. }) = rows.first() else { return String::new() };
    format!(
        "\nA month, US dollars, on demand; prices of {} as of {}. A report has {} bytes, a registration {}; \
         {} replicas, {} routers that look every {} s, and at large fleets up to four times more rarely. Adaptive heartbeats write {} of the intervals.\n",
        args.region,
        list.as_of,
        workload.report_bytes,
        workload.registration_bytes,
        args.replicas,
        args.routers,
        args.poll,
        args.adaptive_share,
    )
}

fn as_markdown(rows: &[Row]) -> String {
    let mut text = format!("| {} |\n|---:|---:|---|---:|---:|---:|---:|---:|\n", HEADS.join(" | "));
    for row in rows {
        text.push_str(&format!("| {} |\n", columns(row).join(" | ")));
    }
    text
}

fn as_json(args: &Args, list: &PriceList, rows: &[Row]) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| json!({"mode": row.mode.as_str(), "workload": row.workload, "month": row.month}))
        .collect();
    let told = json!({
        "region": args.region,
        "currency": "USD",
        "prices_as_of": list.as_of,
        "price_sources": list.sources,
        "rows": rows,
    });
    format!("{told:#}\n")
}
