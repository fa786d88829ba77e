//! The shell: starts the probes, the server and the heart, and feeds the control loop.
//!
//! ```text
//!  gpu, host, inference, enclave ─┐                        ┌─► server: GET /health
//!  heart ── registered, written ──┤                        ├─► heart: heartbeats, findings
//!  notices, orders, reports ──────┼─► control loop: State ─┤ snapshots
//!  cleanup: what it found ────────┤                        ├─► cleanup: begins, ends
//!  supervisor ── reload ──────────┤                        ├─► keeper: what outlives the process
//!  shutdown ── drain ─────────────┘                        └─► supervisor: READY, STATUS
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
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::{self, Duration},
};

use crate::{
    cleanup::{self, Scope},
    config::Config,
    enclave::{self, relay::Relay},
    gpu,
    heartbeat::{Heart, LEAVE_LIMIT},
    host,
    identity::{self, IdentityError, Imds},
    inference::{self, push},
    journal::Journal,
    lifecycle::{self, Drained, Keeper, Kept},
    notices::{self, Farewell},
    reload::{Live, Settings},
    server,
    state::{Event, Snapshot, State},
    supervisor::{Reload, Supervisor},
};

/// Events that wait for the control loop, which never waits itself; a full queue holds the probes back.
pub(crate) const EVENTS: usize = 64;

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
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("one of the agent's own tasks ended before the agent did: {0}")]
    TaskEnded(String),
}

/// Serves on `listener` until `shutdown`, then drains, deregisters and returns.
pub async fn run(
    listener: TcpListener,
    config: Config,
    supervisor: Supervisor,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let start = Instant::now();
    let address = listener.local_addr().map_err(RunError::Listener)?;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut imds = Imds::new(&config.identity.endpoint)?;
    let told = tokio::select! {
        told = identity::ask(&config, &mut imds) => told,
        () = &mut shutdown => return Ok(()),
    };
    let registration = identity::registration(&config, &told, address.port(), now())?;
    tracing::info!(id = %registration.id, region = %registration.region, %address, "agent listens");

    let farewell = Farewell::new(&config, &told, &registration)?;
    let on_aws = told.is_ok() || registration.provider.as_deref() == Some("aws");
    let imds = config.notices.enabled.unwrap_or(on_aws).then_some(imds);
    let keeper = config.state_directory.as_ref();
    let keeper = keeper.map(|directory| Keeper::new(directory, registration.id.as_str()));
    let state = State::new(
        registration.clone(),
        config.inference.is_some(),
        config.requirements(),
        config.drain,
    )
    .with_past(Scope::of(&config), keeper.as_ref().map_or_else(Kept::default, Keeper::load));
    let (publish, snapshots) = watch::channel(Arc::new(state.snapshot(now())));
    let (events, inbox) = mpsc::channel(EVENTS);
    let (running, ending) = watch::channel(());
    let settings = Settings::new(&config);
    let (live, changes) = watch::channel(settings.live().clone());
    let (mut probes, gpus) = start_probes(&config, &changes, start, &events)?;
    start_life(&config, keeper, imds, gpus, &snapshots, &events, &mut probes);
    let reports = push::start(config.inference.as_ref(), start, &events, &mut probes);
    let relay = Relay::new(config.enclave.channel.clone(), changes.clone());
    probes.spawn(server::serve(listener, snapshots.clone(), reports, relay, events.clone()));
    let mut hearts = JoinSet::new();
    hearts.spawn(
        Heart {
            store: config.store,
            settings: changes,
            registration,
            snapshots,
            events,
            ending,
            farewell,
        }
        .run(),
    );

    let journal = Journal::default();
    let mut control = Control { state, publish, start, inbox, supervisor, settings, live, journal };
    control.run(shutdown, &mut probes, &mut hearts).await?;
    // From here on nobody reads events. `/health` is still served, out of the last snapshot.
    drop(control.inbox);
    drop(running);
    match time::timeout(HEART_LIMIT, hearts.join_next()).await {
        Ok(Some(Err(error))) => return Err(ended(Err(error))),
        Ok(_) => {}
        Err(_) => tracing::warn!("the store did not answer in time: the agent goes without it"),
    }
    tracing::info!("agent ends");
    Ok(())
}

