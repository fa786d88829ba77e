//! Contends for a lease, and keeps it, in the background: the shell around [`mrgc_fleet::lease`].

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mrgc_fleet::lease::{Action, Contender, Write};
use tokio::{task::JoinHandle, time::sleep};
use tracing::{info, warn};

use super::LeaseWritten;
use crate::{Store, clock, counts::add, error::StoreError};

/// Attempts at giving a lease back, each against what the one before found.
const RELEASE_ATTEMPTS: u32 = 3;

/// One contender for a lease. Dropping it stops it; the others then wait for the time to live to pass,
/// which [`LeaseKeeper::release`] spares them.
#[derive(Debug)]
pub struct LeaseKeeper {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    name: String,
    contender: Mutex<Contender>,
    start: Instant,
    failures: AtomicU64,
}

impl Store {
    /// Contends for the lease `name` from now on. `holder` is who this is, for people; the lease is held by
    /// this very call, so that a restarted process is another contender.
    ///
    /// `ttl` is for how long others watch a lease that is not renewed before they take it over, between
    /// 200 ms and a day: 10 s suit most tasks. A holder renews five times as often, and with the store
    /// unreachable stops believing after three quarters of it.
    pub fn keep_lease(&self, name: &str, holder: &str, ttl: Duration) -> LeaseKeeper {
        let run = format!("{holder}#{:016x}", fastrand::u64(..));
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(Shared {
            store: self.clone(),
            name: name.to_owned(),
            contender: Mutex::new(Contender::new(name, &run, ttl_ms)),
            start: Instant::now(),
            failures: AtomicU64::new(0),
        });
        let task = tokio::spawn(Arc::clone(&shared).keep());
        LeaseKeeper { shared, task }
    }
}

impl LeaseKeeper {
    /// The epoch under which the lease is held at this moment; `None` while it is not.
    ///
    /// Ask right before acting on it, and let what is written carry the epoch: a process that is paused in
    /// between would not notice that it lost.
    pub fn epoch(&self) -> Option<u64> {
        self.shared.epoch()
    }

    /// Who held it when this contender last looked and did not hold it itself.
    pub fn other_holder(&self) -> Option<String> {
        self.shared.contender().other_holder().map(str::to_owned)
    }

    /// Calls that failed, the store's own retries not counted.
    pub fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Stops, and gives the lease back if it is held, so that another takes it at its next look, within a
    /// fifth of the time to live. After an error the others wait for all of it, and are as safe.
    pub async fn release(mut self) -> Result<(), StoreError> {
        self.task.abort();
        // So that no renewal follows; one that was on its way may still arrive, which is seen below.
        let _ = (&mut self.task).await;
        for _ in 0..RELEASE_ATTEMPTS {
            let Some(write) = self.shared.contender().release(clock::now()) else { return Ok(()) };
            match self.shared.store.write_lease(&write).await? {
                LeaseWritten::Done => {
                    info!(lease = self.shared.name, "lease given back");
                    return Ok(());
                }
                LeaseWritten::Refused(stored) => {
                    let now_ms = self.shared.now_ms();
                    self.shared.contender().refused(stored, now_ms);
                }
            }
        }
        Ok(())
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn keep(self: Arc<Self>) {
        loop {
            let before = self.epoch();
            let action = self.contender().next(self.now_ms(), clock::now());
            match action {
                Action::Wait { ms } => sleep(spread(ms)).await,
                Action::Read => self.look().await,
                Action::Write(write) => self.write(&write).await,
            }
            self.tell(before);
        }
    }

    async fn look(&self) {
        match self.store.lease(&self.name).await {
            Ok(stored) => {
                let now_ms = self.now_ms();
                self.contender().read(stored, now_ms);
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn write(&self, write: &Write) {
        let sent_ms = self.now_ms();
        match self.store.write_lease(write).await {
            Ok(LeaseWritten::Done) => self.contender().done(write, sent_ms),
            Ok(LeaseWritten::Refused(stored)) => {
                let now_ms = self.now_ms();
                self.contender().refused(stored, now_ms);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &StoreError) {
        add(&self.failures);
        let failures = self.failures.load(Ordering::Relaxed);
        if failures.is_power_of_two() {
            warn!(lease = self.name, %error, failures, "the lease could not be read or written");
        }
        let now_ms = self.now_ms();
        self.contender().failed(now_ms);
    }

    fn tell(&self, before: Option<u64>) {
        match (before, self.epoch()) {
            (None, Some(epoch)) => info!(lease = self.name, epoch, "lease taken"),
            (Some(epoch), None) => warn!(lease = self.name, epoch, "lease lost"),
            _ => {}
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.contender().epoch(self.now_ms())
    }

    fn contender(&self) -> MutexGuard<'_, Contender> {
        self.contender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By this process's monotonic clock, which nobody else's is compared with.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Up to a tenth longer, so that contenders who wait for the same moment do not all ask in it.
fn spread(ms: u64) -> Duration {
    Duration::from_millis(ms).mul_f64(1.0 + 0.1 * fastrand::f64())
}
