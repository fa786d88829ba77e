//! A server of pages, and pages as inference servers have them.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    http::{StatusCode, Uri},
    routing::any,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::until;

pub(super) const OPENAI: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

/// A page: its path, its code and its body.
pub(super) type Page = (&'static str, u16, String);

/// A server with these pages and no others.
pub(super) struct PageServer {
    pub(super) url: String,
    pub(super) port: u16,
    pages: Arc<Mutex<Vec<Page>>>,
    serving: JoinHandle<()>,
}

impl PageServer {
    pub(super) async fn start(pages: Vec<Page>) -> Self {
        Self::start_at(0, pages).await
    }

    pub(super) async fn start_at(port: u16, pages: Vec<Page>) -> Self {
        let listener = until("the server's port", async || {
            TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| error.to_string())
        })
        .await;
        let port = listener.local_addr().unwrap().port();
        let pages = Arc::new(Mutex::new(pages));
        let served = Arc::clone(&pages);
        let page = any(async move |uri: Uri| {
            let pages = served.lock().unwrap();
            let found = pages.iter().find(|(path, ..)| *path == uri.path());
            let (code, body) =
                found.map_or((404, String::new()), |(_, code, body)| (*code, body.clone()));
            (StatusCode::from_u16(code).unwrap(), body)
        });
        let serving = tokio::spawn(async move {
            axum::serve(listener, Router::new().fallback_service(page)).await.unwrap();
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, pages, serving }
    }

    pub(super) fn show(&self, pages: Vec<Page>) {
        *self.pages.lock().unwrap() = pages;
    }

    pub(super) async fn stop(self) -> u16 {
        self.serving.abort();
        let _ = self.serving.await;
        self.port
    }
}

/// A page of metrics, as it was written down.
pub(super) fn captured(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pages");
    fs::read_to_string(folder.join(format!("{name}.prom"))).unwrap()
}

pub(super) fn ok(path: &'static str, body: &str) -> Page {
    (path, 200, body.to_owned())
}

pub(super) fn vllm(waiting: u32) -> Vec<Page> {
    let metrics = format!("vllm:num_requests_waiting {waiting}\nvllm:num_requests_running 1\n");
    vec![ok("/metrics", &metrics), ok("/v1/models", OPENAI)]
}
