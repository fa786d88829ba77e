//! Attempts at one call that fail: throttled ones, and ones with credentials that expired.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials};
use mrgc_store::{Store, StoreError};

use crate::{
    front::{EXPIRED, Front, THROTTLED},
    support::{Engine, Folder, REGION, config, region, registration, store_at},
};

/// Of an embedded engine: what is tested is the client, and another engine may mind the access keys.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn a_throttle_that_passes_is_not_an_error() {
    let folder = Folder::new();
    let engine = Engine::start_at(&folder, ANY_PORT).await;
    let refused = AtomicU32::new(0);
    let front = Front::before(engine.address, move |_| {
        (refused.fetch_add(1, Ordering::SeqCst) < 2).then_some(THROTTLED)
    })
    .await;
    let store = store_at(front.address).await;
    store.put_region(&region(REGION)).await.unwrap();
    let counts = store.counts();
    assert_eq!((counts.throttled, counts.retried, counts.failed_throttled), (2, 2, 0));
    engine.stop().await;
}

/// Hands out `key-1`, `key-2` and so on, each good for `lifetime`, and counts them.
fn keys(lifetime: Duration, given: &Arc<AtomicU32>) -> impl ProvideCredentials + use<> {
    let given = Arc::clone(given);
    provide_credentials_fn(move || {
        let key = format!("key-{}", given.fetch_add(1, Ordering::SeqCst) + 1);
        let end = SystemTime::now() + lifetime;
        async move { Ok(Credentials::new(key, "secret", None, Some(end), "test")) }
    })
}

#[tokio::test]
async fn credentials_that_expire_mid_run_are_renewed() {
    let folder = Folder::new();
    let engine = Engine::start_at(&folder, ANY_PORT).await;
    let expired = Arc::new(AtomicBool::new(false));
    let is_expired = Arc::clone(&expired);
    let front = Front::before(engine.address, move |key| {
        (key == "key-1" && is_expired.load(Ordering::SeqCst)).then_some(EXPIRED)
    })
    .await;
    let given = Arc::new(AtomicU32::new(0));
    // By their own word they last an hour; the service knows better.
    let provider = keys(Duration::from_secs(3_600), &given);
    let store = Store::connect_as(&config(front.address), provider).await.unwrap();
    store.put_region(&region(REGION)).await.unwrap();
    expired.store(true, Ordering::SeqCst);
    store.register(&registration("i-1")).await.unwrap();
    assert_eq!(store.regions().await.unwrap(), [region(REGION)]);

    let counts = store.counts();
    assert_eq!((counts.renewed_credentials, counts.failed_denied), (1, 0));
    assert_eq!(given.load(Ordering::SeqCst), 2);
    assert_eq!(front.keys().last().unwrap(), "key-2");
    engine.stop().await;
}

#[tokio::test]
async fn credentials_that_stay_expired_are_denied_until_there_are_better_ones() {
    let folder = Folder::new();
    let engine = Engine::start_at(&folder, ANY_PORT).await;
    let expired = Arc::new(AtomicBool::new(true));
    let is_expired = Arc::clone(&expired);
    let front = Front::before(engine.address, move |_| {
        is_expired.load(Ordering::SeqCst).then_some(EXPIRED)
    })
    .await;
    let given = Arc::new(AtomicU32::new(0));
    let provider = keys(Duration::from_secs(3_600), &given);
    let store = Store::connect_as(&config(front.address), provider).await.unwrap();
    let error = store.regions().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert_eq!(front.keys().len(), 3, "the attempts of one call");
    assert!(given.load(Ordering::SeqCst) <= 3);
    expired.store(false, Ordering::SeqCst);
    store.regions().await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn credentials_about_to_end_are_replaced_before() {
    let folder = Folder::new();
    let engine = Engine::start_at(&folder, ANY_PORT).await;
    let front = Front::before(engine.address, |_| None).await;
    let given = Arc::new(AtomicU32::new(0));
    // Less than the margin before their end at which the SDK asks for the next.
    let provider = keys(Duration::from_secs(2), &given);
    let store = Store::connect_as(&config(front.address), provider).await.unwrap();
    for _ in 0..3 {
        store.regions().await.unwrap();
    }
    assert_eq!(front.keys(), ["key-1", "key-2", "key-3"]);
    assert_eq!(store.counts().renewed_credentials, 0);
    engine.stop().await;
}