/// Starts the tasks that move the instance's life, or follow it.
fn start_life(
    config: &Config,
    keeper: Option<Keeper>,
    imds: Option<Imds>,
    gpus: gpu::Asker,
    snapshots: &watch::Receiver<Arc<Snapshot>>,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<()>,
) {
    tasks.spawn(cleanup::run(config.cleanup.clone(), gpus, snapshots.clone(), events.clone()));
    if let Some(keeper) = keeper {
        tasks.spawn(lifecycle::keep(keeper, snapshots.clone(), events.clone()));
    }
    if let Some(imds) = imds {
        tasks.spawn(notices::watch(imds, config.notices.clone(), events.clone()));
    }
}

/// Starts the tasks that ask the machine's parts, each at its own pace, and gives whom to ask for the GPUs at once.
pub(crate) fn start_probes(
    config: &Config,
    settings: &watch::Receiver<Live>,
    start: Instant,
    events: &mpsc::Sender<Event>,
) -> Result<(JoinSet<()>, gpu::Asker), RunError> {
    let mut probes = JoinSet::new();
    let (prober, gpus) = gpu::Prober::start(config.gpu.clone()).map_err(RunError::GpuThread)?;
    probes.spawn(prober.run(settings.clone(), events.clone()));
    if let Some(inference) = &config.inference {
        let own_port = config.listen.port();
        if let Some(poller) = inference::Poller::new(inference, own_port)? {
            probes.spawn(inference::run(poller, settings.clone(), start, events.clone()));
        }
    }
    probes.spawn(enclave::run(config.enclave.clone(), settings.clone(), events.clone()));
    probes.spawn(host::run(events.clone()));
    Ok((probes, gpus))
}

/// The control loop: one event, one synchronous step, one snapshot.
struct Control {
    state: State,
    publish: watch::Sender<Arc<Snapshot>>,
    start: Instant,
    inbox: mpsc::Receiver<Event>,
    supervisor: Supervisor,
    settings: Settings,
    live: watch::Sender<Live>,
    journal: Journal,
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
                    self.supervisor.stopping(self.settings.live().drain.deadline + HEART_LIMIT);
                    Event::Drain
                }
                _ = ticks.tick(), if self.state.waits() => Event::Tick,
                reload = self.supervisor.next_reload() => self.reload(reload),
                Some(end) = probes.join_next() => return Err(ended(end)),
                Some(end) = hearts.join_next() => return Err(ended(end)),
            };
            self.apply(event);
            if self.state.drained().is_some() {
                return Ok(());
            }
        }
    }

    /// Takes the new settings over as far as that is possible without a restart.
    fn reload(&mut self, reload: Reload) -> Event {
        let applied = self.settings.take(reload, now());
        let status = self.settings.status();
        match &status.error {
            Some(error) => tracing::error!(%error, "reload refused: the settings from before hold"),
            None => {
                tracing::info!(?applied, restart_needed = ?status.restart_needed, "reloaded");
            }
        }
        let live = self.settings.live().clone();
        let (requirements, limits) = (live.requirements, live.drain);
        self.live.send_replace(live);
        self.supervisor.reloaded();
        Event::Reconfigured { requirements, limits }
    }

    fn apply(&mut self, event: Event) {
        let is_tick = matches!(event, Event::Tick);
        let before = self.state.milestone();
        self.state.apply(event, self.start.elapsed());
        let after = self.state.milestone();
        if is_tick && before == after {
            return;
        }
        if before.drained != after.drained {
            log_drained(after.drained);
        }
        let mut snapshot = self.state.snapshot(now());
        snapshot.config = self.settings.status().clone();
        snapshot.changes = self.journal.follow(&self.publish.borrow(), &snapshot);
        let snapshot = Arc::new(snapshot);
        let before = self.publish.send_replace(Arc::clone(&snapshot));
        self.supervisor.observe(&snapshot);
        if before.lifecycle != snapshot.lifecycle {
            let reason = snapshot.course.life.reason().unwrap_or_default();
            tracing::info!(
                from = before.lifecycle.as_str(),
                to = snapshot.lifecycle.as_str(),
                reason,
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

fn log_drained(end: Option<Drained>) {
    match end {
        None => {}
        Some(Drained::Idle) => tracing::info!("drained: nothing is in flight"),
        Some(Drained::GraceOver) => {
            tracing::warn!("drained for the grace: what is in flight is unknown");
        }
        Some(Drained::DeadlineOver) => {
            tracing::warn!("the drain's deadline is over, with requests in flight");
        }
    }
}

fn ended(end: Result<(), JoinError>) -> RunError {
    RunError::TaskEnded(match end {
        Ok(()) => "it returned".to_owned(),
        Err(error) => error.to_string(),
    })
}

/// By this machine's clock.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
