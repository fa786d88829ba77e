//! Regions, and the shard counts they record.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_store::StoreError;

use crate::support::{
    Engine, Folder, Lossy, REGION, region, registration, report, store_at, table,
};

#[tokio::test]
async fn regions_are_listed_by_id_as_they_were_put() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (mut east, mut nowhere) = (region(REGION), region("eu-west-1"));
    nowhere.location = None;
    store.put_region(&east).await.unwrap();
    store.put_region(&nowhere).await.unwrap();
    east.max_capacity = Some(500);
    store.put_region(&east).await.unwrap();
    assert_eq!(store.regions().await.unwrap(), [nowhere, east]);
    engine.stop().await;
}

#[tokio::test]
async fn a_region_that_cannot_be_is_refused() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut broken = region(REGION);
    broken.shards = 0;
    broken.cost_multiplier = -1.0;
    let error = store.put_region(&broken).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("shards 0") && text.contains("cost_multiplier -1"), "{text}");
    engine.stop().await;
}

#[tokio::test]
async fn shards_do_not_change_under_instances() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    let mut wide = region(REGION);
    wide.shards = 16;
    let error = store.put_region(&wide).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("deregister them first, or keep 4"), "{error}");

    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    store.put_region(&wide).await.unwrap();
    for n in 0..64 {
        let id = format!("i-{n}");
        store.register(&registration(&id)).await.unwrap();
        store.report(&report(&id, 1, 1)).await.unwrap();
    }
    // Another program, which has no shard count in its memory.
    let other = engine.store().await;
    let listed = other.instances(&REGION.into()).await.unwrap();
    assert_eq!(listed.iter().filter(|standing| standing.report.is_some()).count(), 64);

    let page = engine.client().query().table_name(table("gpu-instances"));
    let page = page
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(format!("{REGION}#15")))
        .send()
        .await
        .unwrap();
    assert!(page.count > 0, "nothing is in the last of the 16 partitions");
    engine.stop().await;
}

#[tokio::test]
async fn a_region_written_twice_by_the_sdk_is_written() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    store.put_region(&region(REGION)).await.unwrap();
    // The answer to the read is lost, then the one to the write.
    for _ in 0..2 {
        lossy.lose_next_answer();
        store.put_region(&region(REGION)).await.unwrap();
        assert!(lossy.has_lost_it());
    }
    assert_eq!(store.regions().await.unwrap(), [region(REGION)]);
    engine.stop().await;
}
