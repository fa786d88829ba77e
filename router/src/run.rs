//! Putting the parts together, and taking them down again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use mrgc_fleet::monitor::Reading;
use mrgc_policy_host::Engine;
use mrgc_store::{Store, StoreConfig, StoreError, embedded};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    attestation::{self, Asker, Attestations, Board, Pace},
    cloud::{self, Cloud, Groups},
    collect::{self, Collection},
    config::{Config, Role},
    control::{self, Context, Uploads},
    data,
    deeds::{self, Doer},
    flight::{Clock, Signs, SlotTable},
    health::{Check, HealthBoard},
    monitor::{self, Event, Observer, Parts, Shell},
    ping::Pinger,
    policies::{Conductor, Handle, RouteTable, Version, catalog},
    probe::Prober,
    supervisor,
    sync::{self, Followers},
};

/// Where a running router listens. `None` for a role it does not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Running {
    pub data: Option<SocketAddr>,
    pub control: Option<SocketAddr>,
    pub state: Option<SocketAddr>,
}

/// Runs the router's roles until `shutdown` turns true and what was in flight has ended. `started` is
/// called once, when everything listens.
///
/// # Errors
///
/// What keeps it from starting: an address in use, a policy that is nowhere, tables that do not fit.
pub async fn run(
    config: Config,
    shutdown: watch::Receiver<bool>,
    started: impl FnOnce(Running),
) -> Result<()> {
    let mut config = config;
    let mut running = Running::default();
    let mut background = JoinSet::new();
    if config.roles.has(Role::State) {
        let address = serve_state(&config, &shutdown, &mut background).await?;
        running.state = Some(address);
        // A lone router uses the engine it serves.
        let store = config.store.get_or_insert_with(StoreConfig::default);
        store.endpoint.get_or_insert_with(|| format!("http://{address}"));
    }
    if config.roles.has(Role::Proxy) {
        let (proxy, control) = start_proxy(config, &shutdown, &mut background).await?;
        running.data = Some(proxy.context.threads.address);
        running.control = Some(control);
        let context = proxy.context.clone();
        let drain = Duration::from_secs(context.config.limits.drain_seconds);
        let turns = move || context.threads.turns();
        tokio::spawn(supervisor::run(shutdown.clone(), drain, turns));
        started(running);
        stop(proxy, shutdown).await;
    } else {
        if config.roles.has(Role::Health) || config.roles.has(Role::Failover) {
            Watch::start(&Arc::new(config)).await?.run(None, None)?;
        }
        tokio::spawn(supervisor::run(shutdown.clone(), Duration::ZERO, Vec::new));
        started(running);
        let mut shutdown = shutdown;
        let _ = shutdown.wait_for(|stop| *stop).await;
    }
    // What runs for ever ends with the process; what ends by itself is waited for.
    while let Some(ended) = background.join_next().await {
        ended??;
    }
    Ok(())
}

