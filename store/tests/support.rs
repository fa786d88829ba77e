//! An engine for a test, what stands between it and the client, and instances to put in it.
//!
//! Each test has an embedded engine of its own. With `MRGC_TEST_STORE=http://127.0.0.1:8000` it has tables of
//! its own, under another prefix, in the engine that listens there; tests of the embedded engine itself then
//! say that they are skipped ([`skipped`]).

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region as AwsRegion},
    types::AttributeValue,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use mrgc_fleet::model::{EnclaveState, Health, Lifecycle, Region, Registration, Report, Timestamp};
use mrgc_store::{
    ProvisionOptions, Store, StoreConfig,
    embedded::{self, EmbeddedError},
    table_definitions,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

pub(crate) const REGION: &str = "us-east-1";

/// A folder that is gone with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mrgc-store-{}-{n}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("state.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The variable that names an engine to test against in place of the embedded one.
const EXTERNAL: &str = "MRGC_TEST_STORE";

thread_local! {
    /// Of this test's tables: each test has a thread.
    static PREFIX: RefCell<String> = RefCell::new(StoreConfig::default().table_prefix);
}

/// The full name of a table of this test, as in `mrgc-regions`.
pub(crate) fn table(name: &str) -> String {
    format!("{}-{name}", config_prefix())
}

fn config_prefix() -> String {
    PREFIX.with_borrow(Clone::clone)
}

fn external() -> Option<SocketAddr> {
    let endpoint = std::env::var(EXTERNAL).ok()?;
    let authority = endpoint.strip_prefix("http://").unwrap_or(&endpoint).trim_end_matches('/');
    let mut addresses = authority.to_socket_addrs().unwrap_or_else(|e| panic!("{EXTERNAL}: {e}"));
    Some(addresses.next().unwrap_or_else(|| panic!("{EXTERNAL}: {endpoint} has no address")))
}

/// Whether the engine is not the test's own, for tests that need it to be; prints why one is skipped.
pub(crate) fn skipped(reason: &str) -> bool {
    let is_external = external().is_some();
    if is_external {
        let test = std::thread::current();
        println!("skipped: {}: {reason}", test.name().unwrap_or("a test"));
    }
    is_external
}

/// Whether `MRGC_TEST_STORE_WITHOUT` says that the engine lacks what the calling test needs: `atomic-writes`
/// (of conditional writes at once one wins, and none is lost), or `keep-alive` (connections stay open).
pub(crate) fn without(capability: &str) -> bool {
    let lacks = std::env::var("MRGC_TEST_STORE_WITHOUT").unwrap_or_default();
    lacks.split(',').any(|name| name == capability)
        && skipped(&format!("the engine is without {capability}"))
}

/// A running engine; dropping it stops it.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    /// `None` where it is not ours to stop.
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), EmbeddedError>>,
}

impl Engine {
    pub(crate) async fn start(folder: &Folder) -> Self {
        match external() {
            Some(address) => Self::with_own_tables(address).await,
            None => Self::start_at(folder, "127.0.0.1:0".parse().unwrap()).await,
        }
    }

    /// An embedded engine, whatever the other tests run against.
    pub(crate) async fn start_at(folder: &Folder, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let file = folder.file();
        let prefix = config_prefix();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            embedded::serve(&file, listener, &prefix, shutdown).await
        });
        Self { address, running: Some(Running { stop, task }) }
    }

    async fn with_own_tables(address: SocketAddr) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        PREFIX.set(format!("mrgc-test-{}-{n}", std::process::id()));
        let options = ProvisionOptions::default();
        store_at(address).await.create_tables(&options, |_, _| ()).await.unwrap();
        Self { address, running: None }
    }

    /// Ends the engine, or removes the test's tables from one that goes on.
    pub(crate) async fn stop(self) {
        let Some(Running { stop, task }) = self.running else {
            let client = self.client();
            for definition in table_definitions() {
                // A test may have removed some itself.
                let _ = client.delete_table().table_name(table(definition.name)).send().await;
            }
            return;
        };
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }

    pub(crate) async fn store(&self) -> Store {
        store_at(self.address).await
    }

    /// All that is in a table, as it is stored.
    pub(crate) async fn items(&self, name: &str) -> Vec<HashMap<String, AttributeValue>> {
        let page = self.client().scan().table_name(table(name)).send().await.unwrap();
        assert!(page.last_evaluated_key.is_none(), "more than a page");
        page.items.unwrap()
    }

    /// The one item of a table that has this sort key, as it is stored.
    pub(crate) async fn item(&self, (name, sk): (&str, &str)) -> HashMap<String, AttributeValue> {
        let sk = AttributeValue::S(sk.to_owned());
        let mut items = self.items(name).await;
        items.retain(|item| item["sk"] == sk);
        assert_eq!(items.len(), 1, "{name}: {sk:?}");
        items.remove(0)
    }

    /// Sets an attribute of it, as another program might.
    pub(crate) async fn set(&self, item: (&str, &str), attribute: &str, value: AttributeValue) {
        let mut changed = self.item(item).await;
        changed.insert(attribute.to_owned(), value);
        let put = self.client().put_item().table_name(table(item.0));
        put.set_item(Some(changed)).send().await.unwrap();
    }

    /// The SDK without the store, to put into the tables what the store would not.
    pub(crate) fn client(&self) -> Client {
        let tls = TlsContext::builder().with_trust_store(TrustStore::empty()).build().unwrap();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new("mrgc", "mrgc", None, None, "test"))
            .endpoint_url(format!("http://{}", self.address))
            .http_client(http)
            .region(AwsRegion::from_static(REGION))
            .build();
        Client::from_conf(config)
    }
}

