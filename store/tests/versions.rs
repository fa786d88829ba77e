//! Programs of two versions at one store: the older reads what the newer wrote, and does not undo it.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{Desired, DesiredState, Stamp, Timestamp};

use crate::support::{Engine, Folder, REGION, region, registration, report};

#[tokio::test]
async fn what_a_newer_version_adds_is_ignored_and_kept() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.put_region(&region(REGION)).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    store.put_policy("p", b"one").await.unwrap();
    let added = [
        ("signature", AttributeValue::B(vec![1, 2].into())),
        ("tags", AttributeValue::Ss(vec!["a".to_owned()])),
        ("nested", AttributeValue::L(vec![AttributeValue::Bool(true)])),
    ];
    let items = [
        ("regions", REGION),
        ("gpu-instances", "i-1"),
        ("routing-state", "i-1"),
        ("policies", "p"),
    ];
    for item in items {
        for (name, value) in &added {
            engine.set(item, name, value.clone()).await;
        }
    }
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(standing.report, Some(report("i-1", 1, 1)));
    assert_eq!(store.regions().await.unwrap(), [region(REGION)]);

    // Every write over them, a whole life long.
    store.report(&report("i-1", 1, 2)).await.unwrap();
    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 2, 1)).await.unwrap();
    let mut other = region(REGION);
    other.provider = None;
    store.put_region(&other).await.unwrap();
    assert_eq!(store.put_policy("p", b"two").await.unwrap().generation, 2);
    for (table, id) in items {
        let item = engine.item((table, id)).await;
        for (name, value) in &added {
            assert_eq!(item.get(*name), Some(value), "{table}: {name}");
        }
    }
    assert_eq!(store.regions().await.unwrap(), [other]);
    assert_eq!(store.counts().corrupt_items, 0);
    engine.stop().await;
}

#[tokio::test]
async fn what_is_no_longer_said_does_not_stay() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    let mut bare = registration("i-1");
    bare.zone = None;
    bare.subnet_id = None;
    bare.slots = None;
    bare.frameworks.clear();
    bare.metadata.clear();
    let bare = store.register(&bare).await.unwrap();
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(*standing.registration, bare);
    engine.stop().await;
}

#[tokio::test]
async fn an_opinion_keeps_what_a_newer_version_added() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let wish = Desired {
        instance: "i-1".into(),
        region: REGION.into(),
        state: DesiredState::Draining,
        reason: Some("upgrade".to_owned()),
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: REGION.into(),
        stamp: Stamp::default(),
    };
    store.desire(&wish).await.unwrap();
    let key = ("gpu-instances", "i-1#us-east-1");
    engine.set(key, "approved_by", AttributeValue::S("two".to_owned())).await;
    let wish = Desired { state: DesiredState::Quarantined, reason: None, ..wish };
    store.desire(&wish).await.unwrap();
    let item = engine.item(key).await;
    assert!(item.contains_key("approved_by") && !item.contains_key("reason"), "{item:?}");
    engine.stop().await;
}
