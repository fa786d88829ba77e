//! A stand-in for an inference server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, routing::get};
use tokio::{net::TcpListener, task::JoinHandle};

/// What the stand-in for an inference server says.
#[derive(Clone, Copy, Default)]
pub(crate) struct Gauges {
    pub(crate) waiting: u32,
    pub(crate) running: u32,
}

/// A stand-in for an inference server, on a free port.
pub(crate) struct ModelServer {
    pub(crate) address: SocketAddr,
    gauges: Arc<Mutex<Gauges>>,
    serving: JoinHandle<()>,
}

impl ModelServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gauges = Arc::new(Mutex::new(Gauges::default()));
        let pages = Router::new()
            .route("/metrics", get(metrics))
            .route("/v1/models", get(async || r#"{"data":[{"id":"llama"}]}"#))
            .with_state(Arc::clone(&gauges));
        let serving = tokio::spawn(async move { axum::serve(listener, pages).await.unwrap() });
        Self { address, gauges, serving }
    }

    pub(crate) fn set(&self, gauges: Gauges) {
        *self.gauges.lock().unwrap() = gauges;
    }

    /// Nothing listens at its address any more.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn metrics(State(gauges): State<Arc<Mutex<Gauges>>>) -> String {
    let Gauges { waiting, running } = *gauges.lock().unwrap();
    format!(
        "vllm:num_requests_waiting{{engine=\"0\"}} {waiting}\n\
         vllm:num_requests_running{{engine=\"0\"}} {running}\n\
         vllm:e2e_request_latency_seconds_sum 1.5\nvllm:e2e_request_latency_seconds_count 10\n\
         vllm:time_to_first_token_seconds_sum 0.2\nvllm:time_to_first_token_seconds_count 10\n"
    )
}
