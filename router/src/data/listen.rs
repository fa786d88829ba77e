//! Starting the data threads, and the life of their connections.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{rt::TokioIo, server::conn::auto};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::LocalSet,
    time::sleep,
};

use super::{
    alarm::{self, Alarm, HyperTimer},
    journey,
    meter::Batch,
    shard::{Common, Shard},
    stats::{Stats, Totals},
};
use crate::{
    config::Config,
    flight::{Clock, label},
    health::HealthBoard,
    policies::{Deck, Handle},
};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// How long a client may take to send a request's head, also on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Longer than any connection.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
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
    let Inputs { config, conductor, health, clock, node, measurements } = inputs;
    let common = Common {
        home_label: label(config.home().as_str()),
        home: config.home(),
        tenants: Arc::new(tenants(&config)),
        config,
        conductor,
        clock,
        health,
        node,
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
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(deck) = decks.recv() => shard.take(deck),
            () = &mut tick => {
                tick.set(sleep(alarm::tick()));
                shard.meter.tick(alarm::now());
            }
            _ = sweep.tick() => shard.idle.borrow_mut().sweep(),
            accepted = listener.accept() => match accepted {
                Ok(_) if Rc::strong_count(&open) > most => Stats::count(&shard.stats.connections_refused),
                Ok((stream, _)) => {
                    Stats::count(&shard.stats.connections);
                    let open = open.clone();
                    let connection = connection(shard.clone(), stream);
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
            shard.meter.tick(alarm::now());
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

/// One client's connection, HTTP/1.1 or HTTP/2 with prior knowledge.
async fn connection(shard: Rc<Shard>, stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let head_bytes = shard.config().limits.head_bytes;
    let stopping = shard.stopping.clone();
    let mut server = auto::Builder::new(LocalExecutor);
    server
        .http1()
        .timer(HyperTimer)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(head_bytes)
        // Heads and bodies are short: one copy costs less than a vectored write.
        .writev(false)
        .http2()
        .timer(HyperTimer)
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_header_list_size(head_bytes as u32)
        .max_concurrent_streams(1024);
    let service = service_fn(move |request| journey::serve(shard.clone(), request));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // Armed while it lives, to be rung when the thread stops: cheaper than to ask at every wake-up.
    let mut bell = Alarm::at(alarm::now() + FOREVER);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if !told && stopping.get() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        if !told {
            bell.arm(cx.waker());
        }
        connection.as_mut().poll(cx)
    });
    if let Err(e) = ended.await {
        tracing::debug!("a client's connection ended: {e}");
    }
}

/// HTTP/2 streams are tasks of this thread, too.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
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
