//! New versions of policies: uploaded here, or found in the store because another router took them.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use mrgc_policy_host::Engine;
use mrgc_store::Store;
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
    /// Held while a version is prepared and swapped in, so that two do not overtake each other. It holds
    /// the stored generations that were refused here, by name, with how often.
    turn: Mutex<BTreeMap<String, (u64, u32)>>,
}

/// How often a version from the store is tried: a trial can run out of time where the machine is busy.
const TRIES_MAX: u32 = 3;

/// What an upload answers.
#[derive(Debug, Serialize)]
pub struct Uploaded {
    #[serde(flatten)]
    pub policy: Status,
    /// Whether it survives a restart: there is a store.
    pub persisted: bool,
    /// Compiling, validating and trying it.
    pub prepared_ms: f64,
    /// From the order to swap until every data thread was sent its new deck.
    pub swapped_ms: f64,
}

impl Uploads {
    pub fn new(engine: Engine, conductor: Handle, threads: usize) -> Self {
        Self { engine, conductor, threads, turn: Mutex::default() }
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
            let mut refused = self.turn.lock().await;
            let known = self.conductor.version(&head.name);
            if known.is_some_and(|v| v.generation >= head.generation) {
                continue;
            }
            let (policy, generation) = (&head.name, head.generation);
            let tries =
                refused.get(policy).filter(|(of, _)| *of == generation).map_or(0, |(_, n)| *n);
            if tries >= TRIES_MAX {
                continue;
            }
            let artifact = match store.artifact(&head.digest).await {
                Ok(artifact) => artifact.into(),
                Err(e) => {
                    tracing::warn!(policy, generation, "cannot fetch it from the store: {e}");
                    continue;
                }
            };
            match self.prepare(policy, generation, artifact).await {
                Ok(version) => {
                    self.conductor.swap(version).await;
                    tracing::info!(policy, generation, "policy taken from the store");
                }
                Err(e) => {
                    refused.insert(policy.clone(), (generation, tries + 1));
                    tracing::warn!(policy, generation, "refused, the version before stays: {e}");
                }
            }
        }
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
