//! The operator's API, on a listener of its own.

mod api;
mod check;
mod cluster;
mod dry_run;
pub mod failover;
mod instances;
mod metrics;
mod regions;
mod uploads;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    attestation::Attestations, cloud::Looks, collect::Collection, config::Config, data::Threads,
    failovers::Failovers, flight::Clock, health::HealthBoard, policies::Handle, problem::Refusal,
};

pub use failover::Failover;
pub use uploads::Uploads;

/// What the API answers from.
#[derive(Debug)]
pub struct Context {
    pub config: Arc<Config>,
    /// Has the fleet in every process; routes and policies where requests are forwarded.
    pub conductor: Handle,
    /// `None` where this process forwards no requests.
    pub proxy: Option<Arc<Proxy>>,
    pub health: HealthBoard,
    pub store: Option<mrgc_store::Store>,
    /// `None` where EC2 is not asked.
    pub looks: Option<Looks>,
    pub failover: Failover,
    pub failovers: Failovers,
    pub clock: Clock,
    pub started: std::time::Instant,
    /// Dry runs so far, so that round-robin moves on from one to the next.
    pub dry_runs: AtomicU64,
}

impl Context {
    fn proxy(&self) -> Result<&Proxy, Refusal> {
        let why = "this process forwards no requests: ask one of the region with the role `proxy`";
        self.proxy.as_deref().ok_or_else(|| Refusal::Conflict(why.to_owned()))
    }
}

/// What a process that forwards requests has beyond others.
#[derive(Debug)]
pub struct Proxy {
    pub uploads: Arc<Uploads>,
    pub threads: Threads,
    /// How long requests in flight have to end.
    pub drain: Duration,
    /// `None` without a store.
    pub collection: Option<Arc<Collection>>,
    pub attestations: Attestations,
}

/// Serves the API until `shutdown` turns true.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    mut shutdown: watch::Receiver<bool>,
) -> std::io::Result<()> {
    if let Some(store) = &context.store {
        let (failover, store) = (context.failover.clone(), store.clone());
        tokio::spawn(failover::write_unstored(failover, store, shutdown.clone()));
    }
    let stop = async move {
        // A sender that is gone means the same.
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, api::router(context)).with_graceful_shutdown(stop).await
}

/// Binds the API's listener.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
