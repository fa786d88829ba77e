//! The GPUs: what NVML says of them, the XIDs that the driver tells, and how fit they are by both.
//!
//! An NVML call can hang for as long as the driver does, and nothing can interrupt it. So NVML has threads of
//! its own, and a task waits for them for at most a deadline; while a thread is stuck, that is the reading,
//! with the name of the call, and no further call is made.
//!
//! ```text
//!  thread nvml: rounds ◄─request, answer within the deadline──► task: Tracker ──reading──► control loop
//!  thread xid-events: NVML's events ────────────sightings───────►
//!  thread xid-log: /dev/kmsg ───────────────────sightings───────►
//! ```

mod clock;
mod events;
mod fitness;
mod kmsg;
mod ledger;
pub(crate) mod metrics;
mod nvml;
pub mod status;
mod tracker;
mod worker;
mod xid;

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot, watch};

use self::{
    nvml::Scope,
    status::Gpus,
    tracker::{Observation, Tracker},
    worker::Worker,
};
use crate::{
    config,
    reload::{Cadence, Live},
    signals::Reading,
    state::Event,
};

/// Batches of XIDs that wait for the task; a full queue holds the threads back, and the kernel keeps its log.
const OBSERVATIONS: usize = 64;

/// Those who may wait for a look at once.
const ASKERS: usize = 4;

/// Has the GPUs looked at when that is needed, and not only when it is time.
#[derive(Clone, Debug)]
pub(crate) struct Asker(mpsc::Sender<Reply>);

/// Where an answer is waited for.
type Reply = oneshot::Sender<Reading<Gpus>>;

impl Asker {
    /// Everything about every GPU, asked now: also what computes on it. Within the deadline NVML's answer, or
    /// the reason why there is none.
    pub(crate) async fn look(&self) -> Reading<Gpus> {
        let (reply, answer) = oneshot::channel();
        let gone = || Reading::error("the task that samples the GPUs has ended");
        if self.0.send(reply).await.is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

/// Everything that runs for the GPUs.
#[derive(Debug)]
pub(crate) struct Prober {
    config: config::Gpu,
    worker: Worker,
    tracker: Tracker,
    observations: mpsc::Receiver<Vec<Observation>>,
    askers: mpsc::Receiver<Reply>,
    /// When the operator last acknowledged what there was.
    acknowledged: Option<SystemTime>,
}

impl Prober {
    /// Starts the threads; they end when this is dropped, or with the process where they hang.
    pub(crate) fn start(config: config::Gpu) -> io::Result<(Self, Asker)> {
        let worker = Worker::start(config.library.clone(), config.rare_every)?;
        let (outbox, observations) = mpsc::channel(OBSERVATIONS);
        let (library, to_task) = (config.library.clone(), outbox.clone());
        thread::Builder::new()
            .name("xid-events".to_owned())
            .spawn(move || events::run(library.as_deref(), &to_task))?;
        let path = config.kernel_log.clone();
        thread::Builder::new()
            .name("xid-log".to_owned())
            .spawn(move || kmsg::run(&path, &outbox))?;
        let (ask, askers) = mpsc::channel(ASKERS);
        let tracker = Tracker::new(config.count.map(|count| count as usize));
        let prober = Self { config, worker, tracker, observations, askers, acknowledged: None };
        Ok((prober, Asker(ask)))
    }

    /// Follows the GPUs until nobody listens.
    pub(crate) async fn run(
        mut self,
        settings: watch::Receiver<Live>,
        events: mpsc::Sender<Event>,
    ) {
        // Before anything is read that it may be about.
        self.look_for_acknowledgement();
        let mut ticks = Cadence::new(settings.clone(), |settings| settings.gpu_interval);
        loop {
            let deadline = settings.borrow().gpu_deadline;
            let mut asked = None;
            tokio::select! {
                _ = ticks.tick() => self.sample(Scope::Often, deadline).await,
                Some(reply) = self.askers.recv() => {
                    self.sample(Scope::Everything, deadline).await;
                    asked = Some(reply);
                }
                Some(observations) = self.observations.recv() => {
                    observations.into_iter().for_each(|one| self.tracker.observe(one));
                }
            }
            let reading = self.tracker.reading(clock::since_boot());
            if let Some(reply) = asked {
                // Whoever asked may have given up.
                let _ = reply.send(reading.clone());
            }
            if events.send(Event::Gpu(reading)).await.is_err() {
                return;
            }
        }
    }

    async fn sample(&mut self, scope: Scope, deadline: Duration) {
        let round = self.worker.sample(scope, deadline).await;
        self.tracker.sampled(round, self.worker.calls(), clock::since_boot());
        self.look_for_acknowledgement();
    }

    /// Touching the file acknowledges every XID until then.
    fn look_for_acknowledgement(&mut self) {
        let touched = modified(&self.config.acknowledgement_file);
        if touched != self.acknowledged
            && let Some(at) = touched
        {
            tracing::info!(file = %self.config.acknowledgement_file.display(), "XIDs acknowledged");
            self.tracker.acknowledge(clock::timestamp(at));
        }
        self.acknowledged = touched;
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}
