//! An engine for a test, what stands between it and the client, and instances to put in it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region as AwsRegion},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use mrgc_fleet::model::{EnclaveState, Health, Lifecycle, Region, Registration, Report, Timestamp};
use mrgc_store::{
    Store, StoreConfig,
    embedded::{self, EmbeddedError},
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

/// A running engine; dropping it stops it.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), EmbeddedError>>,
}

impl Engine {
    pub(crate) async fn start(folder: &Folder) -> Self {
        Self::start_at(folder, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(folder: &Folder, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let file = folder.file();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            embedded::serve(&file, listener, "mrgc", shutdown).await
        });
        Self { address, stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }

    pub(crate) async fn store(&self) -> Store {
        store_at(self.address).await
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
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
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
    lose_next: Arc<AtomicBool>,
    connections: Arc<AtomicU32>,
}

impl Lossy {
    pub(crate) async fn before(engine: &Engine) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lose_next = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU32::new(0));
        let (upstream, lose) = (engine.address, Arc::clone(&lose_next));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(forward(client, upstream, Arc::clone(&lose)));
            }
        });
        Self { address, lose_next, connections }
    }

    pub(crate) fn lose_next_answer(&self) {
        self.lose_next.store(true, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        !self.lose_next.load(Ordering::SeqCst)
    }
}

async fn forward(client: TcpStream, upstream: SocketAddr, lose: Arc<AtomicBool>) {
    let engine = TcpStream::connect(upstream).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_engine).await };
    let answers = async {
        let mut buffer = vec![0; 64 * 1_024];
        loop {
            match from_engine.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) if lose.swap(false, Ordering::SeqCst) => return,
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
        id: id.into(),
        region: REGION.into(),
        pool: "model-a".into(),
        address: "10.66.10.50:8000".to_owned(),
        health_address: "10.66.10.50:8080".to_owned(),
        zone: Some("us-east-1a".to_owned()),
        provider: Some("aws".to_owned()),
        instance_type: Some("p5.48xlarge".to_owned()),
        slots: Some(64),
        cost_per_hour: Some(98.32),
        frameworks: vec!["hipaa".into()],
        metadata: BTreeMap::from([("ami_id".to_owned(), "ami-12345".to_owned())]),
        registered_at: Timestamp(1_760_000_000_000),
        generation: 0,
    }
}

pub(crate) fn report(id: &str, generation: u64, sequence: u64) -> Report {
    Report {
        id: id.into(),
        region: REGION.into(),
        generation,
        sequence,
        at: Timestamp(1_760_000_000_000 + sequence),
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        reason: None,
        queue_depth: Some(2),
        running: Some(7),
        avg_latency_ms: Some(150.0),
        time_to_first_token_ms: Some(0.1 + 0.2),
        models: vec!["meta-llama/Llama-3.1-70B-Instruct".to_owned()],
        enclave: EnclaveState::Running,
        gpu_utilization: Some(0.85),
        gpu_memory_free_bytes: Some(12_884_901_888),
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