pub(crate) fn config(address: SocketAddr) -> StoreConfig {
    // Tests share two cores with other builds, so the deadline is generous where it is not the point.
    StoreConfig {
        endpoint: Some(format!("http://{address}")),
        table_prefix: config_prefix(),
        timeout_ms: 20_000,
        ..StoreConfig::default()
    }
}

pub(crate) async fn store_at(address: SocketAddr) -> Store {
    Store::connect(&config(address)).await.unwrap()
}

/// Forwards to an engine, and loses an answer when told to: the request is done, nobody hears of it.
pub(crate) struct Lossy {
    pub(crate) address: SocketAddr,
    /// Which answer from now on is lost; 0: none.
    lose: Arc<AtomicU32>,
    connections: Arc<AtomicU32>,
}

impl Lossy {
    pub(crate) async fn before(engine: &Engine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lose = Arc::new(AtomicU32::new(0));
        let connections = Arc::new(AtomicU32::new(0));
        let (upstream, countdown) = (engine.address, Arc::clone(&lose));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(forward(client, upstream, Arc::clone(&countdown)));
            }
        });
        Self { address, lose, connections }
    }

    pub(crate) fn lose_next_answer(&self) {
        self.lose_answer(1);
    }

    /// Loses the `nth` answer from now on.
    pub(crate) fn lose_answer(&self, nth: u32) {
        self.lose.store(nth, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many answers there are still to come, the lost one included.
    pub(crate) fn answers_left(&self) -> u32 {
        self.lose.load(Ordering::SeqCst)
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        self.lose.load(Ordering::SeqCst) == 0
    }
}

/// Whether this answer is the one.
fn countdown(lose: &AtomicU32) -> bool {
    let one_less = |n: u32| n.checked_sub(1);
    lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(1)
}

async fn forward(client: TcpStream, upstream: SocketAddr, lose: Arc<AtomicU32>) {
    let engine = TcpStream::connect(upstream).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_engine).await };
    let answers = async {
        let mut buffer = vec![0; 64 * 1_024];
        loop {
            match from_engine.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) if countdown(&lose) => return,
                Ok(n) => to_client.write_all(&buffer[..n]).await.unwrap(),
            }
        }
    };
    tokio::select! {
        _ = requests => {}
        () = answers => {}
    }
}

pub(crate) fn registration(id: &str) -> Registration {
    Registration {
        health_address: "10.66.10.50:8080".to_owned(),
        zone: Some("us-east-1a".to_owned()),
        subnet_id: Some("subnet-12345".to_owned()),
        subnet_cidr: Some("10.66.10.0/23".to_owned()),
        ami_id: Some("ami-12345".to_owned()),
        provider: Some("aws".to_owned()),
        instance_type: Some("p5.48xlarge".to_owned()),
        slots: Some(64),
        cost_per_hour: Some(98.32),
        frameworks: vec!["hipaa".into()],
        metadata: BTreeMap::from([("rack".to_owned(), "b12".to_owned())]),
        registered_at: Timestamp(1_760_000_000_000),
        ..Registration::new(id, REGION, "model-a", "10.66.10.50:8000")
    }
}

pub(crate) fn report(id: &str, generation: u64, sequence: u64) -> Report {
    Report {
        at: Timestamp(1_760_000_000_000 + sequence),
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        queue_depth: Some(2),
        running: Some(7),
        avg_latency_ms: Some(150.0),
        time_to_first_token_ms: Some(0.1 + 0.2),
        models: vec!["meta-llama/Llama-3.1-70B-Instruct".to_owned()],
        enclave: EnclaveState::Running,
        gpu_utilization: Some(0.85),
        gpu_memory_free_bytes: Some(12_884_901_888),
        // The store's own arithmetic: queue 2, 150 ms, healthy.
        routing_score: Some(85.5),
        ..Report::new(id, REGION, generation, sequence)
    }
}

pub(crate) fn region(id: &str) -> Region {
    serde_json::from_value(serde_json::json!({
        "region_id": id,
        "name": "US East (N. Virginia)",
        "provider": "aws",
        "latitude": 38.95,
        "longitude": -77.45,
        "endpoint": "http://router.us-east-1:8080",
        "frameworks": ["hipaa", "soc2"],
        "cost_multiplier": 1.25,
        "carbon_intensity": 350.0,
    }))
    .unwrap()
}
