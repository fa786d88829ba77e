use std::collections::BTreeSet;

use mrgc_fleet::{
    failover::{Strategy, Wish},
    model::Stamp,
};
use mrgc_store::{StoreConfig, embedded};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;

/// An engine of its own, which ends with its folder.
struct Engine {
    _folder: tempfile::TempDir,
    serving: JoinHandle<()>,
    store: Store,
}

impl Engine {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let (file, config) =
            (folder.path().join("state.db"), StoreConfig { endpoint, ..StoreConfig::default() });
        let prefix = config.table_prefix.clone();
        let serving = tokio::spawn(async move {
            embedded::serve(&file, listener, &prefix, std::future::pending()).await.unwrap();
        });
        let store = Store::connect(&config).await.unwrap();
        let engine = Self { _folder: folder, serving, store };
        // What is timed after this does not wait for its start.
        assert!(engine.subjects().await.is_empty());
        engine
    }

    /// What is on record, as often as it is.
    async fn subjects(&self) -> Vec<String> {
        let all = self.store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 100).await.unwrap();
        let mut subjects: Vec<_> = all.into_iter().map(|record| record.subject).collect();
        subjects.sort();
        subjects
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn order() -> RegionOrder {
    RegionOrder {
        region: "us".into(),
        wish: Wish::FailOver { to: None, strategy: Strategy::Immediate },
        reason: None,
        operator: Some("ada".to_owned()),
        at: crate::sync::wall_clock(),
        writer_region: "us".into(),
        stamp: Stamp::default(),
    }
}

fn entry(n: usize) -> Entry {
    Entry::new("failover", format!("region us, {n:03}"), &order())
}

/// An operator who orders, one who simulates, and what writes in the background.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_who_write_at_once_write_everything_once() {
    const WAITING: usize = 4;
    let (engine, unstored) = (Engine::start().await, Unstored::default());
    for n in 0..WAITING {
        let refused = unstored.record(None, entry(n)).await;
        assert!(refused.is_err());
        unstored.lock().add(entry(n));
    }
    unstored.keep(order());
    let store = Some(&engine.store);
    let (ordered, simulated, written) = tokio::join!(
        unstored.record(store, entry(WAITING)),
        unstored.record(store, entry(WAITING + 1)),
        unstored.write(&engine.store),
    );
    assert_eq!((ordered, simulated, written), (Ok(()), Ok(()), Ok(())));
    assert!(unstored.is_empty());
    let expected: BTreeSet<String> = (0..WAITING + 2).map(|n| entry(n).subject).collect();
    assert_eq!(engine.subjects().await, Vec::from_iter(expected));
}

/// One more comes while the first is written, and takes that one's place.
#[test]
fn what_comes_at_the_bound_costs_no_other_entry_its_place() {
    let mut kept = Kept::default();
    for n in 0..MAX_ENTRIES {
        kept.add(entry(n));
    }
    let first =
        |kept: &Kept| kept.entries.front().map(|(at, it)| (*at, it.subject.clone())).unwrap();
    let (number, subject) = first(&kept);
    assert_eq!(subject, entry(0).subject);
    kept.add(entry(MAX_ENTRIES));
    kept.written(number);
    let (number, subject) = first(&kept);
    assert_eq!((kept.entries.len(), subject), (MAX_ENTRIES, entry(1).subject));
    kept.written(number);
    assert_eq!(first(&kept).1, entry(2).subject);
}

/// A store that never answers holds an order up for as long as one try may take, whatever else is written.
#[tokio::test]
async fn a_silent_store_holds_up_nobody_for_longer_than_its_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let config = StoreConfig { endpoint, timeout_ms: 60_000, ..StoreConfig::default() };
    let store = Store::connect(&config).await.unwrap();
    let unstored = Unstored::default();
    unstored.lock().add(entry(0));
    let began = tokio::time::Instant::now();
    let (written, ordered) =
        tokio::join!(unstored.write(&store), unstored.record(Some(&store), entry(1)));
    assert!(written.is_err() && ordered.is_err());
    assert!(began.elapsed() < 2 * STORE_DEADLINE, "one after the other");
    assert_eq!(unstored.lock().entries.len(), 2);
}
