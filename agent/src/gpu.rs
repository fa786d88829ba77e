//! The GPUs, by NVML, on a thread of its own.
//!
//! An NVML call can hang for as long as the driver does, and nothing can interrupt it. So the thread answers
//! to a task that waits for at most a deadline; while the thread is stuck, that is the reading, with the name
//! of the call, and no further call is made.
//!
//! ```text
//!  task: every interval ──request──► thread: NVML ──reading──► task, within the deadline ──► control loop
//! ```

mod nvml;

use std::{
    io,
    sync::{Arc, mpsc as threads},
    thread,
    time::Instant,
};

use mrgc_fleet::model::Gpu;
use tokio::{sync::mpsc, time};

use self::nvml::{Progress, Sampler};
use crate::{config, signals::Reading, state::Event};

type Gpus = Reading<Vec<Gpu>>;

/// Samples the GPUs until nobody listens.
pub(crate) async fn run(worker: Worker, config: config::Gpu, events: mpsc::Sender<Event>) {
    let mut worker = worker;
    let mut ticks = time::interval(config.interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let reading = worker.sample(config.deadline).await;
        if events.send(Event::Gpu(reading)).await.is_err() {
            return;
        }
    }
}

/// The thread that talks to NVML, seen from outside.
#[derive(Debug)]
pub(crate) struct Worker {
    requests: threads::SyncSender<()>,
    readings: mpsc::Receiver<Gpus>,
    progress: Arc<Progress>,
    /// When the request was made that has no reading yet.
    waiting_since: Option<Instant>,
}

impl Worker {
    /// Starts the thread; it ends when this is dropped, or with the process where it hangs.
    pub(crate) fn start(library: Option<String>) -> io::Result<Self> {
        let (requests, inbox) = threads::sync_channel(1);
        let (outbox, readings) = mpsc::channel(1);
        let progress = Arc::new(Progress::default());
        let mut sampler = Sampler::new(library, Arc::clone(&progress));
        thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            while inbox.recv().is_ok() {
                if outbox.blocking_send(sampler.sample()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, readings, progress, waiting_since: None })
    }

    /// A fresh reading, or within `deadline` the reason why there is none.
    async fn sample(&mut self, deadline: time::Duration) -> Gpus {
        let asked = match self.waiting_since {
            Some(asked) => asked,
            None => {
                // The channel has room: every request before was answered. Where the thread is gone,
                // receiving says so.
                let _ = self.requests.try_send(());
                *self.waiting_since.insert(Instant::now())
            }
        };
        match time::timeout(deadline, self.readings.recv()).await {
            Ok(Some(reading)) => {
                self.waiting_since = None;
                reading
            }
            Ok(None) => {
                Reading::error("the thread that samples the GPUs has ended: restart the agent")
            }
            Err(_) => Reading::error(format!(
                "NVML has not answered for {} s (in {}): the driver hangs",
                asked.elapsed().as_secs(),
                self.progress
            )),
        }
    }
}
