//! `mrgc instances check`: a probe by hand, by the router that probes the instance anyway.

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::InstanceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ready_cell;
use crate::{
    Verdict,
    router::RouterArgs,
    table::{BAD, Cell, DOUBTFUL, GOOD, render},
    watch::WatchArgs,
};

const EXAMPLES: &str = "\
Examples:
  mrgc instances check i-1234567890abcdef0
  mrgc instances check i-1234567890abcdef0 --router http://10.66.0.10:9000 --watch 5
  mrgc instances check i-1234567890abcdef0 --json | jq .response_time_ms

A router of the instance's region probes it now: PROBE, CODE and RESPONSE are what came of it. READY
is whether it gets requests from that router, by all that is known of it, and DETAIL what stands
against it. STATUS and FAILURES, those in a row, are by the router's own probes, every 30 s: the
fourth failure makes it unhealthy. This one counts as none of them. QUEUE is by its last report.
Exit code 1: it gets no requests, or did not pass.";

const HEADS: [&str; 9] =
    ["ID", "READY", "STATUS", "PROBE", "CODE", "RESPONSE", "QUEUE", "FAILURES", "DETAIL"];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The instance's id, as in i-1234567890abcdef0
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new().map(InstanceId::from))]
    id: InstanceId,
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Tell it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Checked {
    id: InstanceId,
    status: String,
    probe: String,
    out_because: Option<String>,
    status_code: Option<u16>,
    queue_depth: Option<u32>,
    detail: Option<String>,
    response_time_ms: Option<f64>,
    consecutive_failures: u32,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let router = args.router.open()?;
    let path = ["instances", args.id.as_str(), "check"];
    let draw = async || {
        let answer: Value = router.post(&path, &json!({})).await?;
        let checked: Checked =
            serde_json::from_value(answer.clone()).context("cannot read the router's answer")?;
        let is_good = checked.out_because.is_none() && checked.probe == "passed";
        let verdict = if is_good { Verdict::Good } else { Verdict::Bad };
        let text = if args.json { format!("{answer}\n") } else { render(&HEADS, &[row(&checked)]) };
        Ok((text, verdict))
    };
    args.watch.show(draw).await
}

fn row(checked: &Checked) -> Vec<Cell> {
    let style = match checked.status.as_str() {
        "healthy" => GOOD,
        "unhealthy" => BAD,
        _ => DOUBTFUL,
    };
    let probe = if checked.probe == "passed" { GOOD } else { BAD };
    let response = checked.response_time_ms.map(|ms| format!("{ms:.0} ms"));
    let number = |number: Option<String>| Cell::number(number.unwrap_or("-".to_owned()));
    vec![
        Cell::new(checked.id.as_str()),
        ready_cell(checked.out_because.is_none()),
        Cell::styled(checked.status.as_str(), style),
        Cell::styled(checked.probe.replace('_', " "), probe),
        number(checked.status_code.map(|code| code.to_string())),
        number(response),
        number(checked.queue_depth.map(|depth| depth.to_string())),
        Cell::number(checked.consecutive_failures.to_string()),
        Cell::new(details(checked)),
    ]
}

/// Why it gets no requests and what was wrong with the probe, which may be the same.
fn details(checked: &Checked) -> String {
    let out = checked.out_because.as_deref();
    let detail = checked.detail.as_deref();
    let detail = detail.filter(|detail| out.is_none_or(|out| !out.contains(detail)));
    [out, detail].into_iter().flatten().collect::<Vec<_>>().join("; ")
}
