//! `mrgc failover start`, `recover`, `pin` and `unpin`.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::{
    ValueEnum,
    builder::{NonEmptyStringValueParser, TypedValueParser as _},
};
use mrgc_fleet::model::RegionId;
use serde_json::{Value, json};

use super::{
    answer::{Given, Overview, describe, healthy, keeps},
    confirm::{ConfirmArgs, confirm},
};
use crate::{
    Usage, Verdict,
    operator::Signature,
    router::{Router, RouterArgs},
    table::{harmless, say},
};

const START_EXAMPLES: &str = "\
Examples:
  mrgc failover start us-east-1 --reason 'ticket 4711: power'
  mrgc failover start us-east-1 --to us-west-2 --strategy graceful --reason 'maintenance'
  mrgc failover start us-east-1 --reason drill --yes --json

New requests go elsewhere: at once (immediate), or in a line over 2.5 s (graceful), so that those
who take them warm up. Requests under way finish. Without --to, the others take it by their spare
capacity; what fits nowhere is refused with 503. Try `mrgc failover simulate` first. It lasts until
`mrgc failover recover`, restarts included.

The router that is asked does it at once, all others as soon as they read it. Where the store is
away it holds on this router, and is stored when the store is back. Exit code 1: refused, or not
stored.";

const RECOVER_EXAMPLES: &str = "\
Examples:
  mrgc failover recover us-east-1 --reason 'ticket 4711: power is back'

A quarter of the region's traffic comes back at a time, each step held for 30 s of good evidence.
What failed over by itself comes back by itself, and needs no recovery.";

const PIN_EXAMPLES: &str = "\
Examples:
  mrgc failover pin us-east-1 normal --reason 'probes are wrong: ticket 4712'
  mrgc failover pin us-west-2 degraded --reason 'half of its network'

The region keeps what the state leaves it: all of its traffic (normal), 70 % (degraded), 5 %
(failover-active) or 25 % (recovering). Only a region that cannot be reached gets nothing all the
same. It lasts until `mrgc failover unpin`.";

const UNPIN_EXAMPLES: &str = "\
Examples:
  mrgc failover unpin us-east-1 --reason 'ticket 4712: probes are right again'

Where the evidence is better than the pin was, traffic comes back by steps.";

#[derive(Debug, clap::Args)]
struct Common {
    /// The region, as in us-east-1
    #[arg(value_name = "REGION", value_parser = NonEmptyStringValueParser::new().map(RegionId::from))]
    region: RegionId,
    #[command(flatten)]
    router: RouterArgs,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    confirm: ConfirmArgs,
    /// Tell what came of it as a line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = START_EXAMPLES)]
pub(crate) struct Start {
    /// The region that takes its traffic, as long as it has room
    #[arg(long, value_name = "REGION", value_parser = NonEmptyStringValueParser::new().map(RegionId::from))]
    to: Option<RegionId>,
    /// How fast the traffic leaves
    #[arg(long, value_name = "HOW", default_value = "immediate")]
    strategy: Strategy,
    /// Also where too few instances elsewhere are healthy
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Strategy {
    Immediate,
    Graceful,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RECOVER_EXAMPLES)]
pub(crate) struct Recover {
    #[command(flatten)]
    common: Common,
    /// Also where the router knows of no failover that was ordered
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = PIN_EXAMPLES)]
pub(crate) struct Pin {
    #[command(flatten)]
    common: Common,
    /// The state to hold it in
    #[arg(value_name = "STATE", ignore_case = true)]
    state: State,
}

/// However it is written: tables have FAILOVER_ACTIVE.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Normal,
    Degraded,
    #[value(alias = "failover_active")]
    FailoverActive,
    Recovering,
}

#[derive(Debug, clap::Args)]
#[command(after_help = UNPIN_EXAMPLES)]
pub(crate) struct Unpin {
    #[command(flatten)]
    common: Common,
    /// Also where the router knows of no pin
    #[arg(long)]
    force: bool,
}

