//! Where an example's state is: at the endpoint it is given, or in an embedded engine of its own.

use std::error::Error;

use mrgc_store::{
    Store, StoreConfig,
    embedded::{self, EmbeddedError},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A store, and the engine behind it where that is ours.
pub struct State {
    pub store: Store,
    engine: Option<Engine>,
}

struct Engine {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::result::Result<(), EmbeddedError>>,
    /// Goes with the engine.
    _folder: TempDir,
}

impl State {
    /// With `--endpoint URL`, tables that are there; else an engine on a file that is gone afterwards.
    pub async fn of_arguments() -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        match (arguments.next().as_deref(), arguments.next()) {
            (None, _) => Self::embedded().await,
            (Some("--endpoint"), Some(endpoint)) => {
                let config = StoreConfig { endpoint: Some(endpoint), ..StoreConfig::default() };
                Ok(Self { store: Store::connect(&config).await?, engine: None })
            }
            _ => Err("usage: [--endpoint URL], as in --endpoint http://127.0.0.1:8000".into()),
        }
    }

    /// An engine on a temporary file.
    pub async fn embedded() -> Result<Self> {
        let folder = TempDir::new()?;
        let file = folder.path().join("state.db");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let config = StoreConfig {
            endpoint: Some(format!("http://{}", listener.local_addr()?)),
            // The first call waits until the tables are made, which a busy machine takes its time for.
            timeout_ms: 20_000,
            ..StoreConfig::default()
        };
        let (stop, stopped) = oneshot::channel();
        let prefix = config.table_prefix.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            embedded::serve(&file, listener, &prefix, shutdown).await
        });
        let engine = Engine { stop, task, _folder: folder };
        Ok(Self { store: Store::connect(&config).await?, engine: Some(engine) })
    }

    /// Stops the engine, if it is ours.
    pub async fn close(self) -> Result<()> {
        if let Some(engine) = self.engine {
            drop(engine.stop);
            engine.task.await??;
        }
        Ok(())
    }
}
