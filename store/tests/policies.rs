//! Policies: artifacts in chunks, and heads with generations.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_store::{MAX_ARTIFACT_BYTES, StoreError};

use crate::support::{Engine, Folder, skipped, table, without};

/// One megabyte and a bit that does not compress or repeat.
fn artifact() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..(1 << 20) + 17).map(|_| next()).collect()
}

#[tokio::test]
async fn an_artifact_is_stored_in_chunks_and_survives_a_restart() {
    if skipped("it restarts the engine") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let artifact = artifact();
    let version = store.put_policy("least-latency", &artifact).await.unwrap();
    assert_eq!((version.generation, version.size_bytes), (1, artifact.len() as u64));
    let small = store.put_policy("small", b"abc").await.unwrap();
    assert_eq!(small.digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let chunks = engine.client().scan().table_name(table("policies")).send().await.unwrap();
    assert!(chunks.last_evaluated_key.is_some(), "one page: {}", chunks.count);
    engine.stop().await;

    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    assert_eq!(store.policies().await.unwrap(), [version.clone(), small]);
    assert!(store.artifact(&version.digest).await.unwrap() == artifact);
    engine.stop().await;
}

#[tokio::test]
async fn uploads_at_once_get_generations_of_their_own() {
    if without("atomic-writes") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut uploads = tokio::task::JoinSet::new();
    for n in 0..6_u8 {
        let store = store.clone();
        // Two of each content: the same artifact twice is two uploads, too.
        uploads.spawn(async move { store.put_policy("p", &[n / 2; 100]).await.unwrap() });
    }
    let versions = uploads.join_all().await;
    let generations: BTreeSet<u64> = versions.iter().map(|version| version.generation).collect();
    assert_eq!(generations, (1..=6).collect());
    let last = versions.into_iter().max_by_key(|version| version.generation).unwrap();
    assert_eq!(store.policies().await.unwrap(), [last]);
    engine.stop().await;
}

#[tokio::test]
async fn an_artifact_that_is_not_whole_is_never_given_out() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let artifact = artifact();
    let version = store.put_policy("p", &artifact).await.unwrap();
    let delete = engine.client().delete_item().table_name(table("policies"));
    delete
        .key("pk", AttributeValue::S(format!("ARTIFACT#{}", version.digest)))
        .key("sk", AttributeValue::S("00001".to_owned()))
        .send()
        .await
        .unwrap();
    let error = store.artifact(&version.digest).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");

    // Uploading it again heals it.
    assert_eq!(store.put_policy("p", &artifact).await.unwrap().generation, 2);
    assert!(store.artifact(&version.digest).await.unwrap() == artifact);
    engine.stop().await;
}

#[tokio::test]
async fn what_cannot_be_an_artifact_is_refused() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let too_large = vec![0; MAX_ARTIFACT_BYTES + 1];
    for (name, artifact) in [("", &b"x"[..]), ("p", &[][..]), ("p", &too_large)] {
        let error = store.put_policy(name, artifact).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    let error = store.artifact("../heads").await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let error = store.artifact(&"0".repeat(64)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    assert_eq!(store.policies().await.unwrap(), []);
    engine.stop().await;
}
