//! A store that is gone, hangs, throttles, restarts, or is not what it should be.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mrgc_store::{
    Store, StoreConfig, StoreError,
    embedded::{self, EmbeddedError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Engine, Folder, REGION, config, region, registration, report, skipped};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

async fn impatient(address: SocketAddr, timeout_ms: u64) -> Store {
    Store::connect(&StoreConfig { timeout_ms, ..config(address) }).await.unwrap()
}

#[tokio::test]
async fn the_state_and_the_client_survive_a_restart_of_the_engine() {
    if skipped("it restarts the engine") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let (store, address) = (engine.store().await, engine.address);
    store.put_region(&region(REGION)).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    let before = store.instances(&REGION.into()).await.unwrap();
    assert!(store.counts().read_half_units > 0, "what a listing consumes is counted");
    engine.stop().await;

    let engine = Engine::start_at(&folder, address).await;
    store.check().await.unwrap();
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), before);
    assert_eq!(store.regions().await.unwrap(), [region(REGION)]);
    assert_eq!(store.register(&registration("i-1")).await.unwrap().generation, 2);
    engine.stop().await;
}

#[tokio::test]
async fn a_missing_table_is_told_with_what_to_do() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let other = StoreConfig { table_prefix: "other".to_owned(), ..config(engine.address) };
    let store = Store::connect(&other).await.unwrap();
    let checked = store.check().await.unwrap_err();
    assert!(matches!(checked, StoreError::WrongSchema { .. }), "{checked}");
    for error in [
        checked,
        store.regions().await.unwrap_err(),
        store.register(&registration("i-1")).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains("`other-") && text.contains("`mrgc state init`"), "{text}");
    }
    // Asking did not create them.
    let tables = engine.client().list_tables().send().await.unwrap();
    assert!(tables.table_names().iter().all(|name| !name.starts_with("other-")), "{tables:?}");
    engine.stop().await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let store = impatient(address, 1_000).await;
    let started = Instant::now();
    let error = store.regions().await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(1_000) + SLACK, "{:?}", started.elapsed());
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_never_answers_ends_with_the_deadline() {
    // Connections are accepted by the system and stay in the listener's queue.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = impatient(listener.local_addr().unwrap(), 300).await;
    let started = Instant::now();
    let error = store.regions().await.unwrap_err();
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(290), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(300) + SLACK, "{elapsed:?}");
    assert!(matches!(error, StoreError::Timeout { timeout_ms: 300, .. }), "{error:?}");
}

/// Answers every request with one status and one error, and counts them.
async fn answering(status: &'static str, code: &'static str) -> (SocketAddr, CountedRequests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, counted) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            read_request(&mut connection).await;
            requests.send(()).unwrap();
            let body = format!(r#"{{"__type":"x#{code}","message":"as the test says"}}"#);
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.0\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, counted)
}

type CountedRequests = tokio::sync::mpsc::UnboundedReceiver<()>;

async fn read_request(connection: &mut TcpStream) {
    let mut request = Vec::new();
    loop {
        assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0, "half a request");
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        if body.len() >= length.unwrap_or(0) {
            return;
        }
    }
}

#[tokio::test]
async fn what_the_service_refuses_is_told_apart() {
    for (status, code, expected, retryable, attempts) in [
        ("400 Bad Request", "ProvisionedThroughputExceededException", "Throttled", true, 3),
        ("400 Bad Request", "ThrottlingException", "Throttled", true, 3),
        ("500 Internal Server Error", "InternalServerError", "Other", true, 3),
        ("400 Bad Request", "AccessDeniedException", "Denied", false, 1),
        ("400 Bad Request", "ValidationException", "Other", false, 1),
    ] {
        let (address, mut requests) = answering(status, code).await;
        let store = impatient(address, 10_000).await;
        let error = store.regions().await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{code}: {error:?}");
        assert_eq!(error.is_retryable(), retryable, "{code}");
        assert!(error.to_string().contains("as the test says"), "{code}: {error}");
        let mut seen = 0_u64;
        while requests.try_recv().is_ok() {
            seen += 1;
        }
        assert_eq!(seen, attempts, "{code}");
        let counts = store.counts();
        assert_eq!(counts.retried, attempts - 1, "{code}");
        let throttled = expected == "Throttled";
        assert_eq!(counts.throttled, if throttled { attempts } else { 0 }, "{code}");
        assert_eq!(counts.failed_throttled, u64::from(throttled), "{code}");
        assert_eq!(counts.failed_denied, u64::from(expected == "Denied"), "{code}");
        assert_eq!(counts.failed_other, u64::from(expected == "Other"), "{code}");
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    for broken in [
        StoreConfig { table_prefix: String::new(), ..config(address) },
        StoreConfig { table_prefix: "a b".to_owned(), ..config(address) },
        StoreConfig { timeout_ms: 0, ..config(address) },
        StoreConfig { endpoint: Some("127.0.0.1:8000".to_owned()), ..config(address) },
    ] {
        let error = Store::connect(&broken).await.unwrap_err();
        assert!(matches!(error, StoreError::NotConfigured { .. }), "{error}");
    }
    let unknown = serde_json::from_str::<StoreConfig>(r#"{"endpiont": "http://127.0.0.1:1"}"#);
    assert!(unknown.unwrap_err().to_string().contains("endpiont"));
}

#[tokio::test]
async fn the_engine_serves_this_machine_only() {
    let folder = Folder::new();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let served = embedded::serve(&folder.file(), listener, "mrgc", std::future::pending()).await;
    assert!(matches!(served, Err(EmbeddedError::NotLoopback { .. })), "{served:?}");
    assert!(!folder.file().exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let folder = Folder::new();
    std::fs::write(folder.file(), "this is not a database, and long enough to show it".repeat(9))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = embedded::serve(&folder.file(), listener, "mrgc", std::future::pending()).await;
    let error = served.unwrap_err();
    assert!(matches!(error, EmbeddedError::Open { .. }), "{error}");
    assert!(error.to_string().contains("state.db"), "{error}");
}

#[tokio::test]
async fn half_a_request_does_not_hold_up_the_shutdown() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    engine.store().await.check().await.unwrap();
    let mut half = TcpStream::connect(engine.address).await.unwrap();
    half.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(10), engine.stop()).await;
    assert!(stopped.is_ok(), "the engine still drains");
}
