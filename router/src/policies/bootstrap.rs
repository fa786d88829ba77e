//! The versions with which a router starts.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, bail};
use mrgc_policy_host::Engine;
use mrgc_store::{Store, StoreError};

use super::{RouteTable, Version, catalog};
use crate::{config::Config, flight::FleetView};

/// A version of every policy that is in the folder or in the store: the store's, or the folder's where
/// that one is refused.
pub async fn versions(
    config: &Config,
    store: Option<&Store>,
    engine: &Engine,
    table: &RouteTable,
    fleet: &FleetView,
) -> Result<Vec<Arc<Version>>> {
    let folder = &config.policies.dir;
    let found = catalog::read_folder(folder)
        .with_context(|| format!("cannot read policies.dir = {}", folder.display()))?;
    // By name, those to be preferred last.
    let mut artifacts: BTreeMap<String, Vec<(u64, Vec<u8>)>> =
        found.into_iter().map(|(name, bytes)| (name, vec![(0, bytes)])).collect();
    if let Some(store) = store
        && let Err(e) = add_uploads(store, &mut artifacts).await
    {
        tracing::warn!("not all uploaded policies to start with: {e}");
    }
    let used = |name: &str| table.specs.iter().any(|spec| spec.name == name);
    let missing: Vec<_> = table
        .specs
        .iter()
        .map(|spec| spec.name.as_str())
        .filter(|name| !artifacts.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        bail!(
            "no artifact of the policies {} in policies.dir = {} or in the store; build them with `cargo xtask policies`",
            missing.join(", "),
            folder.display()
        );
    }
    let mut versions = Vec::new();
    for (name, mut candidates) in artifacts {
        while let Some((generation, artifact)) = candidates.pop() {
            let threads = config.threads();
            match catalog::prepare(engine, table, fleet, &name, generation, &artifact, threads) {
                Ok(version) => {
                    versions.push(version);
                    break;
                }
                Err(e) if used(&name) && candidates.is_empty() => {
                    return Err(e).with_context(|| format!("policy `{name}`"));
                }
                Err(e) => tracing::warn!(policy = name, generation, "left out: {e}"),
            }
        }
    }
    Ok(versions)
}

async fn add_uploads(
    store: &Store,
    artifacts: &mut BTreeMap<String, Vec<(u64, Vec<u8>)>>,
) -> Result<(), StoreError> {
    for head in store.policies().await? {
        let artifact = store.artifact(&head.digest).await?;
        artifacts.entry(head.name).or_default().push((head.generation, artifact));
    }
    Ok(())
}
