//! Registrations and reports: round trips, fencing, listing.

use std::collections::{BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{Health, Lifecycle, Registration, Standing};
use mrgc_store::{Fence, REPORT_BUDGET_BYTES, StoreError};

use crate::support::{
    Engine, Folder, Lossy, REGION, registration, report, store_at, table, without,
};

#[tokio::test]
async fn what_is_registered_and_reported_is_listed() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.check().await.unwrap();
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), []);
    assert_eq!(store.instance(&REGION.into(), &"i-1".into()).await.unwrap(), None);

    let first = store.register(&registration("i-1")).await.unwrap();
    assert_eq!(first, Registration { generation: 1, ..registration("i-1") });
    let second = store.register(&registration("i-2")).await.unwrap();
    let reported = report("i-2", 1, 1);
    store.report(&reported).await.unwrap();

    let first = Standing::new(first, None);
    let second = Standing::new(second, Some(reported));
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), [first, second.clone()]);
    assert_eq!(store.instance(&REGION.into(), &"i-2".into()).await.unwrap(), Some(second));
    assert_eq!(store.instances(&"eu-west-1".into()).await.unwrap(), []);

    store.deregister(&"i-2".into(), &REGION.into(), 1).await.unwrap();
    store.deregister(&"i-2".into(), &REGION.into(), 1).await.unwrap();
    assert_eq!(store.instance(&REGION.into(), &"i-2".into()).await.unwrap(), None);
    assert_eq!(store.instances(&REGION.into()).await.unwrap().len(), 1);
    engine.stop().await;
}

#[tokio::test]
async fn a_report_may_lose_every_optional_value() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    let mut bare = report("i-1", 1, 2);
    bare.queue_depth = None;
    bare.running = None;
    bare.avg_latency_ms = None;
    bare.time_to_first_token_ms = None;
    bare.models.clear();
    bare.gpu_utilization = None;
    bare.gpu_memory_free_bytes = None;
    bare.routing_score = None;
    store.report(&bare).await.unwrap();
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(standing.report, Some(bare));
    engine.stop().await;
}

#[tokio::test]
async fn a_zombie_loses_against_the_next_generation() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let zombie = store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", zombie.generation, 40)).await.unwrap();

    let newcomer = store.register(&registration("i-1")).await.unwrap();
    assert_eq!((zombie.generation, newcomer.generation), (1, 2));
    // Nobody of the new generation has reported: the zombie's words are stored, and count for nothing.
    store.report(&report("i-1", 1, 41)).await.unwrap();
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!((standing.registration.generation, standing.report), (2, None));
    let listed = store.instances(&REGION.into()).await.unwrap();
    assert_eq!(listed[0].report, None);

    store.report(&report("i-1", 2, 1)).await.unwrap();
    let error = store.report(&report("i-1", 1, 42)).await.unwrap_err();
    let StoreError::Fenced { offered, stored, .. } = &error else { panic!("{error}") };
    assert_eq!(*offered, Fence { generation: 1, sequence: Some(42) });
    assert_eq!(*stored, Fence { generation: 2, sequence: Some(1) });
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("generation 2, sequence 1"), "{error}");

    let error = store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(standing.report, Some(report("i-1", 2, 1)));
    engine.stop().await;
}

#[tokio::test]
async fn a_zombie_that_did_not_meet_a_report_cannot_deregister_either() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    let error = store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    assert!(store.instance(&REGION.into(), &"i-1".into()).await.unwrap().is_some());
    engine.stop().await;
}

#[tokio::test]
async fn a_sequence_is_written_once() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 5)).await.unwrap();
    for sequence in [4, 5] {
        let mut other = report("i-1", 1, sequence);
        other.queue_depth = Some(99);
        let error = store.report(&other).await.unwrap_err();
        assert!(matches!(error, StoreError::Fenced { .. }), "{sequence}: {error}");
    }
    assert_eq!(store.counts().repeated_writes, 0);
    store.report(&report("i-1", 1, 6)).await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn a_write_that_the_sdk_repeats_is_no_loss() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    store.register(&registration("i-1")).await.unwrap();

    lossy.lose_next_answer();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    assert!(lossy.has_lost_it());
    assert_eq!(store.counts().repeated_writes, 1);

    lossy.lose_next_answer();
    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    assert!(lossy.has_lost_it());
    assert_eq!(store.instances(&REGION.into()).await.unwrap(), []);
    engine.stop().await;
}

