//! The DynamoDB-compatible engine for one machine: `dynoxide` over a SQLite file, on loopback.
//!
//! It has no authentication and one copy of the data: it is for a development machine, a demonstration,
//! or one node on its own, and refuses any listener that another machine could reach. The engine answers
//! on one thread of its own, so that its disk writes do not hold up the caller's runtime.
//!
//! ```text
//!  Serving ── shutdown ──► Draining ── last request answered, or 2 s ──► file closed
//! ```

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::{net::TcpListener, runtime, sync::oneshot, time::sleep};
use tracing::{info, warn};

use crate::{
    item::{PK, SK},
    schema::{EXPIRES_AT, Table, check_prefix},
};

/// After shutdown, how long requests that are being answered may take; then they are cut.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the embedded engine does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "the embedded engine has no authentication and serves loopback only, not {address}: \
         listen on 127.0.0.1, or use DynamoDB"
    )]
    NotLoopback { address: SocketAddr },
    #[error("{reason}")]
    Prefix { reason: String },
    #[error("the state file `{}` cannot be opened: {reason}", file.display())]
    Open { file: PathBuf, reason: String },
    #[error("the table `{table}` cannot be created in `{}`: {reason}", file.display())]
    CreateTable { file: PathBuf, table: String, reason: String },
    #[error("the embedded engine's listener: {0}")]
    Listener(#[from] io::Error),
    #[error("the embedded engine stopped: {reason}")]
    Stopped { reason: String },
}

/// Serves the state in `file`, which is created with its tables where it does not exist, until
/// `shutdown` resolves; then lets running requests finish and closes the file.
///
/// Connections are taken from the moment the listener is bound, and answered once the tables are there.
/// Dropping the future stops the engine, too.
pub async fn serve(
    file: &Path,
    listener: TcpListener,
    table_prefix: &str,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), EmbeddedError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(EmbeddedError::NotLoopback { address });
    }
    check_prefix(table_prefix).map_err(|reason| EmbeddedError::Prefix { reason })?;

    let listener = listener.into_std()?;
    let (file, table_prefix) = (file.to_owned(), table_prefix.to_owned());
    // Dropped with this future, which stops the engine as well as a message does.
    let (stop, stopped) = oneshot::channel::<()>();
    let mut engine = tokio::task::spawn_blocking(move || {
        let database = open(&file, &table_prefix)?;
        info!(file = %file.display(), %address, "embedded state engine: one machine, no authentication");
        run(database, listener, stopped)
    });
    let ended = tokio::select! {
        ended = &mut engine => ended,
        () = shutdown => {
            drop(stop);
            engine.await
        }
    };
    ended.unwrap_or_else(|error| Err(EmbeddedError::Stopped { reason: error.to_string() }))
}

fn open(file: &Path, table_prefix: &str) -> Result<dynoxide::Database, EmbeddedError> {
    let failed = |reason: String| EmbeddedError::Open { file: file.to_owned(), reason };
    let path = file.to_str().ok_or_else(|| failed("its path is not UTF-8".to_owned()))?;
    let database = dynoxide::Database::new(path).map_err(|e| failed(e.to_string()))?;
    create_tables(&database, table_prefix).map_err(|(table, reason)| {
        EmbeddedError::CreateTable { file: file.to_owned(), table, reason }
    })?;
    Ok(database)
}

/// Creates those tables that the engine does not have yet, by the same definition as everywhere. It takes
/// the engine itself, not a client, so that it cannot be pointed at the real service. An error names the
/// table and the reason.
fn create_tables(database: &dynoxide::Database, prefix: &str) -> Result<(), (String, String)> {
    for table in Table::ALL {
        let name = table.name(prefix);
        create_table(database, table, &name).map_err(|reason| (name, reason))?;
    }
    Ok(())
}

fn create_table(database: &dynoxide::Database, table: Table, name: &str) -> Result<(), String> {
    let request = serde_json::from_value(json!({
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": [
            {"AttributeName": PK, "KeyType": "HASH"},
            {"AttributeName": SK, "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": PK, "AttributeType": "S"},
            {"AttributeName": SK, "AttributeType": "S"},
        ],
    }));
    match database.create_table(request.map_err(|e| e.to_string())?) {
        Ok(_) | Err(dynoxide::DynoxideError::ResourceInUseException(_)) => {}
        Err(error) => return Err(error.to_string()),
    }
    if table.expires() {
        let request = serde_json::from_value(json!({
            "TableName": name,
            "TimeToLiveSpecification": {"AttributeName": EXPIRES_AT, "Enabled": true},
        }));
        let request = request.map_err(|e| e.to_string())?;
        database.update_time_to_live(request).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// On a runtime of its own: when it is dropped, so are connections that did not end, and the database
/// is closed for certain.
fn run(
    database: dynoxide::Database,
    listener: std::net::TcpListener,
    stopped: oneshot::Receiver<()>,
) -> Result<(), EmbeddedError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let (drain, draining) = oneshot::channel::<()>();
        let serving = dynoxide::server::serve_with_shutdown(listener, database, async {
            // Either way it is time to stop.
            let _ = stopped.await;
            drop(drain);
        });
        tokio::select! {
            ended = serving => ended.map_err(|reason| EmbeddedError::Stopped { reason }),
            () = async { let _ = draining.await; sleep(DRAIN).await } => {
                warn!("requests to the embedded engine did not end within {DRAIN:?} and were cut");
                Ok(())
            }
        }
    })
}
