//! `mrgc instances forget`: instances whose machines are gone for good, removed from the state.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{DesiredState, InstanceId, Report, Standing};
use mrgc_store::{AuditEntry, Store};
use tokio::time::{Instant, sleep};

use super::place::{Known, Place};
use crate::{
    Verdict,
    clock::now,
    operator::Signature,
    table::{harmless, say},
};

const EXAMPLES: &str = "\
Examples:
  mrgc instances forget i-1234567890abcdef0 --reason 'ticket 4711: the board is dead'
  mrgc instances forget i-1 i-2 --region us-east-1 --reason 'racks sold' --operator ada

For machines that are gone for good. A dead one that a router drained counts as failed until it has
not reported for half an hour, any other for ever. With an instance goes what was wanted of it; a
replacement that was asked for stays open. It watches for as long as a next report may take, 35
seconds by default, and refuses where one comes. With --force it does not watch: an agent that still
runs writes no more until it is started again. A machine that registers anew is an instance like any
other. Nothing is removed where one of the ids is not known.";

/// Until the next report of an instance that has made none, or did not say.
const NEXT_WITHIN: Duration = Duration::from_secs(30);
/// How much later than promised a report may come.
const MARGIN: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The instances' ids, as in i-1234567890abcdef0
    #[arg(required = true, value_name = "ID", value_parser = NonEmptyStringValueParser::new().map(InstanceId::from))]
    ids: Vec<InstanceId>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    signature: Signature,
    /// Do not watch whether they still report
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: &Args) -> Result<Verdict> {
    let (reason, operator) = (args.signature.reason()?, args.signature.operator()?);
    let fleet = args.place.open().await?;
    let found = fleet.find_all(&args.ids).await?;
    if !args.force {
        watch(&fleet.store, &found).await?;
    }
    for (done, known) in found.iter().enumerate() {
        let (id, all) = (&known.id, found.len());
        let told = forget(&fleet.store, known, &reason, &operator).await;
        say(&told.with_context(|| format!("at `{id}`, with {done} of {all} done"))?)?;
    }
    Ok(Verdict::Good)
}

/// An error where a report comes of one of them. By their sequence: what the instances' clocks say does not
/// matter.
async fn watch(store: &Store, found: &[Known]) -> Result<()> {
    let registered: Vec<_> = found.iter().filter_map(|known| known.standing.as_ref()).collect();
    let Some(within) = registered.iter().map(|standing| next_within(standing)).max() else {
        return Ok(());
    };
    // Nobody needs to know.
    let _ = writeln!(io::stderr(), "watching for {} s whether it still reports", within.as_secs());
    let until = Instant::now() + within;
    while Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        for before in &registered {
            let (region, id) = (&before.registration.region, &before.registration.id);
            let seen = store.instance(region, id).await;
            let seen = seen.with_context(|| format!("cannot look at `{id}`"))?;
            if seen.is_some_and(|seen| said_last(&seen) != said_last(before)) {
                return Err(anyhow!(
                    "`{id}` still reports: stop its agent first, or say `--force`; nothing was removed"
                ));
            }
        }
    }
    Ok(())
}

fn next_within(standing: &Standing) -> Duration {
    let promised = standing.report.as_ref().and_then(|report| report.next_within_ms);
    promised.map_or(NEXT_WITHIN, |ms| Duration::from_millis(ms.into())) + MARGIN
}

fn said_last(standing: &Standing) -> (u64, Option<u64>) {
    let sequence = standing.report.as_ref().map(|Report { sequence, .. }| *sequence);
    (standing.registration.generation, sequence)
}

/// Record first, then act. Returns what to tell.
async fn forget(store: &Store, known: &Known, reason: &str, operator: &str) -> Result<String> {
    let Known { id, region, standing, .. } = known;
    let subject = format!("instance {id}");
    let (at, reason) = (now(), Some(reason));
    let entry = AuditEntry { at, operator, action: "forget", subject: &subject, reason };
    store.record_audit(entry).await.context("not on record")?;
    // As it is by now: somebody may have changed it during the watch.
    let desired = store.desired(region, id).await?;
    match standing {
        Some(standing) => store.forget(&standing.registration).await?,
        None => store.forget_desired(region, id).await?,
    }
    let held = desired.as_ref().filter(|desired| desired.state != DesiredState::Serving);
    let wanted =
        held.map_or_else(String::new, |held| format!(", and that it is {}", held.state.as_str()));
    let replacement = match store.replacement(region, id).await?.filter(|it| it.closed.is_none()) {
        Some(_) => "the replacement that was asked for stays open",
        None => "no replacement of it is open",
    };
    Ok(harmless(&format!("{id} in {region}: forgotten{wanted}; {replacement}")) + "\n")
}
