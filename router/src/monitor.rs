//! The shell around [`fleet::monitor`](mrgc_fleet::monitor): what happens reaches the machine as one event
//! after another, and what it says is published and done.
//!
//! ```text
//!  store ─► follow ─┐                            ┌─► snapshots ─► conductor ─► data threads
//!  probes, pings ───┤ events                     ├─► probes and pings that are due
//!  control API ─────┼────────► Shell ── Monitor ─┤
//!  ejections, ──────┤                            └─► actions ─► store, while a lease is held
//!  attestations ────┘
//! ```

mod losses;

use std::time::{Duration, Instant};

use mrgc_fleet::{
    failover::FailoverEvent,
    health::ProbeResult,
    model::{InstanceId, RegionId, Registration, Standing},
    monitor::{LONGEST_TURN_MS, Monitor, PingDue, ProbeDue, Reading, Settings},
    snapshot::Snapshot,
};
use tokio::sync::mpsc;

use crate::{
    attestation::{Attestations, Known, Mask},
    cloud,
    config::{Config, Role},
    control::failover::Command,
    executor::Executor,
    failovers::Failovers,
    flight::{Clock, FleetView, Signs, Slot},
    health::{Check, HealthBoard},
    ping::{AttestedPools, Pinger, Pong},
    policies::Handle,
    probe::{
        Prober,
        answers::{LastProbes, Sent, has_answered_since, has_reported_since},
    },
    sync::{publish, wall_clock},
};

/// Events that wait for the shell. At the bound, whoever has something to say waits.
pub const EVENTS: usize = 1_024;

/// Between two snapshots; what cannot wait is a mask on the data threads.
const LEAST_BETWEEN_SNAPSHOTS: Duration = Duration::from_millis(250);

/// Between two walks over home's instances, but where live requests have just ejected one.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// Events that are taken before what follows from them is done.
const AT_ONCE: usize = 64;

/// The shell's sleeps. The shortest bounds how often it can turn for nothing.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(LONGEST_TURN_MS / 2);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    Read {
        reading: Box<Reading>,
        /// Between two such looks.
        interval: Duration,
    },
    /// The store could not be read.
    Away(String),
    Probed {
        id: InstanceId,
        result: ProbeResult,
        /// The probe before.
        before: Option<Sent>,
    },
    Pinged {
        region: RegionId,
        number: u64,
        /// `None` where nobody answered.
        pong: Option<Pong>,
    },
    /// At EC2's status of the instances.
    Looked(cloud::Look),
    Command(Command),
    /// What is stored of past failovers, for whoever took the lease in this epoch.
    History {
        epoch: u64,
        events: Vec<FailoverEvent>,
    },
}

/// The monitor, with what this router knows of enclaves beyond what their agents say.
#[derive(Debug)]
pub struct Observer {
    monitor: Monitor,
    attestations: Attestations,
    mask: Mask,
    /// By the word of other regions' routers.
    attested_pools: AttestedPools,
}

impl Observer {
    pub fn new(config: &Config, router: &str, attestations: Attestations) -> Self {
        let (mask, attested_pools) = Default::default();
        let monitor = Monitor::new(settings(config, router), wall_clock());
        Self { monitor, attestations, mask, attested_pools }
    }

    pub fn read(&mut self, reading: Reading, interval: Duration, now_ms: u64) {
        self.mask.keep(&reading.standings);
        self.monitor.read(reading, interval.as_millis() as u64, now_ms);
    }

    /// What is stored of past failovers, to begin with.
    pub fn restore(&mut self, events: Vec<FailoverEvent>) {
        self.monitor.restore(events, None);
    }

    /// The fleet as it is known now.
    pub fn snapshot(&mut self) -> Snapshot {
        let Self { monitor, attestations, mask, attested_pools } = self;
        let board = attestations.board();
        let known = Known { board: &board, elsewhere: attested_pools, now: Instant::now() };
        monitor.compose(wall_clock(), |standing| mask.apply(standing, &known))
    }
}

