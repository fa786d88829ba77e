//! One action after another, each only while it still is to be done.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use mrgc_fleet::monitor::{Action, Epochs, SHOWN_WITHIN_MS};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{Leases, TRY_AGAIN, writer::Writer};

/// Of an action, which is a few writes.
const LIMIT: Duration = Duration::from_secs(10);
/// History that waits for the store to come back; the oldest goes first.
const UNWRITTEN: usize = 256;
/// By then the monitor has issued again what is still to be done.
const OUTDATED_AFTER: Duration = Duration::from_millis(SHOWN_WITHIN_MS);

/// An action that waits for its turn.
#[derive(Debug)]
pub(super) struct Job {
    action: Action,
    /// Of the lease under which it was issued.
    epoch: Option<u64>,
    issued: Instant,
    is_retry: bool,
}

impl Job {
    pub(super) fn new(action: Action, epochs: Epochs) -> Self {
        let epoch = lease(&action, epochs);
        Self { action, epoch, issued: Instant::now(), is_retry: false }
    }

    /// Whether it still is to be done, by the leases that are held: minutes may have passed, as in a process
    /// that was stopped, and another router may have found otherwise since.
    fn is_due(&self, held: Epochs, now: Instant) -> bool {
        let is_held = self.epoch.is_some() && lease(&self.action, held) == self.epoch;
        match &self.action {
            // What has ended stays so in the store, whoever is late with what; what is under way its next holder
            // ends, who does not hear of what is written later.
            Action::Event(event) => is_held || event.ended_at.is_some(),
            // Asked for again every 20 s, by whoever holds the lease then.
            Action::Scale(_) => is_held,
            Action::Replace { .. }
            | Action::Release { .. }
            | Action::Forget { .. }
            | Action::Record(_) => is_held && now < self.issued + OUTDATED_AFTER,
        }
    }

    fn name(&self) -> &'static str {
        match self.action {
            Action::Replace { .. } => "replace",
            Action::Release { .. } => "release",
            Action::Forget { .. } => "forget",
            Action::Scale(_) => "scale",
            Action::Record(_) => "record",
            Action::Event(_) => "event",
        }
    }
}

/// The epoch of an action's lease.
fn lease(action: &Action, epochs: Epochs) -> Option<u64> {
    match action {
        Action::Replace { .. } | Action::Release { .. } | Action::Forget { .. } => epochs.health,
        Action::Scale(_) | Action::Record(_) | Action::Event(_) => epochs.failover,
    }
}

#[derive(Debug)]
pub(super) struct Worker {
    writer: Writer,
    leases: Arc<Leases>,
    /// Events of the history: nothing else would bring them again.
    unwritten: VecDeque<Job>,
    retry_at: Instant,
}

impl Worker {
    pub(super) fn new(writer: Writer, leases: Arc<Leases>) -> Self {
        Self { writer, leases, unwritten: VecDeque::new(), retry_at: Instant::now() }
    }

    /// Until nobody submits any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = self.next(&mut jobs).await {
            self.take(job).await;
        }
    }

    async fn take(&mut self, job: Job) {
        if !job.is_due(self.leases.epochs(), Instant::now()) {
            if self.may_be_due(&job) {
                tracing::info!(action = job.name(), "kept until its lease is held again");
                self.keep(job);
            } else {
                drop_undone(&job);
            }
            return;
        }
        let error = match timeout(LIMIT, self.writer.act(&job.action)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {} s", LIMIT.as_secs()),
        };
        tracing::warn!(%error, action = job.name(), "not written");
        if matches!(job.action, Action::Event(_)) {
            // What else fails meanwhile does not put off those that wait.
            if self.unwritten.is_empty() || job.is_retry {
                self.retry_at = Instant::now() + TRY_AGAIN;
            }
            self.keep(job);
        }
    }

    /// What was not written has its turn however much else comes in.
    async fn next(&mut self, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.retry_at), if !self.unwritten.is_empty() => {
                    if let Some(job) = self.next_unwritten() {
                        return Some(job);
                    }
                }
                job = jobs.recv() => return job,
            }
        }
    }

    /// The first that is to be done now. One that waits for its lease holds up none of the others.
    fn next_unwritten(&mut self) -> Option<Job> {
        let (held, now) = (self.leases.epochs(), Instant::now());
        let all = std::mem::take(&mut self.unwritten);
        let is_kept = |job: &Job| job.is_due(held, now) || self.may_be_due(job);
        let (kept, dropped): (Vec<_>, Vec<_>) = all.into_iter().partition(is_kept);
        dropped.iter().for_each(drop_undone);
        self.unwritten = kept.into();
        let due = self.unwritten.iter().position(|job| job.is_due(held, now));
        if due.is_none() {
            self.retry_at = now + TRY_AGAIN;
        }
        self.unwritten.remove(due?)
    }

    /// An event, and nobody is known to hold its lease: this router may again, in the same epoch.
    fn may_be_due(&self, job: &Job) -> bool {
        let is_nobodys = lease(&job.action, self.leases.epochs()).is_none()
            && !self.leases.failover_is_anothers();
        matches!(job.action, Action::Event(_)) && is_nobodys
    }

    /// Keeps it for another attempt.
    fn keep(&mut self, job: Job) {
        if self.unwritten.len() == UNWRITTEN {
            self.unwritten.pop_front();
            tracing::warn!("{UNWRITTEN} failovers could not be written: the oldest is dropped");
        }
        self.unwritten.push_back(Job { is_retry: true, ..job });
    }
}

fn drop_undone(job: &Job) {
    tracing::info!(action = job.name(), "dropped: another holds its lease, or it came too late");
}

#[cfg(test)]
mod tests;
