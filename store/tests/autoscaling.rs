//! Autoscaling state: capacities that a lease fences, and replacements that are asked for once.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{
    Capacity, RegionId, Replacement, ReplacementOutcome, ScalingDecision, Stamp, Timestamp,
};
use mrgc_store::StoreError;

use crate::support::{Engine, Folder, Lossy, REGION, store_at, table};

const AT: Timestamp = Timestamp(1_760_000_000_000);

fn home() -> RegionId {
    REGION.into()
}

fn capacity(written_by: &str, epoch: u64, sequence: u64, desired: u32) -> Capacity {
    Capacity {
        region: home(),
        pool: "model-a".into(),
        written_by: written_by.into(),
        stamp: Stamp { epoch, sequence },
        desired,
        in_service: Some(3),
        pending: Some(1),
        last_decision: Some(ScalingDecision {
            failover: false,
            at: AT,
            from: 3,
            to: desired,
            reason: "queue depth 14 above 10 for 5 min".to_owned(),
        }),
        at: AT,
    }
}

fn replacement(instance: &str, generation: u64, reason: &str) -> Replacement {
    Replacement {
        instance: instance.into(),
        region: home(),
        pool: "model-a".into(),
        generation,
        reason: reason.to_owned(),
        requested_by: "router-1".to_owned(),
        requested_at: AT,
        closed: None,
        expires_at: None,
    }
}

fn outcome() -> ReplacementOutcome {
    let outcome = "replaced by i-0fedcba0987654321".to_owned();
    ReplacementOutcome { at: AT, outcome, called_off: false }
}

#[tokio::test]
async fn a_capacity_is_overwritten_by_later_stamps_only() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.put_capacity(&capacity(REGION, 2, 0, 4)).await.unwrap();
    let mut lean = capacity(REGION, 2, 1, 5);
    (lean.in_service, lean.pending, lean.last_decision) = (None, None, None);
    store.put_capacity(&lean).await.unwrap();
    assert_eq!(store.capacities(&home()).await.unwrap()["model-a"], lean);
    // The same again is what is stored already; anything else of an earlier or this stamp lost.
    store.put_capacity(&lean).await.unwrap();
    for late in [capacity(REGION, 1, 9, 6), capacity(REGION, 2, 0, 4), capacity(REGION, 2, 1, 6)] {
        let error = store.put_capacity(&late).await.unwrap_err();
        let StoreError::Superseded { offered, stored, .. } = &error else { panic!("{error}") };
        assert_eq!((*offered, *stored), (late.stamp, lean.stamp));
        assert!(!error.is_retryable());
    }
    assert_eq!(store.capacities(&home()).await.unwrap()["model-a"].desired, 5);
    engine.stop().await;
}

#[tokio::test]
async fn regions_write_items_of_their_own_and_the_highest_stamp_counts() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.put_capacity(&capacity("us-west-2", 5, 0, 8)).await.unwrap();
    // It is refused by no item of another region, and counts for nobody.
    store.put_capacity(&capacity(REGION, 4, 7, 2)).await.unwrap();
    assert_eq!(store.capacities(&home()).await.unwrap()["model-a"].desired, 8);
    store.put_capacity(&capacity(REGION, 6, 0, 2)).await.unwrap();
    assert_eq!(store.capacities(&home()).await.unwrap()["model-a"].desired, 2);
    assert!(store.capacities(&"us-west-2".into()).await.unwrap().is_empty());
    engine.stop().await;
}

#[tokio::test]
async fn a_newer_versions_attributes_survive_a_write_of_this_one() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.put_capacity(&capacity(REGION, 1, 0, 4)).await.unwrap();
    let key = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let (pk, sk) = (key("pk", "CAPACITY#us-east-1"), key("sk", "us-east-1#model-a"));
    let client = engine.client();
    let update = client.update_item().table_name(table("autoscaling-state"));
    update
        .set_key(Some([pk.clone(), sk.clone()].into()))
        .update_expression("SET #new = :new")
        .expression_attribute_names("#new", "warm_pool")
        .expression_attribute_values(":new", AttributeValue::N("2".to_owned()))
        .send()
        .await
        .unwrap();
    store.put_capacity(&capacity(REGION, 1, 1, 5)).await.unwrap();
    let get = client.get_item().table_name(table("autoscaling-state"));
    let item = get.set_key(Some([pk, sk].into())).send().await.unwrap().item.unwrap();
    assert_eq!(item["warm_pool"], AttributeValue::N("2".to_owned()));
    assert_eq!(item["desired"], AttributeValue::N("5".to_owned()));
    engine.stop().await;
}

