//! The thread that samples by NVML, seen from outside: nobody waits for it longer than a deadline.

use std::{
    io,
    sync::{Arc, mpsc as threads},
    thread,
};

use tokio::{
    sync::mpsc,
    time::{self, Duration, Instant},
};

use super::{
    nvml::{Progress, Sampler, Scope},
    tracker::Round,
};
use crate::signals::Reading;

#[derive(Debug)]
pub(super) struct Worker {
    requests: threads::SyncSender<Scope>,
    rounds: mpsc::Receiver<Reading<Round>>,
    progress: Arc<Progress>,
    /// When the request was made that has no answer yet.
    waiting_since: Option<Instant>,
}

impl Worker {
    /// Starts the thread; it ends when this is dropped, or with the process where it hangs.
    pub(super) fn start(library: Option<String>, rare_every: u32) -> io::Result<Self> {
        let (requests, inbox) = threads::sync_channel(1);
        let (outbox, rounds) = mpsc::channel(1);
        let progress = Arc::new(Progress::default());
        let mut sampler = Sampler::new(library, rare_every, Arc::clone(&progress));
        thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            while let Ok(scope) = inbox.recv() {
                if outbox.blocking_send(sampler.sample(scope)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, rounds, progress, waiting_since: None })
    }

    /// One round through the GPUs, in which everything is asked or what changes often; within `deadline` it, or
    /// the reason why there is none. What was asked before, and was not answered in time, is waited for first,
    /// and is too old then.
    pub(super) async fn sample(&mut self, scope: Scope, deadline: Duration) -> Reading<Round> {
        let until = Instant::now() + deadline;
        if self.waiting_since.is_some()
            && let Err(reason) = self.receive(until).await
        {
            return Reading::error(reason);
        }
        self.waiting_since = Some(Instant::now());
        // The channel has room: every request before was answered. Where the thread is gone, receiving says so.
        let _ = self.requests.try_send(scope);
        self.receive(until).await.unwrap_or_else(Reading::error)
    }

    /// Calls to NVML so far.
    pub(super) fn calls(&self) -> u64 {
        self.progress.calls()
    }

    async fn receive(&mut self, until: Instant) -> Result<Reading<Round>, String> {
        match time::timeout_at(until, self.rounds.recv()).await {
            Ok(Some(round)) => {
                self.waiting_since = None;
                Ok(round)
            }
            Ok(None) => Err("the thread that asks NVML has ended: restart the agent".to_owned()),
            Err(_) => Err(format!(
                "NVML has not answered for {} s (in {}): the driver hangs",
                self.waiting_since.map_or(0, |since| since.elapsed().as_secs()),
                self.progress
            )),
        }
    }
}
