//! Instances that left: what stays of them, for how long, and what it keeps out.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{Lifecycle, Standing, Timestamp};
use mrgc_store::StoreError;

use crate::support::{Engine, Folder, REGION, registration, report};

const WEEK_SECONDS: u64 = 7 * 24 * 60 * 60;

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn number(n: u64) -> AttributeValue {
    AttributeValue::N(n.to_string())
}

#[tokio::test]
async fn who_leaves_is_kept_as_a_tombstone_that_expires() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), []);
    for name in ["gpu-instances", "routing-state"] {
        let item = engine.items(name).await.remove(0);
        assert_eq!(item["lifecycle"], AttributeValue::S("terminated".to_owned()), "{name}");
        assert_eq!(item["generation"], number(1), "{name}");
        let end: u64 = item["expires_at"].as_n().unwrap().parse().unwrap();
        assert!(now_seconds().abs_diff(end - WEEK_SECONDS) < 600, "{name}: {end}");
    }

    // It comes back above its tombstone, and nothing of that stays.
    let back = store.register(&registration("i-1")).await.unwrap();
    assert_eq!(back.generation, 2);
    let standing = Standing::new(back, None);
    let one = store.instance(&REGION.into(), &"i-1".into()).await.unwrap();
    assert_eq!(one.as_ref(), Some(&standing));
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), [standing]);
    store.report(&report("i-1", 2, 1)).await.unwrap();
    for name in ["gpu-instances", "routing-state"] {
        assert!(!engine.items(name).await[0].contains_key("expires_at"), "{name}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_report_that_was_under_way_comes_too_late() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for id in ["i-1", "i-2"] {
        store.register(&registration(id)).await.unwrap();
    }
    store.report(&report("i-1", 1, 1)).await.unwrap();
    // i-2 never reported: its first report is what is under way.
    for id in ["i-1", "i-2"] {
        store.deregister(&id.into(), &REGION.into(), 1).await.unwrap();
        let error = store.report(&report(id, 1, 2)).await.unwrap_err();
        let StoreError::IllegalTransition { from, to, allowed, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*from, *to), (Lifecycle::Terminated, Lifecycle::Available));
        assert!(allowed.is_empty());
        assert!(error.to_string().contains("register the instance again"), "{error}");
        assert_eq!(store.register(&registration(id)).await.unwrap().generation, 2);
        store.report(&report(id, 2, 1)).await.unwrap();
    }
    assert_eq!(store.instances(&REGION.into()).await.unwrap().len(), 2);
    engine.stop().await;
}

#[tokio::test]
async fn deregistering_what_was_never_there_is_no_error() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), []);
    assert_eq!(store.register(&registration("i-1")).await.unwrap().generation, 2);
    engine.stop().await;
}

/// The service may take days to remove an item whose time is over.
#[tokio::test]
async fn what_has_expired_is_not_read_though_it_is_still_there() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for id in ["i-1", "i-2"] {
        store.register(&registration(id)).await.unwrap();
        store.report(&report(id, 1, 1)).await.unwrap();
    }
    for (id, end) in [("i-1", now_seconds() - 10), ("i-2", now_seconds() + 3_600)] {
        engine.set(("gpu-instances", id), "expires_at", number(end)).await;
    }
    let listed = store.instances(&REGION.into()).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|standing| standing.registration.id.as_str()).collect();
    assert_eq!(ids, ["i-2"]);
    assert_eq!(store.instance(&REGION.into(), &"i-1".into()).await.unwrap(), None);
    engine.stop().await;
}

/// What instances say of the time is for people.
#[tokio::test]
async fn a_clock_that_is_an_hour_wrong_has_no_effect() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (now, hour) = (now_seconds() * 1_000, 3_600_000);
    for (id, at) in [("i-fast", now + hour), ("i-slow", now - hour)] {
        let mut slow = registration(id);
        slow.registered_at = Timestamp(at);
        store.register(&slow).await.unwrap();
        let mut first = report(id, 1, 1);
        first.at = Timestamp(at);
        store.report(&first).await.unwrap();
        // Its clock is set right, which turns it back or on.
        let mut second = report(id, 1, 2);
        second.at = Timestamp(now);
        store.report(&second).await.unwrap();
        let standing = store.instance(&REGION.into(), &id.into()).await.unwrap().unwrap();
        assert_eq!(standing.report, Some(second));
        assert_eq!(standing.lifecycle(), Lifecycle::Available);
    }
    assert_eq!(store.instances(&REGION.into()).await.unwrap().len(), 2);
    engine.stop().await;
}