#[tokio::test]
async fn a_replacement_is_asked_for_once_and_stays_closed() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let first = replacement("i-1", 3, "GPU 3: XID 79");
    assert_eq!(store.request_replacement(&first).await.unwrap(), first);
    let again = replacement("i-1", 3, "no heartbeat");
    assert_eq!(store.request_replacement(&again).await.unwrap(), first);
    store.request_replacement(&replacement("i-0", 1, "cleanup failed")).await.unwrap();
    let open = store.open_replacements(&home()).await.unwrap();
    assert_eq!(open, [replacement("i-0", 1, "cleanup failed"), first.clone()]);

    let id = "i-1".into();
    let closed = store.close_replacement(&home(), &id, 3, &outcome()).await.unwrap();
    assert_eq!(closed.closed, Some(outcome()));
    assert!(closed.expires_at.is_some());
    let other = ReplacementOutcome { outcome: "given up".to_owned(), ..outcome() };
    assert_eq!(store.close_replacement(&home(), &id, 3, &other).await.unwrap(), closed);
    assert_eq!(store.request_replacement(&again).await.unwrap(), closed);
    assert_eq!(store.open_replacements(&home()).await.unwrap().len(), 1);

    // Once its time is over it is as if it had never been, though the service has not removed it yet.
    let client = engine.client();
    let update = client.update_item().table_name(table("autoscaling-state"));
    update
        .key("pk", AttributeValue::S("REPLACEMENT#us-east-1".to_owned()))
        .key("sk", AttributeValue::S("i-1".to_owned()))
        .update_expression("SET expires_at = :past")
        .expression_attribute_values(":past", AttributeValue::N("1000000000".to_owned()))
        .send()
        .await
        .unwrap();
    assert_eq!(store.replacement(&home(), &id).await.unwrap(), None);
    assert_eq!(store.request_replacement(&again).await.unwrap(), again);

    // Repaired, registered again, and broken again.
    let next = replacement("i-1", 4, "GPU 3: XID 79");
    assert_eq!(store.request_replacement(&next).await.unwrap(), next);
    assert_eq!(store.replacement(&home(), &id).await.unwrap(), Some(next));
    let error = store.request_replacement(&first).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    let error = store.close_replacement(&home(), &id, 3, &outcome()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    engine.stop().await;
}

/// It failed, served again and failed again, all in one generation.
#[tokio::test]
async fn a_replacement_that_was_called_off_may_be_asked_for_again() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (first, id) = (replacement("i-1", 3, "answered 503"), "i-1".into());
    assert_eq!(store.call_off_replacement(&home(), &id, "nothing").await.unwrap(), None);
    store.request_replacement(&first).await.unwrap();
    let off = store.call_off_replacement(&home(), &id, "it serves").await.unwrap().unwrap();
    assert!(off.closed.is_some_and(|closed| closed.called_off && closed.outcome == "it serves"));
    assert!(store.open_replacements(&home()).await.unwrap().is_empty());
    assert_eq!(store.call_off_replacement(&home(), &id, "again").await.unwrap(), None);
    // Who still speaks of an earlier generation opens nothing.
    let error = store.request_replacement(&replacement("i-1", 2, "late")).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");

    let again = replacement("i-1", 3, "answered 500");
    assert_eq!(store.request_replacement(&again).await.unwrap(), again);
    assert_eq!(store.open_replacements(&home()).await.unwrap(), std::slice::from_ref(&again));
    // It was replaced, and came back all the same.
    let done = store.close_replacement(&home(), &id, 3, &outcome()).await.unwrap();
    assert_eq!(store.request_replacement(&again).await.unwrap(), done);
    store.call_off_replacement(&home(), &id, "it serves").await.unwrap().unwrap();
    assert_eq!(store.request_replacement(&again).await.unwrap(), again);
    engine.stop().await;
}

#[tokio::test]
async fn writes_whose_answers_are_lost_are_recognised() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    let request = replacement("i-1", 1, "GPU 3: XID 79");
    lossy.lose_next_answer();
    store.put_capacity(&capacity(REGION, 1, 0, 4)).await.unwrap();
    assert!(lossy.has_lost_it());
    lossy.lose_next_answer();
    assert_eq!(store.request_replacement(&request).await.unwrap(), request);
    assert!(lossy.has_lost_it());
    assert_eq!(store.capacities(&home()).await.unwrap()["model-a"].desired, 4);
    engine.stop().await;
}

#[tokio::test]
async fn texts_that_would_burst_the_budget_are_refused() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let long = replacement("i-1", 1, &"x".repeat(1_024));
    let error = store.request_replacement(&long).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert_eq!(store.replacement(&home(), &"i-1".into()).await.unwrap(), None);
    engine.stop().await;
}
