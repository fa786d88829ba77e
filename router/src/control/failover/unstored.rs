//! What could not be stored while the store was away: it holds here, and is written when the store is back.
//!
//! An order keeps the stamp that it was given here. So it counts as of the moment it was given in: what was
//! ordered elsewhere since goes before it, and of two orders that did not know of each other the stricter
//! counts. A router that ends meanwhile loses its unstored orders; it says so when it stops.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mrgc_fleet::{
    failover::RegionOrder,
    model::{RegionId, Timestamp},
};
use mrgc_store::{AuditEntry, Store, StoreError};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

/// How long an operator's call waits for the store.
pub(super) const STORE_DEADLINE: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Audit entries that wait; beyond that the oldest is lost, and the log says so.
const MAX_ENTRIES: usize = 256;

/// What somebody did, to be recorded.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    at: Timestamp,
    operator: String,
    action: &'static str,
    subject: String,
    reason: Option<String>,
}

impl Entry {
    pub(super) fn new(action: &'static str, subject: String, order: &RegionOrder) -> Self {
        let operator = order.operator.clone().unwrap_or_default();
        Self { at: order.at, operator, action, subject, reason: order.reason.clone() }
    }

    async fn record(&self, store: &Store) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at: self.at,
            operator: &self.operator,
            action: self.action,
            subject: &self.subject,
            reason: self.reason.as_deref(),
        };
        store.record_audit(entry).await.map(drop)
    }
}

#[derive(Debug, Default)]
pub(super) struct Unstored {
    kept: Mutex<Kept>,
    added: Notify,
    /// Held while what waits is written: two who write at once would each take off what the other has not
    /// written yet. Never for longer than [`STORE_DEADLINE`].
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Numbered as they came: while the first one is written it may be lost to the bound.
    entries: VecDeque<(u64, Entry)>,
    numbered: u64,
    /// The last one of each region: it went above those before.
    orders: BTreeMap<RegionId, RegionOrder>,
}

impl Kept {
    fn add(&mut self, entry: Entry) {
        if self.entries.len() == MAX_ENTRIES
            && let Some((_, Entry { at, operator, action, subject, reason })) =
                self.entries.pop_front()
        {
            let at_ms = at.0;
            tracing::warn!(at_ms, operator, action, subject, reason, "not recorded: too many wait");
        }
        self.entries.push_back((self.numbered, entry));
        self.numbered += 1;
    }

    fn written(&mut self, number: u64) {
        if self.entries.front().is_some_and(|(first, _)| *first == number) {
            self.entries.pop_front();
        }
    }
}

impl Unstored {
    /// Records what is about to be done, and what waited before it; what cannot be recorded now waits.
    /// The error says why the store does not take it.
    pub(super) async fn record(&self, store: Option<&Store>, entry: Entry) -> Result<(), String> {
        let Some(store) = store else { return Err("this router has no store".to_owned()) };
        let recorded = in_time(async {
            let _writing = self.writing.lock().await;
            self.flush(store).await?;
            entry.record(store).await
        });
        let Err(why) = recorded.await else { return Ok(()) };
        self.lock().add(entry);
        self.added.notify_one();
        Err(why)
    }

    /// Writes what waits, as far as that goes in time.
    async fn write(&self, store: &Store) -> Result<(), String> {
        in_time(async {
            let _writing = self.writing.lock().await;
            self.flush(store).await
        })
        .await
    }

    /// An order to be written when the store is back.
    pub(super) fn keep(&self, order: RegionOrder) {
        self.lock().orders.insert(order.region.clone(), order);
        self.added.notify_one();
    }

    /// How many orders wait.
    pub(super) fn orders(&self) -> usize {
        self.lock().orders.len()
    }

    fn is_empty(&self) -> bool {
        let kept = self.lock();
        kept.entries.is_empty() && kept.orders.is_empty()
    }

    /// Writes what waits, in order, up to what the store does not take. For one at a time.
    async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        loop {
            let Some((number, entry)) = self.lock().entries.front().cloned() else { break };
            // Where the process ends in between, it is recorded twice rather than not at all.
            entry.record(store).await?;
            self.lock().written(number);
        }
        loop {
            let Some(order) = self.lock().orders.values().next().cloned() else { return Ok(()) };
            let in_force = store.put_late_region_order(&order).await?;
            if in_force != order {
                let (region, by) = (&order.region, in_force.operator.as_deref());
                tracing::warn!(%region, by, "an order given without the store was superseded");
            }
            let mut kept = self.lock();
            if kept.orders.get(&order.region) == Some(&order) {
                kept.orders.remove(&order.region);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time(writing: impl Future<Output = Result<(), StoreError>>) -> Result<(), String> {
    match timeout(STORE_DEADLINE, writing).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} s", STORE_DEADLINE.as_secs())),
    }
}

/// Writes what waits as soon as the store takes it, until `shutdown` turns true.
pub(crate) async fn write(
    failover: super::Failover,
    store: Store,
    mut shutdown: watch::Receiver<bool>,
) {
    let unstored: &Arc<Unstored> = &failover.unstored;
    let writing = async {
        loop {
            unstored.added.notified().await;
            while !unstored.is_empty() {
                sleep(TRY_AGAIN).await;
                if let Err(why) = unstored.write(&store).await {
                    tracing::warn!(why, "orders wait for the store");
                }
            }
        }
    };
    tokio::select! {
        () = writing => {}
        _ = shutdown.wait_for(|stop| *stop) => {
            let orders = unstored.orders();
            if orders > 0 {
                tracing::warn!(orders, "stopped with orders that the store did not take");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