#[tokio::test]
async fn heartbeats_share_a_connection_and_are_one_call_each() {
    if without("keep-alive") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    store.register(&registration("i-1")).await.unwrap();
    let before = lossy.connections();
    lossy.lose_answer(1_000);
    for sequence in 1..=20 {
        store.report(&report("i-1", 1, sequence)).await.unwrap();
    }
    assert_eq!(lossy.connections(), before);
    assert_eq!(lossy.answers_left(), 1_000 - 20);
    engine.stop().await;
}

#[tokio::test]
async fn registrations_at_once_get_generations_of_their_own() {
    if without("atomic-writes") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut registering = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let store = store.clone();
        registering.spawn(async move { store.register(&registration("i-1")).await.unwrap() });
    }
    let generations: BTreeSet<u64> =
        registering.join_all().await.iter().map(|registered| registered.generation).collect();
    assert_eq!(generations, (1..=6).collect());
    engine.stop().await;
}

#[tokio::test]
async fn a_large_region_is_listed_whole() {
    if without("atomic-writes") {
        return;
    }
    const INSTANCES: usize = 400;
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut registering = tokio::task::JoinSet::new();
    for n in 0..INSTANCES {
        let store = store.clone();
        registering.spawn(async move {
            let mut registration = registration(&format!("i-{n:017x}"));
            // So large that a shard's answer takes more than one page of 1 MB.
            registration.metadata.insert("user_data".to_owned(), "x".repeat(14_000));
            store.register(&registration).await.unwrap();
            store.report(&report(registration.id.as_str(), 1, 1)).await.unwrap();
        });
    }
    registering.join_all().await;

    for shard in 0..4 {
        let page = engine.client().query().table_name(table("gpu-instances"));
        let page = page
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(format!("{REGION}#{shard}")))
            .send()
            .await
            .unwrap();
        assert!(page.last_evaluated_key.is_some(), "shard {shard} fits one page of {}", page.count);
    }
    let listed = store.instances(&REGION.into()).await.unwrap();
    let ids: Vec<&str> = listed.iter().map(|standing| standing.registration.id.as_str()).collect();
    assert_eq!(ids.len(), INSTANCES);
    assert!(ids.is_sorted());
    assert!(listed.iter().all(|standing| standing.report.is_some()));
    assert_eq!(store.counts().corrupt_items, 0);
    engine.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_skipped_and_counted() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    for (table, id) in [(table("gpu-instances"), "i-2"), (table("routing-state"), "i-3")] {
        let item = HashMap::from([
            ("pk".to_owned(), text("us-east-1#0")),
            ("sk".to_owned(), text(id)),
            ("id".to_owned(), text(id)),
            ("generation".to_owned(), text("one")),
        ]);
        engine.client().put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
    let listed = store.instances(&REGION.into()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].report, Some(report("i-1", 1, 1)));
    assert_eq!(store.counts().corrupt_items, 2);
    let named = store.corrupt_items();
    assert_eq!(named.len(), 2);
    assert_eq!(
        (&named[0].table, &named[1].table),
        (&table("gpu-instances"), &table("routing-state"))
    );
    assert_eq!(named[0].key, "us-east-1#0 / i-2");
    assert!(named[0].reason.contains("expected u64"), "{}", named[0].reason);

    // The same items again are no more of them.
    assert_eq!(store.instances(&REGION.into()).await.unwrap().len(), 1);
    assert_eq!(store.counts().corrupt_items, 2);
    engine.stop().await;
}

#[tokio::test]
async fn a_long_reason_gives_way_and_many_models_do_not() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.register(&registration("i-1")).await.unwrap();
    let mut long = report("i-1", 1, 1);
    long.health = Health::Unhealthy;
    long.lifecycle = Lifecycle::Quarantined;
    long.reason = Some("é".repeat(2 * REPORT_BUDGET_BYTES));
    store.report(&long).await.unwrap();
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    let kept = standing.report.unwrap().reason.unwrap();
    assert!(kept.len() > 300 && kept.len() < REPORT_BUDGET_BYTES, "{} bytes", kept.len());
    let counts = store.counts();
    assert_eq!((counts.shortened_reports, counts.oversized_reports), (1, 0));

    let mut many = report("i-1", 1, 2);
    many.models = (0..100).map(|n| format!("adapter-{n}")).collect();
    store.report(&many).await.unwrap();
    let standing = store.instance(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(standing.report, Some(many));
    assert_eq!(store.counts().oversized_reports, 1);
    engine.stop().await;
}
