//! Starting the data threads, and the life of their connections.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::LocalSet,
    time::sleep,
};

use super::{
    alarm, client,
    meter::Batch,
    shard::{Common, Shard},
    stats::{Stats, Totals},
};
use crate::{
    config::Config,
    flight::{Clock, Signs, label},
    health::HealthBoard,
    policies::{Deck, Handle},
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The running data threads.
#[derive(Debug)]
pub struct Threads {
    pub address: SocketAddr,
    stats: Vec<Arc<Stats>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    pub fn totals(&self) -> Totals {
        Stats::total(self.stats.iter().map(Arc::as_ref))
    }

    /// How often each thread turned. It does so many times in a second, busy or not.
    pub fn turns(&self) -> Vec<u64> {
        self.stats.iter().map(|stats| stats.turns.load(Relaxed)).collect()
    }

    /// Waits until every connection has ended or the drain deadline has passed.
    pub fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic ends the process before anyone joins.
            let _ = thread.join();
        }
    }
}

/// Binds one listener for each thread on the same address; port 0 gives all of them the same free port.
pub fn bind(address: SocketAddr, threads: usize) -> io::Result<Vec<StdListener>> {
    let mut address = address;
    (0..threads)
        .map(|_| {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            let listener = StdListener::from(socket);
            address = listener.local_addr()?;
            Ok(listener)
        })
        .collect()
}

/// What the data threads are started with.
#[derive(Debug)]
pub struct Inputs {
    pub config: Arc<Config>,
    pub conductor: Handle,
    pub health: HealthBoard,
    pub clock: Clock,
    /// This process's number, see [`node`].
    pub node: u32,
    pub signs: Signs,
    /// Where measurements go; `None` where nobody collects them.
    pub measurements: Option<mpsc::Sender<Batch>>,
}

/// Starts one thread for each listener and its first deck. They end when `shutdown` turns true.
pub fn start(
    listeners: Vec<StdListener>,
    decks: Vec<mpsc::UnboundedReceiver<Deck>>,
    inputs: Inputs,
    shutdown: &watch::Receiver<bool>,
) -> io::Result<Threads> {
    let Inputs { config, conductor, health, clock, node, signs, measurements } = inputs;
    let common = Common {
        home_label: label(config.home().as_str()),
        home: config.home(),
        tenants: Arc::new(tenants(&config)),
        config,
        conductor,
        clock,
        health,
        node,
        signs,
        measurements,
    };
    let address = listeners.first().map_or(Ok(common.config.listen.data), |l| l.local_addr())?;
    let (mut stats, mut threads) = (Vec::new(), Vec::new());
    for (thread, (listener, decks)) in listeners.into_iter().zip(decks).enumerate() {
        let counters = Arc::new(Stats::default());
        stats.push(counters.clone());
        let (common, shutdown) = (common.clone(), shutdown.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, run(thread, listener, decks, common, counters, shutdown));
        };
        threads.push(thread::Builder::new().name(format!("data-{thread}")).spawn(work)?);
    }
    Ok(Threads { address, stats, threads: Mutex::new(threads) })
}

async fn run(
    thread: usize,
    listener: StdListener,
    mut decks: mpsc::UnboundedReceiver<Deck>,
    common: Common,
    stats: Arc<Stats>,
    mut shutdown: watch::Receiver<bool>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let Some(deck) = decks.recv().await else { return };
    let drain = Duration::from_secs(common.config.limits.drain_seconds);
    let most = common.config.limits.connections;
    let mut tick = pin!(sleep(alarm::tick()));
    let shard = Rc::new(Shard::new(thread, common, stats, deck));
    let open = Rc::new(());
    let mut losses = shard.common.signs.losses();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(deck) = decks.recv() => shard.take(deck),
            () = &mut tick => {
                tick.set(sleep(alarm::tick()));
                shard.turned();
            }
            // Whoever waits for a region that is gone looks elsewhere.
            Ok(()) = losses.changed() => alarm::ring_all(),
            _ = sweep.tick() => shard.idle.borrow_mut().sweep(),
            accepted = listener.accept() => match accepted {
                Ok(_) if Rc::strong_count(&open) > most => Stats::count(&shard.stats.connections_refused),
                Ok((stream, _)) => {
                    Stats::count(&shard.stats.connections);
                    let open = open.clone();
                    let connection = client::serve(shard.clone(), stream);
                    tokio::task::spawn_local(async move {
                        connection.await;
                        drop(open);
                    });
                }
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    shard.stopping.set(true);
    alarm::ring_all();
    let ended = async {
        while Rc::strong_count(&open) > 1 {
            sleep(alarm::tick()).await;
            shard.turned();
            if losses.has_changed().unwrap_or(false) {
                losses.mark_unchanged();
                alarm::ring_all();
            }
        }
    };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!(
            left = Rc::strong_count(&open) - 1,
            "connections cut off at the drain deadline"
        );
    }
    shard.meter.hand_over();
}

fn tenants(config: &Config) -> std::collections::HashMap<[u8; 32], usize> {
    let digest = |text: &str| {
        let mut digest = [0; 32];
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(digest)
    };
    let by_key = config.tenants.iter().enumerate();
    by_key.filter_map(|(i, tenant)| Some((digest(&tenant.key_sha256)?, i))).collect()
}

/// A number for this process that another router, or this one after a restart, is unlikely to have.
pub fn node() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}
