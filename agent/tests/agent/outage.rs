//! The store killed under a fleet of agents, and back: all resume, and not all at once.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mrgc_agent::{RunError, supervisor::Supervisor};
use mrgc_store::Store;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{DEADLINE, Engine, Setup, until};

const AGENTS: usize = 20;

/// Between two heartbeats, and the longest wait between two attempts.
const INTERVAL: Duration = Duration::from_secs(1);

/// As long as heartbeats fail for certain.
const OUTAGE: Duration = Duration::from_secs(2);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(8);

const ANY_PORT: &str = "127.0.0.1:0";

/// Agents within this process: tasks, with sockets and clients of their own.
struct Fleet {
    agents: JoinSet<Result<(), RunError>>,
    stop: watch::Sender<bool>,
}

impl Fleet {
    async fn start(store: &Engine) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut agents = JoinSet::new();
        for n in 0..AGENTS {
            let id = format!("i-{n}");
            let config =
                Setup::new().store(store).with(&[("MRGC_AGENT__INSTANCE__ID", &id)]).config();
            let listener = TcpListener::bind(ANY_PORT).await.unwrap();
            let mut stopped = stopped.clone();
            agents.spawn(mrgc_agent::run(listener, config, Supervisor::absent(), async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
        }
        Self { agents, stop }
    }

    async fn stop(mut self) {
        self.stop.send(true).unwrap();
        while let Some(end) = timeout(DEADLINE, self.agents.join_next()).await.unwrap() {
            end.unwrap().unwrap();
        }
    }
}

/// Each instance's last (generation, sequence).
async fn reported(store: &Store) -> BTreeMap<String, (u64, u64)> {
    let standings = store.instances(&"us-east-1".into()).await.unwrap();
    let reports = standings.into_iter().filter_map(|standing| standing.report);
    reports.map(|r| (r.id.to_string(), (r.generation, r.sequence))).collect()
}

/// What a stopped engine left behind, read through another at another address.
async fn left_behind(folder: &Arc<TempDir>) -> BTreeMap<String, (u64, u64)> {
    let reader =
        Engine::start_at(ANY_PORT.parse::<SocketAddr>().unwrap(), Arc::clone(folder)).await;
    let left = reported(&reader.store).await;
    reader.stop().await;
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_heartbeats_resume_after_the_store_was_killed() {
    let store = Engine::start().await;
    let fleet = Fleet::start(&store).await;
    until("every agent reports", async || {
        let reported = reported(&store.store).await.len();
        if reported == AGENTS { Ok(()) } else { Err(format!("{reported} do")) }
    })
    .await;

    let (address, folder) = store.kill().await;
    let before = left_behind(&folder).await;
    assert_eq!(before.len(), AGENTS);
    sleep(OUTAGE).await;

    let store = Engine::start_at(address, folder).await;
    let back = Instant::now();
    let mut resumed: HashMap<String, Duration> = HashMap::new();
    while resumed.len() < AGENTS {
        let now = reported(&store.store).await;
        let elapsed = back.elapsed();
        for (id, (generation, sequence)) in now {
            let (generation_before, sequence_before) = before[&id];
            assert_eq!(generation, generation_before, "{id}: an outage is no reason to register");
            if sequence > sequence_before {
                resumed.entry(id).or_insert(elapsed);
            }
        }
        assert!(elapsed < DEADLINE, "{} of {AGENTS} resumed", resumed.len());
        sleep(Duration::from_millis(10)).await;
    }
    let first = resumed.values().min().unwrap();
    let last = resumed.values().max().unwrap();
    assert!(*last < 2 * INTERVAL + SLACK, "the last resumed after {last:?}");
    assert!(*last - *first > INTERVAL / 10, "all came within {:?}", *last - *first);
    fleet.stop().await;
    assert_eq!(reported(&store.store).await.len(), 0, "all deregistered");
}