fn settings(config: &Config, router: &str) -> Settings {
    let checks = &config.health_check;
    // What a configuration lists does not go stale.
    let stale_after =
        config.store.as_ref().map(|_| Duration::from_secs_f64(checks.stale_after_seconds));
    Settings {
        home: config.home(),
        router: router.to_owned(),
        stale_after_ms: stale_after.map_or(u64::MAX, |after| after.as_millis() as u64),
        probes: config.roles.has(Role::Health).then(|| checks.probes()),
        peers: checks.peers(),
        thresholds: config.failover.thresholds(),
        max_drained_share: checks.max_drained_share,
    }
}

/// What the shell works with.
#[derive(Debug)]
pub struct Parts {
    pub conductor: Handle,
    /// Whether this process forwards requests, and so sees who answers them.
    pub forwards: bool,
    pub health: HealthBoard,
    pub signs: Signs,
    pub clock: Clock,
    /// `None` where this process does not probe.
    pub prober: Option<Prober>,
    pub pinger: Pinger,
    /// `None` where EC2 is not asked.
    pub cloud: Option<cloud::Watch>,
    pub executor: Executor,
    pub failovers: Failovers,
    pub events: mpsc::Sender<Event>,
}

#[derive(Debug)]
pub struct Shell {
    observer: Observer,
    parts: Parts,
    last_probes: LastProbes,
    published: Instant,
    is_stale: bool,
    /// When home's instances were walked over last.
    swept: Option<Instant>,
    /// The last epoch of the lease under which the history was asked for.
    asked: Option<u64>,
}

impl Shell {
    pub fn new(observer: Observer, parts: Parts) -> Self {
        let (last_probes, published) = (LastProbes::default(), Instant::now());
        Self { observer, parts, last_probes, published, is_stale: true, swept: None, asked: None }
    }

