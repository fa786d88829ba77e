//! What watches the fleet: made before anything is decided, with all that was known so far, and started at last.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use mrgc_fleet::monitor::Reading;
use mrgc_store::{Store, StoreError};
use tokio::sync::mpsc;

use crate::{
    attestation::{Attestations, Board, Pace},
    cloud::{Cloud, Groups},
    config::{Config, Role},
    control::{self, Uploads},
    data,
    executor::{self, Executor},
    failovers::Failovers,
    flight::{Clock, Signs},
    health::{Check, HealthBoard},
    monitor::{self, Event, Observer, Parts, Shell},
    ping::Pinger,
    policies::Handle,
    probe::Prober,
    sync::{self, Followers},
};

/// What watches the fleet, before it does.
pub(super) struct Watcher {
    config: Arc<Config>,
    pub store: Option<Store>,
    /// A start waits once for a store that is away, and goes on without it.
    pub is_store_away: bool,
    followers: Option<Followers>,
    pub observer: Observer,
    pub attestations: Attestations,
    pub cloud: Cloud,
    /// `None` where this process does not probe.
    prober: Option<Prober>,
    pub failovers: Failovers,
    pub health: HealthBoard,
    pub signs: Signs,
    pub clock: Clock,
    /// Who this process is among the region's routers.
    pub node: u32,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Watcher {
    /// Connects to the store and reads it for the first time.
    pub async fn start(config: &Arc<Config>) -> Result<Self> {
        let health = HealthBoard::new(config.home(), config.roles.has(Role::Proxy));
        let (clock, node) = (Clock::default(), data::node());
        let (store, mut is_store_away) = connect(config, &health).await?;
        let followers = |store| Followers::new(store, config.home(), config.follow);
        let mut followers = store.clone().map(followers);
        let attestations = attestations(config);
        let mut observer = Observer::new(config, &name(config, node), attestations.clone());
        let reading = match followers.as_mut() {
            None => Some(sync::static_state(config)),
            Some(_) if is_store_away => None,
            Some(followers) => first_reading(config, followers, &health).await?,
        };
        is_store_away = reading.is_none();
        let reading = reading
            .unwrap_or_else(|| Reading { regions: config.regions.clone(), ..Reading::default() });
        let interval = config.follow.interval(reading.standings.len());
        observer.read(reading, interval, clock.now_ms());
        if let Some(store) = store.as_ref().filter(|_| !is_store_away) {
            match executor::past_failovers(store, &config.home()).await {
                Ok(past) => observer.restore(past),
                // Without them the counts begin again: nothing to fail for.
                Err(e) => {
                    tracing::warn!("no history of failovers to start with: {e}");
                    is_store_away = e.is_retryable();
                }
            }
        }
        let cloud = Cloud::connect(config, &health).await?;
        let probes = config.roles.has(Role::Health);
        let prober = probes.then(|| Prober::new(&config.health_check)).transpose()?;
        let (events, inbox) = mpsc::channel(monitor::EVENTS);
        Ok(Self {
            config: config.clone(),
            store,
            is_store_away,
            followers,
            observer,
            attestations,
            cloud,
            prober,
            failovers: Failovers::default(),
            health,
            signs: Signs::default(),
            clock,
            node,
            events,
            inbox,
        })
    }

    pub fn failover(&self) -> control::Failover {
        let router = name(&self.config, self.node);
        control::Failover::new(self.events.clone(), router, self.prober.clone())
    }

    /// Watches from now on.
    pub fn run(self, conductor: Handle, uploads: Option<Arc<Uploads>>) -> Result<()> {
        let Self { config, events, .. } = self;
        let router = name(&config, self.node);
        let executor = self.store.map(|store| {
            let start = |service| Groups::start(service, store.clone(), &router);
            Executor::start(&store, &config, &router, self.cloud.auto_scaling.map(start))
        });
        let parts = Parts {
            conductor,
            forwards: config.roles.has(Role::Proxy),
            health: self.health,
            signs: self.signs,
            clock: self.clock,
            prober: self.prober,
            pinger: Pinger::new(reqwest::Client::builder().no_proxy().build()?),
            cloud: self.cloud.watch,
            executor: executor.unwrap_or_default(),
            failovers: self.failovers,
            events: events.clone(),
        };
        tokio::spawn(Shell::new(self.observer, parts).run(self.inbox));
        if let Some(followers) = self.followers {
            tokio::spawn(sync::follow(followers, events, uploads));
        }
        Ok(())
    }
}

/// As in `us-east-1-0a1b2c3d`.
fn name(config: &Config, node: u32) -> String {
    format!("{}-{node:08x}", config.home())
}

/// Nothing is attested yet.
fn attestations(config: &Config) -> Attestations {
    let settings = &config.attestation;
    let pace = Pace { interval: settings.interval(), max_age: settings.max_age() };
    Attestations::new(Board::new(config.home(), settings.pools(), pace))
}

/// The store, if one is configured, and whether it is away. That its tables do not fit is an error; that it
/// is away is not.
async fn connect(config: &Config, health: &HealthBoard) -> Result<(Option<Store>, bool)> {
    let Some(settings) = &config.store else { return Ok((None, false)) };
    let store = Store::connect(settings).await.context("[store]")?;
    let is_away = match store.check().await {
        Ok(()) => {
            health.set("store", Check::ok());
            false
        }
        Err(e @ (StoreError::MissingTable { .. } | StoreError::WrongSchema { .. })) => {
            return Err(e).context("the store's tables do not fit");
        }
        Err(e) => {
            tracing::warn!("the store is away: {e}");
            health.set("store", Check::degraded(e.to_string()));
            // A replica may answer what is read.
            e.is_retryable() && settings.replicas.is_empty()
        }
    };
    Ok((Some(store), is_away))
}

/// `None` where the store is away.
async fn first_reading(
    config: &Config,
    followers: &mut Followers,
    health: &HealthBoard,
) -> Result<Option<Reading>> {
    let read = async {
        for region in &config.regions {
            followers.store().put_region(region).await?;
        }
        followers.refresh().await
    };
    match read.await {
        Ok(state) => Ok(Some(state)),
        Err(e) if e.is_retryable() => {
            tracing::warn!("no state to start with: {e}");
            health.set("store", Check::degraded(e.to_string()));
            Ok(None)
        }
        Err(e) => Err(e).context("cannot register the configured regions"),
    }
}
