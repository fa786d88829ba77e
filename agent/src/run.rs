//! The shell: starts the probes, the server and the heart, and feeds the control loop.
//!
//! ```text
//!  gpu, host, inference, enclave ─┐                        ┌─► server: GET /health
//!  heart ── registered, written ──┼─► control loop: State ─┤ snapshots
//!  shutdown ── drain ─────────────┘                        └─► heart: heartbeats
//! ```

use std::{
    future::Future,
    io,
    sync::Arc,
    time::{Instant, SystemTime},
};

use mrgc_fleet::model::Timestamp;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{self, Duration},
};

use crate::{
    config::Config,
    enclave, gpu,
    heartbeat::{Heart, LEAVE_LIMIT},
    host, inference,
    lifecycle::Drained,
    server,
    state::{Event, Snapshot, State},
};

/// Events that wait for the control loop, which never waits itself; a full queue holds the probes back.
const EVENTS: usize = 64;

/// How often a drain is looked at between samples.
const DRAIN_TICK: Duration = Duration::from_millis(100);

/// Beyond the deregistration, what a call to the store that is under way may take.
const HEART_LIMIT: Duration = LEAVE_LIMIT.saturating_add(Duration::from_secs(5));

/// Why the agent cannot run, or no longer.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("the listener has no address: {0}")]
    Listener(#[source] io::Error),
    #[error("cannot start the thread that samples the GPUs: {0}")]
    GpuThread(#[source] io::Error),
    #[error("cannot make an HTTP client for the inference server: {0}")]
    Client(#[from] reqwest::Error),
    #[error("one of the agent's own tasks ended before the agent did: {0}")]
    TaskEnded(String),
}

/// Serves on `listener` until `shutdown`, then drains, deregisters and returns.
pub async fn run(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let start = Instant::now();
    let address = listener.local_addr().map_err(RunError::Listener)?;
    let registration = config.instance.registration(address.port(), now());
    tracing::info!(id = %registration.id, region = %registration.region, %address, "agent listens");

    let state = State::new(
        registration.clone(),
        config.inference.is_some(),
        config.requirements(),
        config.drain,
    );
    let (publish, snapshots) = watch::channel(Arc::new(state.snapshot(now())));
    let (events, inbox) = mpsc::channel(EVENTS);
    let (drained, drain_over) = oneshot::channel();
    let mut probes = start_probes(&config, start, &events)?;
    probes.spawn(server::serve(listener, snapshots.clone()));
    let mut hearts = JoinSet::new();
    hearts.spawn(
        Heart {
            store: config.store,
            pace: config.heartbeat,
            registration,
            snapshots,
            events,
            drained: drain_over,
        }
        .run(),
    );

    let mut control = Control { state, publish, start, inbox };
    control.run(shutdown, &mut probes, &mut hearts).await?;
    // From here on nobody reads events. `/health` is still served, out of the last snapshot.
    drop(control.inbox);
    drop(drained);
    match time::timeout(HEART_LIMIT, hearts.join_next()).await {
        Ok(Some(Err(error))) => return Err(ended(Err(error))),
        Ok(_) => {}
        Err(_) => tracing::warn!("the store did not answer in time: the agent goes without it"),
    }
    tracing::info!("agent ends");
    Ok(())
}

/// Starts the tasks that ask the machine's parts, each at its own pace.
fn start_probes(
    config: &Config,
    start: Instant,
    events: &mpsc::Sender<Event>,
) -> Result<JoinSet<()>, RunError> {
    let mut probes = JoinSet::new();
    let worker = gpu::Worker::start(config.gpu.library.clone()).map_err(RunError::GpuThread)?;
    probes.spawn(gpu::run(worker, config.gpu.clone(), events.clone()));
    if let Some(inference) = &config.inference {
        let server = inference::Server::new(inference)?;
        probes.spawn(inference::run(server, inference.poll_interval, start, events.clone()));
    }
    probes.spawn(enclave::run(config.enclave.clone(), events.clone()));
    probes.spawn(host::run(events.clone()));
    Ok(probes)
}

/// The control loop: one event, one synchronous step, one snapshot.
struct Control {
    state: State,
    publish: watch::Sender<Arc<Snapshot>>,
    start: Instant,
    inbox: mpsc::Receiver<Event>,
}

impl Control {
    /// Runs until the drain that `shutdown` begins is over.
    async fn run(
        &mut self,
        shutdown: impl Future<Output = ()>,
        probes: &mut JoinSet<()>,
        hearts: &mut JoinSet<()>,
    ) -> Result<(), RunError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut draining = false;
        let mut ticks = time::interval(DRAIN_TICK);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        loop {
            let event = tokio::select! {
                Some(event) = self.inbox.recv() => event,
                () = &mut shutdown, if !draining => {
                    draining = true;
                    tracing::info!("asked to go: draining");
                    Event::Drain
                }
                _ = ticks.tick(), if draining => Event::Tick,
                Some(end) = probes.join_next() => return Err(ended(end)),
                // While draining, the heart ends where it never registered.
                Some(end) = hearts.join_next() => match end {
                    Ok(()) if draining => continue,
                    end => return Err(ended(end)),
                },
            };
            self.apply(event);
            if let Some(end) = self.state.drained() {
                match end {
                    Drained::Idle => tracing::info!("drained: nothing is in flight"),
                    Drained::GraceOver => {
                        tracing::warn!("drained for the grace: what is in flight is unknown");
                    }
                    Drained::DeadlineOver(left) => {
                        tracing::warn!(?left, "the drain's deadline is over");
                    }
                }
                return Ok(());
            }
        }
    }

    fn apply(&mut self, event: Event) {
        let is_tick = matches!(event, Event::Tick);
        self.state.apply(event, self.start.elapsed());
        if is_tick && self.state.drained().is_none() {
            return;
        }
        let snapshot = Arc::new(self.state.snapshot(now()));
        let before = self.publish.send_replace(Arc::clone(&snapshot));
        if before.lifecycle != snapshot.lifecycle {
            tracing::info!(
                from = before.lifecycle.as_str(),
                to = snapshot.lifecycle.as_str(),
                "lifecycle"
            );
        }
        let (was, is) = (&before.assessment, &snapshot.assessment);
        if was.health != is.health {
            let reason = is.reason.as_deref().unwrap_or_default();
            tracing::info!(from = was.health.as_str(), to = is.health.as_str(), reason, "health");
        }
    }
}

fn ended(end: Result<(), JoinError>) -> RunError {
    RunError::TaskEnded(match end {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    })
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