    /// Runs until the process ends.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let (signs, attestations) = (self.parts.signs.clone(), self.observer.attestations.clone());
        let mut batch = Vec::new();
        loop {
            let pause = self.pause();
            tokio::select! {
                taken = events.recv_many(&mut batch, AT_ONCE) => match taken {
                    0 => return,
                    _ => batch.drain(..).for_each(|event| self.apply(event)),
                },
                () = signs.changed() => self.swept = None,
                () = attestations.revoked() => self.is_stale = true,
                () = tokio::time::sleep(pause) => {}
            }
            self.turn();
        }
    }

    fn apply(&mut self, event: Event) {
        let now_ms = self.parts.clock.now_ms();
        let monitor = &mut self.observer.monitor;
        match event {
            Event::Read { reading, interval } => {
                self.parts.health.set("store", Check::ok());
                self.observer.read(*reading, interval, now_ms);
                self.last_probes.keep(self.observer.monitor.home_instances());
            }
            Event::Away(why) => {
                let why = format!("the last snapshot stands: {why}");
                self.parts.health.set("store", Check::degraded(why));
                // What attested the enclaves lapses all the same.
                self.is_stale = true;
            }
            Event::Probed { id, result, before } => {
                let (fleet, before) = (self.parts.conductor.fleet(), before.as_ref());
                let slot = monitor.standing(&id).and_then(|standing| slot(&fleet, standing));
                let answered = match self.parts.forwards {
                    true => slot.is_some_and(|s| has_answered_since(before, s.answered_ms())),
                    false => monitor.standing(&id).is_some_and(|s| has_reported_since(before, s)),
                };
                let was_unhealthy = monitor.verdict(&id).is_unhealthy();
                if let Some(verdict) = monitor.probed(&id, result, answered, now_ms) {
                    tracing::info!(instance = %id, ?verdict, "its probes changed their verdict");
                    if let Some(slot) = slot.filter(|_| was_unhealthy) {
                        slot.rejoin(now_ms);
                    }
                }
            }
            Event::Pinged { region, number, pong } => {
                let rtt_ms = pong.as_ref().map(|pong| pong.rtt_ms);
                monitor.pinged(&region, number, rtt_ms);
                if let Some(pong) = pong {
                    let known = self.observer.attested_pools.entry(region).or_default();
                    self.is_stale |= *known != pong.attested_pools;
                    *known = pong.attested_pools;
                }
            }
            Event::Looked(look) => {
                if let Some(cloud) = &mut self.parts.cloud {
                    cloud.looked(look, monitor, now_ms);
                }
            }
            Event::History { epoch, events } => monitor.restore(events, Some(epoch)),
            Event::Command(command) => command.execute(monitor, &self.parts.executor, now_ms),
        }
    }

    /// What follows from the events that were applied.
    fn turn(&mut self) {
        let (now_ms, at) = (self.parts.clock.now_ms(), wall_clock());
        let fleet = self.parts.conductor.fleet();
        let monitor = &mut self.observer.monitor;
        if self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY) {
            self.swept = Some(Instant::now());
            monitor.ejected(losses::at_home(monitor, &fleet, now_ms));
        }
        let outputs = monitor.evaluate(now_ms, at);
        let timeout_ms = monitor.handler().thresholds().failover_timeout_ms;
        self.parts.failovers.take(&outputs, timeout_ms);
        losses::elsewhere(monitor, &fleet);
        let executor = &self.parts.executor;
        let epochs = executor.epochs();
        if let Some(cloud) = &mut self.parts.cloud {
            cloud.turn(epochs.health.is_some(), monitor, &self.parts.events, now_ms);
        }
        if let Some(epoch) = epochs.failover.filter(|epoch| self.asked != Some(*epoch)) {
            self.asked = Some(epoch);
            executor.read_history(epoch, self.parts.events.clone());
        }
        for action in monitor.actions(epochs, executor.room(), now_ms, at) {
            executor.submit(action, epochs);
        }
        self.is_stale |= monitor.take_changes();
        self.send_out(now_ms);
        if self.is_stale && self.published.elapsed() >= LEAST_BETWEEN_SNAPSHOTS {
            self.is_stale = false;
            self.published = Instant::now();
            publish(&self.parts.conductor, &self.parts.health, self.observer.snapshot());
        }
    }

    fn pause(&self) -> Duration {
        let now_ms = self.parts.clock.now_ms();
        let next_ms = self.observer.monitor.next_ms(now_ms).saturating_sub(now_ms);
        let publish = match self.is_stale {
            true => LEAST_BETWEEN_SNAPSHOTS.saturating_sub(self.published.elapsed()),
            false => LONGEST_PAUSE,
        };
        Duration::from_millis(next_ms).min(publish).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// Sends the probes and pings that are due; each comes back as an event.
    fn send_out(&mut self, now_ms: u64) {
        let monitor = &mut self.observer.monitor;
        if let Some(prober) = &self.parts.prober {
            for ProbeDue { id, address } in monitor.probes_due(now_ms) {
                let (prober, events) = (prober.clone(), self.parts.events.clone());
                let sent = Sent { at_ms: now_ms, standing: monitor.standing(&id).cloned() };
                let before = self.last_probes.sent(&id, sent);
                tokio::spawn(async move {
                    let result = prober.probe(&address).await;
                    // The shell is gone when the process ends.
                    let _ = events.send(Event::Probed { id, result, before }).await;
                });
            }
        }
        for PingDue { region, endpoint, number } in monitor.pings_due(now_ms) {
            let (pinger, events) = (self.parts.pinger.clone(), self.parts.events.clone());
            tokio::spawn(async move {
                let pong = pinger.ping(&endpoint).await;
                let _ = events.send(Event::Pinged { region, number, pong }).await;
            });
        }
    }
}

/// Of an instance of home. A view's candidates come by their ids.
fn slot<'a>(fleet: &'a FleetView, standing: &Standing) -> Option<&'a Slot> {
    let Registration { id, pool, .. } = &*standing.registration;
    let view = fleet.snapshot.instances_at_home(pool)?;
    let at = view.candidates.binary_search_by(|candidate| (*candidate.id).cmp(id.as_str())).ok()?;
    fleet.slot(view.id, at as u32)
}
