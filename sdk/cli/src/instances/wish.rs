//! `mrgc instances drain`, `quarantine` and `release`: what is wanted of instances, written into the state.

use anyhow::{Context, Result};
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};
use mrgc_fleet::model::{Desired, DesiredState, InstanceId, Replacement, Stamp};
use mrgc_store::{Store, StoreError};

use super::place::{Known, Place};
use crate::{
    Verdict,
    clock::now,
    operator::Signature,
    table::{harmless, say},
};

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  mrgc instances drain i-1234567890abcdef0 --reason 'new driver'
  mrgc instances drain i-1 i-2 i-3 --region us-east-1 --reason 'ticket 4711' --operator ada

Routers pass it over within seconds. The agent, which tells load balancers, reads it within its
longest silence, 30 seconds by default. It lasts until `mrgc instances release`, restarts included.
Nothing is written where one of the ids is not known.";

pub(super) const QUARANTINE_EXAMPLES: &str = "\
Examples:
  mrgc instances quarantine i-1234567890abcdef0 --reason 'ticket 4711: ECC errors'

Routers pass it over within seconds. The agent, which tells load balancers, reads it within its
longest silence, 30 seconds by default. It lasts until `mrgc instances release`: no restart, no new
registration and no command on the instance lifts it. Nothing is written where one of the ids is
not known.";

pub(super) const RELEASE_EXAMPLES: &str = "\
Examples:
  mrgc instances release i-1234567890abcdef0 --reason 'ticket 4711: GPU replaced'

It lifts a drain or a quarantine that was wanted here, and a quarantine by the agent itself (an unfit
GPU, a failed cleanup), which comes back where the GPU still is unfit. A cleanup that is owed comes
first. It calls off a replacement that was asked for. It does not call off a drain that was begun on
the instance or by the cloud. Nothing is written where one of the ids is not known.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instances' ids, as in i-1234567890abcdef0
    #[arg(required = true, value_name = "ID", value_parser = NonEmptyStringValueParser::new().map(InstanceId::from))]
    ids: Vec<InstanceId>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    signature: Signature,
}

pub(crate) async fn run(args: &Args, state: DesiredState) -> Result<Verdict> {
    let (reason, operator) = (args.signature.reason()?, args.signature.operator()?);
    let fleet = args.place.open().await?;
    let found = fleet.find_all(&args.ids).await?;
    for (done, known) in found.iter().enumerate() {
        let wish = Desired {
            instance: known.id.clone(),
            region: known.region.clone(),
            state,
            reason: Some(reason.clone()),
            operator: Some(operator.clone()),
            automatic: false,
            at: now(),
            writer_region: fleet.store.aws_region().into(),
            stamp: Stamp::default(),
        };
        let written = write(&fleet.store, &wish).await;
        let (id, all) = (&known.id, found.len());
        let written = written.with_context(|| format!("at `{id}`, with {done} of {all} done"))?;
        say(&told(known, &written))?;
    }
    Ok(Verdict::Good)
}

/// What is wanted then, and the replacement that was called off. That comes first: who tries again finds it so.
async fn write(
    store: &Store,
    wish: &Desired,
) -> Result<(Desired, Option<Replacement>), StoreError> {
    let called_off = match wish.state {
        DesiredState::Serving => {
            let why = format!("released: {}", wish.reason.as_deref().unwrap_or_default());
            store.call_off_replacement(&wish.region, &wish.instance, &why).await?
        }
        DesiredState::Draining | DesiredState::Quarantined => None,
    };
    Ok((store.desire(wish).await?, called_off))
}

fn told(known: &Known, (written, called_off): &(Desired, Option<Replacement>)) -> String {
    let Known { id, region, standing, desired } = known;
    let before = match desired {
        Some(before) => {
            let by = before.operator.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
            let why = before.reason.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{}{by}{why}", before.state.as_str())
        }
        None => DesiredState::Serving.as_str().to_owned(),
    };
    let reported = match standing.as_ref().map(|standing| &standing.report) {
        Some(Some(report)) => format!("it reports {}", report.lifecycle),
        Some(None) => "it has not reported yet".to_owned(),
        None => "it is not registered".to_owned(),
    };
    let now = written.state.as_str();
    let replacement = called_off.as_ref().map_or("", |_| "; its replacement is called off");
    let line = format!("{id} in {region}: was wanted {before}, now {now}; {reported}{replacement}");
    harmless(&line) + "\n"
}