async fn serve_state(
    config: &Config,
    shutdown: &watch::Receiver<bool>,
    background: &mut JoinSet<Result<()>>,
) -> Result<SocketAddr> {
    let state = config.state.clone();
    let listener = TcpListener::bind(state.listen)
        .await
        .with_context(|| format!("cannot listen on state.listen = {}", state.listen))?;
    let address = listener.local_addr()?;
    let mut shutdown = shutdown.clone();
    let prefix = config.store.clone().unwrap_or_default().table_prefix;
    background.spawn(async move {
        let stop = async move {
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        embedded::serve(&state.file, listener, &prefix, stop).await?;
        Ok(())
    });
    tracing::warn!(%address, "embedded state: for one machine, without authentication");
    Ok(address)
}

async fn start_proxy(
    config: Config,
    shutdown: &watch::Receiver<bool>,
    background: &mut JoinSet<Result<()>>,
) -> Result<(Proxy, SocketAddr)> {
    let config = Arc::new(config);
    let root = config.attestation.read_root().map_err(Error::msg).context("attestation.root")?;
    let mut watch = Watch::start(&config).await?;
    let engine = Engine::new(config.policies.limits())?;
    let snapshot = watch.observer.snapshot();
    watch.health.set("fleet", sync::fleet_check(&snapshot));

    let threads = config.threads();
    let table = RouteTable::new(config.routes.clone());
    let (hands, decks): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let mut slots = SlotTable::new(config.ejection.config(), watch.signs.clone());
    let fleet = slots.join(snapshot);
    let store = watch.store.clone();
    let there = store.as_ref().filter(|_| !watch.is_store_away);
    let versions = first_versions(&config, there, &engine, &table, &fleet).await?;
    watch.health.set("policies", Check::ok());
    let conductor = Conductor::start(table, fleet, slots, versions, hands)?;

    let listeners = data::bind(config.listen.data, threads)
        .with_context(|| format!("cannot listen on listen.data = {}", config.listen.data))?;
    let collection =
        store.clone().map(|store| Arc::new(Collection::new(store, &config, watch.node)));
    let measurements = collection
        .clone()
        .map(|collection| collect::start(collection, conductor.clone(), background));
    let inputs = data::Inputs {
        config: config.clone(),
        conductor: conductor.clone(),
        health: watch.health.clone(),
        clock: watch.clock,
        node: watch.node,
        signs: watch.signs.clone(),
        measurements,
    };
    let data = data::start(listeners, decks, inputs, shutdown)?;
    let uploads = Arc::new(Uploads::new(engine, conductor.clone(), threads));
    let context = Arc::new(Context {
        config: config.clone(),
        conductor: conductor.clone(),
        uploads: uploads.clone(),
        health: watch.health.clone(),
        threads: data,
        store,
        collection: collection.clone(),
        attestations: watch.attestations.clone(),
        looks: watch.cloud.watch.as_ref().map(cloud::Watch::looks),
        failover: watch.failover()?,
        clock: watch.clock,
        started: std::time::Instant::now(),
        dry_runs: Default::default(),
    });
    let listener = control::bind(config.listen.control)
        .await
        .with_context(|| format!("cannot listen on listen.control = {}", config.listen.control))?;
    let control = listener.local_addr()?;
    let (served, stop) = (context.clone(), shutdown.clone());
    background.spawn(async move { Ok(control::serve(listener, served, stop).await?) });

    if !config.attestation.images.is_empty() {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let asker = Asker::new(config.attestation.clone(), root, client);
        let attestations = watch.attestations.clone();
        tokio::spawn(attestation::run(asker, attestations, conductor.clone(), collection));
    }
    let health = watch.health.clone();
    watch.run(Some(conductor), Some(uploads))?;
    Ok((Proxy { context, health }, control))
}

/// What watches the fleet, before it does.
struct Watch {
    config: Arc<Config>,
    store: Option<Store>,
    /// A start waits once for a store that is away, and goes on without it.
    is_store_away: bool,
    followers: Option<Followers>,
    observer: Observer,
    attestations: Attestations,
    cloud: Cloud,
    health: HealthBoard,
    signs: Signs,
    clock: Clock,
    /// Who this process is among the region's routers.
    node: u32,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
}

impl Watch {
    /// Connects to the store and reads it for the first time.
    async fn start(config: &Arc<Config>) -> Result<Self> {
        let (health, clock, node) =
            (HealthBoard::new(config.home()), Clock::default(), data::node());
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
            match deeds::past_failovers(store, &config.home()).await {
                Ok(past) => observer.restore(past),
                // Without them the counts begin again: nothing to fail for.
                Err(e) => {
                    tracing::warn!("no history of failovers to start with: {e}");
                    is_store_away = e.is_retryable();
                }
            }
        }
        let cloud = Cloud::connect(config, &health).await?;
        let (events, inbox) = mpsc::channel(monitor::EVENTS);
        Ok(Self {
            config: config.clone(),
            store,
            is_store_away,
            followers,
            observer,
            attestations,
            cloud,
            health,
            signs: Signs::default(),
            clock,
            node,
            events,
            inbox,
        })
    }

    fn failover(&self) -> Result<control::Failover> {
        let prober = Prober::new(&self.config.health_check)?;
        let router = name(&self.config, self.node);
        Ok(control::Failover::new(self.events.clone(), router, prober))
    }

    /// Watches from now on.
    fn run(self, conductor: Option<Handle>, uploads: Option<Arc<Uploads>>) -> Result<()> {
        let Self { config, events, .. } = self;
        let router = name(&config, self.node);
        let probes = config.roles.has(Role::Health);
        let doer = self.store.map(|store| {
            let start = |service| Groups::start(service, store.clone(), &router);
            Doer::start(&store, &config, &router, self.cloud.auto_scaling.map(start))
        });
        let parts = Parts {
            conductor,
            health: self.health,
            signs: self.signs,
            clock: self.clock,
            prober: probes.then(|| Prober::new(&config.health_check)).transpose()?,
            pinger: Pinger::new(reqwest::Client::builder().no_proxy().build()?),
            cloud: self.cloud.watch,
            doer: doer.unwrap_or_default(),
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

/// A version of every policy that is in the folder or in the store: the store's, or the folder's where
/// that one is refused.
async fn first_versions(
    config: &Config,
    store: Option<&Store>,
    engine: &Engine,
    table: &RouteTable,
    fleet: &crate::flight::FleetView,
) -> Result<Vec<Arc<Version>>> {
    let folder = &config.policies.dir;
    let found = catalog::read_folder(folder)
        .with_context(|| format!("cannot read policies.dir = {}", folder.display()))?;
    // By name, those to be preferred last.
    let mut artifacts: BTreeMap<String, Vec<(u64, Vec<u8>)>> =
        found.into_iter().map(|(name, bytes)| (name, vec![(0, bytes)])).collect();
    if let Some(store) = store
        && let Err(e) = add_uploads(store, &mut artifacts).await
    {
        tracing::warn!("not all uploaded policies to start with: {e}");
    }
    let used = |name: &str| table.specs.iter().any(|spec| spec.name == name);
    let missing: Vec<_> = table
        .specs
        .iter()
        .map(|spec| spec.name.as_str())
        .filter(|name| !artifacts.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        bail!(
            "no artifact of the policies {} in policies.dir = {} or in the store; build them with `cargo xtask policies`",
            missing.join(", "),
            folder.display()
        );
    }
    let mut versions = Vec::new();
    for (name, mut candidates) in artifacts {
        while let Some((generation, artifact)) = candidates.pop() {
            let threads = config.threads();
            match catalog::prepare(engine, table, fleet, &name, generation, &artifact, threads) {
                Ok(version) => {
                    versions.push(version);
                    break;
                }
                Err(e) if used(&name) && candidates.is_empty() => {
                    return Err(e).with_context(|| format!("policy `{name}`"));
                }
                Err(e) => tracing::warn!(policy = name, generation, "left out: {e}"),
            }
        }
    }
    Ok(versions)
}

async fn add_uploads(
    store: &Store,
    artifacts: &mut BTreeMap<String, Vec<(u64, Vec<u8>)>>,
) -> Result<(), StoreError> {
    for head in store.policies().await? {
        let artifact = store.artifact(&head.digest).await?;
        artifacts.entry(head.name).or_default().push((head.generation, artifact));
    }
    Ok(())
}

/// A started data plane and control API.
struct Proxy {
    context: Arc<Context>,
    health: HealthBoard,
}

/// Tells load balancers to stop, then waits for what is in flight.
async fn stop(proxy: Proxy, mut shutdown: watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
    proxy.health.drain();
    tracing::info!("draining");
    let context = proxy.context;
    let joined = tokio::task::spawn_blocking(move || context.threads.join());
    let _ = joined.await;
    tracing::info!("stopped");
}