pub(super) async fn start(args: &Start) -> Result<Verdict> {
    let Start { common, to, strategy, force } = args;
    if to.as_ref() == Some(&common.region) {
        let reason = format!("`{}` cannot fail over to itself: name another `--to`", common.region);
        return Err(Usage(reason).into());
    }
    let (strategy, pace) = match strategy {
        Strategy::Immediate => ("immediate", "at once"),
        Strategy::Graceful => ("graceful", "within seconds"),
    };
    let body = json!({
        "from_region": common.region, "to_region": to, "strategy": strategy, "force": force,
    });
    let to = to.as_ref().map_or("other regions".to_owned(), RegionId::to_string);
    let what = format!("All of its new requests will go to {to} {pace}.");
    order(common, &["failover"], body, &what).await
}

pub(super) async fn recover(args: &Recover) -> Result<Verdict> {
    let Recover { common, force } = args;
    let body = json!({"region": common.region, "force": force});
    order(common, &["failover", "recover"], body, "Its traffic will come back by steps.").await
}

pub(super) async fn pin(args: &Pin) -> Result<Verdict> {
    let Pin { common, state } = args;
    let (state, what) = match state {
        State::Normal => ("normal", "It will get all of its traffic"),
        State::Degraded => ("degraded", "A part of its traffic will go elsewhere"),
        State::FailoverActive => ("failover_active", "Most of its traffic will go elsewhere"),
        State::Recovering => ("recovering", "It will get a part of its traffic"),
    };
    let body = json!({"region": common.region, "state": state});
    let what = format!("{what}, whatever the evidence says.");
    order(common, &["failover", "pin"], body, &what).await
}

pub(super) async fn unpin(args: &Unpin) -> Result<Verdict> {
    let Unpin { common, force } = args;
    let body = json!({"region": common.region, "force": force});
    order(common, &["failover", "unpin"], body, "The evidence will decide again.").await
}

async fn order(common: &Common, path: &[&str], mut body: Value, what: &str) -> Result<Verdict> {
    body["reason"] = common.signature.reason()?.into();
    body["operator"] = common.signature.operator()?.into();
    let asks = common.confirm.asks()?;
    let router = common.router.open()?;
    if asks {
        confirm(&format!("{} {what}", standing(&router, &common.region).await?)).await?;
    }
    let answer: Value = router.post(path, &body).await?;
    let given: Given =
        serde_json::from_value(answer.clone()).context("it was ordered; cannot read the answer")?;
    say(&if common.json { format!("{answer}\n") } else { told(&given) })?;
    if given.stored {
        return Ok(Verdict::Good);
    }
    let why = given.not_stored_because.as_deref().unwrap_or("the store is away");
    let text = format!("it holds on this router only, for it could not be stored: {why}");
    // The exit code says it, too.
    let _ = writeln!(io::stderr(), "mrgc: {}", harmless(&text));
    Ok(Verdict::Bad)
}

/// What is about to change, for whoever is asked.
async fn standing(router: &Router, region: &RegionId) -> Result<String> {
    let overview: Overview = router.get(&["failover"]).await?;
    let Some(status) = overview.status(region) else {
        let known: Vec<&str> = overview.regions.iter().map(|s| s.region.as_str()).collect();
        anyhow::bail!("there is no region `{region}`; there are {}", known.join(", "));
    };
    let order = status.order.as_ref().map(|order| format!(", {}", describe(order)));
    Ok(format!(
        "{region} is {} and keeps {} of its traffic, {} healthy{}.",
        status.state,
        keeps(status.share),
        healthy(status),
        order.unwrap_or_default()
    ))
}

fn told(given: &Given) -> String {
    let Given { order, replaced, status, .. } = given;
    let mut line = format!("{}: {}", order.region, describe(order));
    if let Some(replaced) = replaced {
        line.push_str(&format!("; before: {}", describe(replaced)));
    }
    if let Some(status) = status {
        let (state, keeps) = (status.state, keeps(status.share));
        line.push_str(&format!("; it is {state} and keeps {keeps} of its traffic"));
    }
    harmless(&line) + "\n"
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn a_state_is_understood_as_it_is_shown() {
        for text in ["failover-active", "failover_active", "FAILOVER_ACTIVE", "Failover-Active"] {
            let line = ["pin", "us-east-1", text, "--reason", "r"];
            let pin = Pin::augment_args(Command::new("pin")).try_get_matches_from(line);
            let state = pin.as_ref().ok().and_then(|matches| matches.get_one::<State>("state"));
            assert!(matches!(state, Some(State::FailoverActive)), "{text}: {pin:?}");
        }
    }
}
