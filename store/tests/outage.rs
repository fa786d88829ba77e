//! Reads that go to a replica while the primary is gone, and come back. Two engines stand for two regions'
//! replicas of one global table; what they hold differs, so that a read shows whom it asked.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mrgc_fleet::model::Region;
use mrgc_store::{ReadingFrom, Replica, Store, StoreConfig, StoreError};
use tokio::{net::TcpListener, time};

use crate::{
    front::{DENIED, Front, THROTTLED},
    support::{Engine, Folder, REGION, config, region, registration},
};

/// Longer than a probe may take to come on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

async fn engine(folder: &Folder) -> Engine {
    Engine::start_at(folder, "127.0.0.1:0".parse().unwrap()).await
}

/// An engine that holds one region by this name.
async fn engine_with(folder: &Folder, name: &str) -> Engine {
    let engine = engine(folder).await;
    engine.store().await.put_region(&named(name)).await.unwrap();
    engine
}

fn named(name: &str) -> Region {
    Region { name: name.to_owned(), ..region(REGION) }
}

fn replica(address: SocketAddr) -> Replica {
    Replica { aws_region: "us-west-2".to_owned(), endpoint: Some(format!("http://{address}")) }
}

async fn connect(primary: SocketAddr, replicas: &[SocketAddr], timeout_ms: u64) -> Store {
    let replicas = replicas.iter().copied().map(replica).collect();
    Store::connect(&StoreConfig { replicas, timeout_ms, ..config(primary) }).await.unwrap()
}

/// An address where nobody listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn name_read(store: &Store) -> String {
    store.regions().await.unwrap().remove(0).name
}

#[tokio::test]
async fn reads_turn_to_the_replica_and_come_back() {
    let (here, there) = (Folder::new(), Folder::new());
    let (primary, near) = (engine_with(&here, "primary").await, engine_with(&there, "near").await);
    let (address, near_address) = (primary.address, near.address);
    let store = connect(address, &[near_address], 10_000).await;
    assert_eq!(name_read(&store).await, "primary");
    assert_eq!(store.reading_from(), ReadingFrom::Primary);

    primary.stop().await;
    for _ in 0..3 {
        assert_eq!(name_read(&store).await, "near");
    }
    assert_eq!(store.reading_from(), ReadingFrom::Replica(format!("http://{near_address}")));
    let counts = store.counts();
    assert_eq!((counts.turned_to_replica, counts.replica_reads), (1, 3));
    // What the primary must judge is not written elsewhere.
    for error in [
        store.put_region(&named("lost")).await.unwrap_err(),
        store.register(&registration("i-1")).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    assert_eq!(near.store().await.regions().await.unwrap(), [named("near")]);

    let primary = Engine::start_at(&here, address).await;
    let back = async {
        while name_read(&store).await != "primary" {
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    time::timeout(DEADLINE, back).await.expect("reads come back");
    assert_eq!(store.reading_from(), ReadingFrom::Primary);
    store.put_region(&named("written")).await.unwrap();
    assert_eq!(name_read(&store).await, "written");
    primary.stop().await;
    near.stop().await;
}

#[tokio::test]
async fn a_primary_that_hangs_leaves_the_replica_time_to_answer() {
    let folder = Folder::new();
    let near = engine_with(&folder, "near").await;
    // Connections are accepted by the system and stay in the listener's queue.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = connect(hung.local_addr().unwrap(), &[near.address], 8_000).await;
    assert_eq!(name_read(&store).await, "near");
    // From here on the replica is asked first: no read waits for the primary.
    let started = Instant::now();
    assert_eq!(name_read(&store).await, "near");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    near.stop().await;
}

#[tokio::test]
async fn the_next_replica_answers_where_the_nearest_is_gone_too() {
    let folder = Folder::new();
    let far = engine_with(&folder, "far").await;
    let store = connect(closed().await, &[closed().await, far.address], 10_000).await;
    assert_eq!(name_read(&store).await, "far");
    assert_eq!(store.reading_from(), ReadingFrom::Replica(format!("http://{}", far.address)));
    far.stop().await;
}

#[tokio::test]
async fn an_answer_of_the_primary_is_an_answer() {
    let (here, there) = (Folder::new(), Folder::new());
    let (primary, near) = (engine_with(&here, "primary").await, engine_with(&there, "near").await);
    for (refusal, expected) in [(DENIED, "Denied"), (THROTTLED, "Throttled")] {
        let front = Front::before(primary.address, move |_| Some(refusal)).await;
        let store = connect(front.address, &[near.address], 10_000).await;
        let error = store.regions().await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert_eq!(store.reading_from(), ReadingFrom::Primary, "{expected}");
        assert_eq!(store.counts().replica_reads, 0, "{expected}");
    }
    primary.stop().await;
    near.stop().await;
}

#[tokio::test]
async fn with_nothing_left_the_error_is_the_primarys() {
    let primary = closed().await;
    let store = connect(primary, &[closed().await, closed().await], 5_000).await;
    let error = store.regions().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains(&primary.to_string()), "{error}");
    assert_eq!(store.counts().failed_unreachable, 1);
    assert_eq!(store.reading_from(), ReadingFrom::Primary);
}
