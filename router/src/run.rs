//! Putting the parts together, and taking them down again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use mrgc_policy_host::Engine;
use mrgc_store::{Store, StoreConfig, StoreError, embedded};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    attestation::{self, Asker, Attestations, Board, Pace},
    collect::{self, Collection},
    config::{Config, Role},
    control::{self, Context, Uploads},
    data,
    flight::Clock,
    health::{Check, HealthBoard},
    policies::{Conductor, RouteTable, Version, catalog},
    supervisor,
    sync::{self, Composer, Followers, State},
    watch::{self as sightings, Sightings},
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
        tokio::spawn(supervisor::run(shutdown, Duration::ZERO, Vec::new));
        started(running);
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
    let health = HealthBoard::new(config.home());
    let sightings = Sightings::default();
    let engine = Engine::new(config.policies.limits())?;
    let store = connect(&config, &health).await?;
    let mut followers = store.clone().map(|store| Followers::new(store, config.follow));
    let attestations = attestations(&config);
    let mut composer = Composer::new(&config, sightings.clone(), attestations.clone());
    let snapshot = composer.compose(first_state(&config, followers.as_mut(), &health).await?);
    health.set("fleet", sync::fleet_check(&snapshot));

    let threads = config.threads();
    let table = RouteTable::new(config.routes.clone());
    let (hands, decks): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let mut slots = crate::flight::SlotTable::default();
    let fleet = slots.join(snapshot);
    let versions = first_versions(&config, store.as_ref(), &engine, &table, &fleet).await?;
    health.set("policies", Check::ok());
    let conductor = Conductor::start(table, fleet, slots, versions, hands)?;

    let listeners = data::bind(config.listen.data, threads)
        .with_context(|| format!("cannot listen on listen.data = {}", config.listen.data))?;
    let (clock, node) = (Clock::default(), data::node());
    let collection = store.clone().map(|store| Arc::new(Collection::new(store, &config, node)));
    let measurements = collection
        .clone()
        .map(|collection| collect::start(collection, conductor.clone(), background));
    let inputs = data::Inputs {
        config: config.clone(),
        conductor: conductor.clone(),
        health: health.clone(),
        clock,
        node,
        measurements,
    };
    let data = data::start(listeners, decks, inputs, shutdown)?;
    let uploads = Arc::new(Uploads::new(engine, conductor.clone(), threads));
    let context = Arc::new(Context {
        config: config.clone(),
        conductor: conductor.clone(),
        uploads: uploads.clone(),
        health: health.clone(),
        threads: data,
        store: store.clone(),
        collection: collection.clone(),
        attestations: attestations.clone(),
        clock,
        started: std::time::Instant::now(),
        dry_runs: Default::default(),
    });
    let listener = control::bind(config.listen.control)
        .await
        .with_context(|| format!("cannot listen on listen.control = {}", config.listen.control))?;
    let control = listener.local_addr()?;
    let (served, stop) = (context.clone(), shutdown.clone());
    background.spawn(async move { Ok(control::serve(listener, served, stop).await?) });

    let client = reqwest::Client::builder().no_proxy().build()?;
    let checks = config.health_check.clone();
    let ping_every = Duration::from_secs_f64(checks.ping_interval_seconds);
    tokio::spawn(sightings::ping(conductor.clone(), sightings.clone(), ping_every, client.clone()));
    tokio::spawn(sightings::probe(conductor.clone(), sightings, checks, client.clone()));
    if !config.attestation.images.is_empty() {
        let asker = Asker::new(config.attestation.clone(), root, client.clone());
        tokio::spawn(attestation::run(asker, attestations, conductor.clone(), collection));
    }
    match followers {
        Some(followers) => {
            tokio::spawn(sync::follow(followers, composer, conductor, uploads, health.clone()));
        }
        None => {
            tokio::spawn(sync::refresh_static(
                config,
                composer,
                conductor,
                health.clone(),
                ping_every,
            ));
        }
    }
    Ok((Proxy { context, health }, control))
}

/// Nothing is attested yet.
fn attestations(config: &Config) -> Attestations {
    let settings = &config.attestation;
    let pace = Pace { interval: settings.interval(), max_age: settings.max_age() };
    Attestations::new(Board::new(config.home(), settings.pools(), pace))
}

/// The store, if one is configured. That its tables do not fit is an error; that it is away is not.
async fn connect(config: &Config, health: &HealthBoard) -> Result<Option<Store>> {
    let Some(settings) = &config.store else { return Ok(None) };
    let store = Store::connect(settings).await.context("[store]")?;
    match store.check().await {
        Ok(()) => health.set("store", Check::ok()),
        Err(e @ (StoreError::MissingTable { .. } | StoreError::WrongSchema { .. })) => {
            return Err(e).context("the store's tables do not fit");
        }
        Err(e) => {
            tracing::warn!("the store is away: {e}");
            health.set("store", Check::degraded(e.to_string()));
        }
    }
    Ok(Some(store))
}

async fn first_state(
    config: &Config,
    followers: Option<&mut Followers>,
    health: &HealthBoard,
) -> Result<State> {
    let Some(followers) = followers else { return Ok(sync::static_state(config)) };
    let read = async {
        for region in &config.regions {
            followers.store().put_region(region).await?;
        }
        followers.refresh().await
    };
    match read.await {
        Ok(state) => Ok(state),
        Err(e) if e.is_retryable() => {
            tracing::warn!("no state to start with: {e}");
            health.set("store", Check::degraded(e.to_string()));
            Ok(State { regions: config.regions.clone(), standings: Vec::new() })
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
