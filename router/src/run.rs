//! Putting the parts together, and taking them down again.

mod watcher;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Error, Result, bail};
use mrgc_policy_host::Engine;
use mrgc_store::{StoreConfig, embedded};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};

use self::watcher::Watcher;
use crate::{
    attestation::{self, Asker},
    cloud,
    collect::{self, Collection},
    config::{Config, Role},
    control::{self, Context, Proxy, Uploads},
    data,
    flight::{FleetView, SlotTable},
    health::Check,
    policies::{Conductor, Handle, RouteTable, bootstrap},
    supervisor, sync,
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
/// What keeps it from starting: an address in use, a policy that is nowhere, tables that do not fit. And
/// what ends by itself, as the embedded state may: a router without a part of it is not left running.
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
    let context = match config.roles.watch_fleet() {
        true => Some(start(Arc::new(config), &shutdown, &mut background, &mut running).await?),
        false => None,
    };
    let proxy = context.as_ref().and_then(|context| context.proxy.clone());
    let drain = proxy.as_ref().map_or(Duration::ZERO, |proxy| proxy.drain);
    let turns = move || proxy.as_ref().map_or_else(Vec::new, |proxy| proxy.threads.turns());
    tokio::spawn(supervisor::run(shutdown.clone(), drain, turns));
    started(running);
    let mut stopped = shutdown;
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stop| *stop) => {}
        Some(ended) = background.join_next() => {
            ended??;
            bail!("a part of the router ended by itself: the embedded state, the control API or its counts");
        }
    }
    if let Some(context) = context {
        stop(context).await;
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

/// Starts what watches the fleet, the data plane if this process forwards requests, and the control API.
async fn start(
    config: Arc<Config>,
    shutdown: &watch::Receiver<bool>,
    background: &mut JoinSet<Result<()>>,
    running: &mut Running,
) -> Result<Arc<Context>> {
    let mut watcher = Watcher::start(&config).await?;
    let snapshot = watcher.observer.snapshot();
    watcher.health.set("fleet", sync::fleet_check(&snapshot));
    let mut slots = SlotTable::new(config.ejection.config(), watcher.signs.clone());
    let fleet = slots.join(snapshot);
    let (conductor, proxy) = if config.roles.has(Role::Proxy) {
        let (conductor, proxy) =
            start_proxy(&config, &watcher, (slots, fleet), shutdown, background).await?;
        running.data = Some(proxy.threads.address);
        (conductor, Some(Arc::new(proxy)))
    } else {
        // Who forwards nothing has no routes and deals to nobody, but has the fleet to show.
        let table = RouteTable::new(Vec::new());
        (Conductor::start(table, fleet, slots, Vec::new(), Vec::new())?, None)
    };
    let uploads = proxy.as_ref().map(|proxy| proxy.uploads.clone());
    let context = Arc::new(Context {
        config: config.clone(),
        conductor: conductor.clone(),
        proxy,
        health: watcher.health.clone(),
        store: watcher.store.clone(),
        looks: watcher.cloud.watch.as_ref().map(cloud::Watch::looks),
        failover: watcher.failover(),
        failovers: watcher.failovers.clone(),
        clock: watcher.clock,
        started: std::time::Instant::now(),
        dry_runs: Default::default(),
    });
    let listener = control::bind(config.listen.control)
        .await
        .with_context(|| format!("cannot listen on listen.control = {}", config.listen.control))?;
    running.control = Some(listener.local_addr()?);
    let (served, stop) = (context.clone(), shutdown.clone());
    background.spawn(async move { Ok(control::serve(listener, served, stop).await?) });
    watcher.run(conductor, uploads)?;
    Ok(context)
}

async fn start_proxy(
    config: &Arc<Config>,
    watcher: &Watcher,
    (slots, fleet): (SlotTable, FleetView),
    shutdown: &watch::Receiver<bool>,
    background: &mut JoinSet<Result<()>>,
) -> Result<(Handle, Proxy)> {
    let root = config.attestation.read_root().map_err(Error::msg).context("attestation.root")?;
    let engine = Engine::new(config.policies.limits())?;
    let threads = config.threads();
    let table = RouteTable::new(config.routes.clone());
    let (hands, decks): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::unbounded_channel()).unzip();
    let there = watcher.store.as_ref().filter(|_| !watcher.is_store_away);
    let versions = bootstrap::versions(config, there, &engine, &table, &fleet).await?;
    watcher.health.set("policies", Check::ok());
    let conductor = Conductor::start(table, fleet, slots, versions, hands)?;

    let listeners = data::bind(config.listen.data, threads)
        .with_context(|| format!("cannot listen on listen.data = {}", config.listen.data))?;
    let collection =
        watcher.store.clone().map(|store| Arc::new(Collection::new(store, config, watcher.node)));
    let measurements = collection
        .clone()
        .map(|collection| collect::start(collection, conductor.clone(), background));
    let inputs = data::Inputs {
        config: config.clone(),
        conductor: conductor.clone(),
        health: watcher.health.clone(),
        clock: watcher.clock,
        node: watcher.node,
        signs: watcher.signs.clone(),
        measurements,
    };
    let data = data::start(listeners, decks, inputs, shutdown)?;
    if !config.attestation.images.is_empty() {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let asker = Asker::new(config.attestation.clone(), root, client);
        let attestations = watcher.attestations.clone();
        let collection = collection.clone();
        tokio::spawn(attestation::run(asker, attestations, conductor.clone(), collection));
    }
    let proxy = Proxy {
        uploads: Arc::new(Uploads::new(engine, conductor.clone(), threads)),
        threads: data,
        drain: Duration::from_secs(config.limits.drain_seconds),
        collection,
        attestations: watcher.attestations.clone(),
    };
    Ok((conductor, proxy))
}

/// Tells load balancers to send no more, then waits for what is in flight.
async fn stop(context: Arc<Context>) {
    context.health.drain();
    let Some(proxy) = context.proxy.clone() else { return };
    tracing::info!("draining");
    let joined = tokio::task::spawn_blocking(move || proxy.threads.join());
    let _ = joined.await;
    tracing::info!("stopped");
}
