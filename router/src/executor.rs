//! Doing in the store what the monitor found, while this router holds the lease for it.
//!
//! ```text
//!              room
//!      ┌────────────────────┐
//!      ▼                    │
//!  Monitor ── actions ──► queue ──► Worker ──► Writer ──► store
//!             each with its          ▲  │
//!             lease's epoch          └──┘ failovers that are not written yet
//! ```

mod worker;
mod writer;

use std::{sync::Arc, time::Duration};

use mrgc_fleet::{
    failover::{FailoverEvent, MAX_EVENTS},
    model::{RegionId, Timestamp},
    monitor::{Action, Epochs},
};
use mrgc_store::{LeaseKeeper, Store, StoreError};
use tokio::sync::mpsc;

use self::{
    worker::{Job, Worker},
    writer::Writer,
};
use crate::{
    cloud::Groups,
    config::{Config, Role},
    monitor::Event,
};

/// Actions that wait. At the bound the monitor keeps what it has.
const WAITING: usize = 256;
/// After a read or a write that failed, until the next attempt.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Holds the leases of this router's roles and does what their holder must.
#[derive(Debug, Default)]
pub struct Executor {
    leases: Arc<Leases>,
    waiting: Option<mpsc::Sender<Job>>,
    /// Where the history is, and whose of it counts.
    history: Option<(Store, RegionId)>,
}

#[derive(Debug, Default)]
struct Leases {
    health: Option<LeaseKeeper>,
    failover: Option<LeaseKeeper>,
}

impl Leases {
    fn epochs(&self) -> Epochs {
        let epoch = |keeper: &Option<LeaseKeeper>| keeper.as_ref().and_then(LeaseKeeper::epoch);
        Epochs { health: epoch(&self.health), failover: epoch(&self.failover) }
    }

    /// Whether another router is known to hold the lease under which failovers are written.
    fn failover_is_anothers(&self) -> bool {
        self.failover.as_ref().is_some_and(|keeper| keeper.other_holder().is_some())
    }
}

impl Executor {
    /// Contends for the leases from now on. `router` is who this is, for people; `groups` are told of what
    /// is to be replaced.
    pub fn start(store: &Store, config: &Config, router: &str, groups: Option<Groups>) -> Self {
        let home = config.home();
        let keep = |role: Role, lease: String| {
            let has = config.roles.has(role);
            has.then(|| store.keep_lease(&lease, router, config.failover.lease()))
        };
        let leases = Arc::new(Leases {
            health: keep(Role::Health, format!("health/{home}")),
            failover: keep(Role::Failover, failover_lease(&home)),
        });
        let (waiting, jobs) = mpsc::channel(WAITING);
        let writer = Writer::new(store.clone(), home.clone(), router, groups);
        tokio::spawn(Worker::new(writer, leases.clone()).run(jobs));
        Self { leases, waiting: Some(waiting), history: Some((store.clone(), home)) }
    }

    pub fn epochs(&self) -> Epochs {
        self.leases.epochs()
    }

    /// Who writes the region's records, as far as is known; `None` without a store.
    pub fn holder(&self, router: &str) -> Option<String> {
        let keeper = self.leases.failover.as_ref()?;
        match keeper.epoch() {
            Some(_) => Some(router.to_owned()),
            None => keeper.other_holder(),
        }
    }

    /// Reads what the lease's holders before `epoch` have written, and tells the monitor. Without it nothing
    /// new is written, so it is tried until it is read, or another epoch has begun.
    pub fn read_history(&self, epoch: u64, events: mpsc::Sender<Event>) {
        let Some((store, home)) = self.history.clone() else { return };
        let leases = self.leases.clone();
        tokio::spawn(async move {
            while leases.epochs().failover.is_none_or(|held| held == epoch) {
                match past_failovers(&store, &home).await {
                    Ok(past) => {
                        // The monitor is gone when the process ends.
                        let _ = events.send(Event::History { epoch, events: past }).await;
                        return;
                    }
                    Err(error) => tracing::warn!(%error, "the history of failovers was not read"),
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        });
    }

    /// For so many actions there is room.
    pub fn room(&self) -> usize {
        self.waiting.as_ref().map_or(0, mpsc::Sender::capacity)
    }

    /// Never waits. `epochs` are those under which the action was issued, for which there was room.
    pub fn submit(&self, action: Action, epochs: Epochs) {
        if let Some(waiting) = &self.waiting
            && waiting.try_send(Job::new(action, epochs)).is_err()
        {
            tracing::warn!("too many actions wait for the store: one is dropped");
        }
    }
}

/// The lease under which a region's records are written.
pub fn failover_lease(home: &RegionId) -> String {
    format!("failover/{home}")
}

/// What the routers of `home` have stored of failovers, the latest: each region's tell of the same ones. Also
/// those of a router whose clock is ahead, which began later than now.
pub async fn past_failovers(
    store: &Store,
    home: &RegionId,
) -> Result<Vec<FailoverEvent>, StoreError> {
    let mut events = store.failover_events(Timestamp(0), Timestamp(u64::MAX), MAX_EVENTS).await?;
    events.retain(|event| event.writer_region == *home);
    Ok(events)
}
