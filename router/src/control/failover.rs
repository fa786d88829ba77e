//! `/failover`: how the regions stand, and what operators order.
//!
//! ```text
//!  POST ─► check ─► audit ─► store ──────────────┐
//!                     └─ the store is away ──► unstored ─┐
//!                                                ▼       ▼
//!                        monitor ◄─────────── the order, stamped
//! ```
//!
//! An order is recorded first and carried out then, here as soon as it is stored and elsewhere as soon as it
//! is read. While the store is away it holds on this router, and is written when the store is back.

mod history;
mod orders;
mod overview;
mod simulate;
mod unstored;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mrgc_fleet::{
    failover::{FailoverEvent, Refused, RegionOrder, RegionStatus, Simulation, Summary},
    health::Verdict,
    model::{InstanceId, RegionId},
    monitor::Monitor,
};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

pub(super) use history::history;
pub(super) use orders::{pin, recover, start, unpin};
pub(super) use overview::overview;
pub(super) use simulate::simulate;
pub(super) use unstored::write as write_unstored;

use super::Context;
use crate::{
    executor::Executor, flight::FleetView, monitor::Event, probe::Prober, problem::Refusal,
};
use unstored::Unstored;

/// The monitor answers between two events, each of microseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the API asks the monitor.
#[derive(Debug)]
pub enum Command {
    Status(oneshot::Sender<Status>),
    /// Whether an order makes sense as things are.
    Check(RegionOrder, oneshot::Sender<Checked>),
    Order(RegionOrder, oneshot::Sender<()>),
    /// What it would do to fail a region over, to one of them first where it is named.
    Simulate {
        region: RegionId,
        to: Option<RegionId>,
        fleet: Arc<FleetView>,
        answer: oneshot::Sender<Simulation>,
    },
    /// What the router's own probes say of an instance.
    Probes(InstanceId, oneshot::Sender<Probed>),
    /// Who takes no requests, and why.
    Out(oneshot::Sender<BTreeMap<InstanceId, String>>),
}

/// All regions, as this router has them.
#[derive(Clone, Debug)]
pub struct Status {
    pub summary: Summary,
    pub regions: Vec<RegionStatus>,
    /// The oldest first.
    pub events: Vec<FailoverEvent>,
    /// Who writes what is found of the regions, as far as is known.
    pub lease_holder: Option<String>,
    /// Instances of home that the router's own probes call unhealthy.
    pub unhealthy: usize,
}

/// What is said of an order before it is given.
#[derive(Clone, Debug)]
pub struct Checked {
    pub verdict: Result<(), Refused>,
    /// What operators want of the region by now.
    pub in_force: Option<RegionOrder>,
}

/// What an instance's probes say so far.
#[derive(Clone, Debug)]
pub struct Probed {
    pub verdict: Verdict,
    /// In a row.
    pub failures: u32,
    /// Why it takes no requests, if it takes none: all that is known beside what live requests show.
    pub out_because: Option<String>,
}

impl Command {
    /// Answers from, and acts on, the one machine that knows. Whoever asked may be gone by now.
    pub fn execute(self, monitor: &mut Monitor, executor: &Executor, now_ms: u64) {
        match self {
            Self::Status(answer) => {
                let handler = monitor.handler();
                let unhealthy = |id: &&InstanceId| monitor.verdict(id).is_unhealthy();
                let _ = answer.send(Status {
                    summary: handler.summary(),
                    regions: handler.status(),
                    events: handler.history(),
                    lease_holder: executor.holder(monitor.router()),
                    unhealthy: monitor.home_instances().filter(unhealthy).count(),
                });
            }
            Self::Check(order, answer) => {
                let handler = monitor.handler();
                let in_force = handler.ordered(&order.region).cloned();
                let _ = answer.send(Checked { verdict: handler.check(&order), in_force });
            }
            Self::Order(order, answer) => {
                monitor.order(order, now_ms);
                let _ = answer.send(());
            }
            Self::Simulate { region, to, fleet, answer } => {
                let handler = monitor.handler();
                let _ = answer.send(handler.simulate(&region, to.as_ref(), &fleet.snapshot));
            }
            Self::Probes(id, answer) => {
                let _ = answer.send(Probed {
                    verdict: monitor.verdict(&id).clone(),
                    failures: monitor.probe_failures(&id),
                    out_because: monitor.out_because(&id),
                });
            }
            Self::Out(answer) => {
                let _ = answer.send(monitor.out());
            }
        }
    }
}

/// The way to the monitor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failover {
    events: mpsc::Sender<Event>,
    /// Who this router is.
    router: Arc<str>,
    /// For probes by hand; `None` where this process does not probe.
    pub(super) prober: Option<Prober>,
    unstored: Arc<Unstored>,
    /// Held while an order is given, so that each sees the one before.
    turn: Arc<Mutex<()>>,
}

impl Failover {
    pub fn new(events: mpsc::Sender<Event>, router: String, prober: Option<Prober>) -> Self {
        let (unstored, turn) = Default::default();
        Self { events, router: router.into(), prober, unstored, turn }
    }

    /// # Errors
    ///
    /// The monitor is gone, or far behind.
    pub async fn status(&self) -> Result<Status, Refusal> {
        self.ask(Command::Status).await
    }

    pub(super) async fn probes(&self, id: InstanceId) -> Result<Probed, Refusal> {
        self.ask(|answer| Command::Probes(id, answer)).await
    }

    pub(super) async fn out(&self) -> Result<BTreeMap<InstanceId, String>, Refusal> {
        self.ask(Command::Out).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.events.send(Event::Command(command(answer))).await.ok()?;
            answered.await.ok()
        };
        let within = ANSWER_WITHIN.as_secs();
        timeout(ANSWER_WITHIN, asked).await.ok().flatten().ok_or(Refusal::NoMonitor { within })
    }
}

/// Refuses a region that is not registered.
fn known(context: &Context, region: &RegionId) -> Result<(), Refusal> {
    let fleet = context.conductor.fleet();
    if fleet.snapshot.regions.iter().any(|known| known.id == *region) {
        return Ok(());
    }
    Err(Refusal::NotFound { what: "region", name: region.to_string() })
}
