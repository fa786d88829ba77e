//! New versions of policies: uploaded here, or found in the store because another router took them.

use std::{sync::Arc, time::Instant};

use mrgc_policy_host::Engine;
use mrgc_store::{PolicyVersion, Store};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::{
    policies::{Handle, Status, Version, catalog},
    problem::Refusal,
};

/// Takes versions, one after another.
#[derive(Debug)]
pub struct Uploads {
    engine: Engine,
    conductor: Handle,
    threads: usize,
    /// Held while a version is prepared and swapped in, so that two do not overtake each other.
    turn: Mutex<()>,
}

/// What an upload answers.
#[derive(Debug, Serialize)]
pub struct Uploaded {
    #[serde(flatten)]
    pub policy: Status,
    /// Whether it survives a restart: there is a store.
    pub persisted: bool,
    /// Compiling, validating and trying it.
    pub prepared_ms: f64,
    /// From the order to swap until every data thread had its new deck.
    pub swapped_ms: f64,
}

impl Uploads {
    pub fn new(engine: Engine, conductor: Handle, threads: usize) -> Self {
        Self { engine, conductor, threads, turn: Mutex::new(()) }
    }

    /// Prepares, stores and activates a version. Until it is active, and for ever where something is wrong
    /// with it, the one before keeps serving.
    pub async fn upload(
        &self,
        store: Option<&Store>,
        name: &str,
        artifact: Vec<u8>,
    ) -> Result<Uploaded, Refusal> {
        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let artifact: Arc<[u8]> = artifact.into();
        let next = self.conductor.version(name).map_or(1, |v| v.generation + 1);
        let mut version = self
            .prepare(name, next, artifact.clone())
            .await
            .map_err(|e| Refusal::PolicyRefused(e.to_string()))?;
        let prepared_ms = millis(started);
        if let Some(store) = store {
            let stored = store.put_policy(name, &artifact).await;
            let stored = stored.map_err(|e| Refusal::Store(e.to_string()))?;
            let policy = version.policy.clone();
            version =
                Arc::new(Version::new(name.to_owned(), stored.generation, policy, self.threads));
        }
        let swapping = Instant::now();
        self.conductor.swap(version.clone()).await;
        let (generation, swapped_ms) = (version.generation, millis(swapping));
        tracing::info!(policy = name, generation, prepared_ms, swapped_ms, "policy swapped");
        let policy = Status::of(&version);
        Ok(Uploaded { policy, persisted: store.is_some(), prepared_ms, swapped_ms })
    }

    /// Activates what other routers have uploaded since.
    pub async fn catch_up(&self, store: &Store) {
        let heads = match store.policies().await {
            Ok(heads) => heads,
            Err(e) => return tracing::warn!("cannot read the policies: {e}"),
        };
        for head in heads {
            let _turn = self.turn.lock().await;
            let known = self.conductor.version(&head.name);
            if known.is_some_and(|v| v.generation >= head.generation) {
                continue;
            }
            match self.fetch(store, &head).await {
                Ok(version) => {
                    let generation = version.generation;
                    self.conductor.swap(version).await;
                    tracing::info!(policy = head.name, generation, "policy taken from the store");
                }
                Err(e) => tracing::warn!(policy = head.name, "cannot take it from the store: {e}"),
            }
        }
    }

    async fn fetch(&self, store: &Store, head: &PolicyVersion) -> Result<Arc<Version>, String> {
        let artifact = store.artifact(&head.digest).await.map_err(|e| e.to_string())?;
        self.prepare(&head.name, head.generation, artifact.into()).await.map_err(|e| e.to_string())
    }

    /// Compiling is work for a thread of its own.
    async fn prepare(
        &self,
        name: &str,
        generation: u64,
        artifact: Arc<[u8]>,
    ) -> Result<Arc<Version>, catalog::Rejection> {
        let (engine, conductor, threads) =
            (self.engine.clone(), self.conductor.clone(), self.threads);
        let name = name.to_owned();
        let work = move || {
            let fleet = conductor.fleet();
            catalog::prepare(
                &engine,
                conductor.table(),
                &fleet,
                &name,
                generation,
                &artifact,
                threads,
            )
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(prepared) => prepared,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
