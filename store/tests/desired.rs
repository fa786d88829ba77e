//! What operators want of instances, beside what the instances say.

use mrgc_fleet::model::{Desired, DesiredState, Lifecycle, Stamp, Timestamp};
use mrgc_store::StoreError;
use tokio::task::JoinSet;

use crate::support::{
    Engine, Folder, Lossy, REGION, region, registration, report, store_at, without,
};

fn wish(state: DesiredState, writer_region: &str) -> Desired {
    Desired {
        instance: "i-1".into(),
        region: REGION.into(),
        state,
        reason: Some("ECC errors".to_owned()),
        operator: Some("ada".to_owned()),
        automatic: false,
        at: Timestamp(1_760_000_000_000),
        writer_region: writer_region.into(),
        stamp: Stamp::default(),
    }
}

#[tokio::test]
async fn an_agent_that_registers_again_cannot_erase_a_quarantine() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let lifecycle = async || {
        let listed = store.instances(&REGION.into()).await.unwrap();
        let one = store.instance(&REGION.into(), &"i-1".into()).await.unwrap();
        assert_eq!(listed.first(), one.as_ref());
        one.unwrap().lifecycle()
    };
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    assert_eq!(lifecycle().await, Lifecycle::Available);
    let written = store.desire(&wish(DesiredState::Quarantined, REGION)).await.unwrap();
    assert_eq!(lifecycle().await, Lifecycle::Quarantined);

    store.report(&report("i-1", 1, 2)).await.unwrap();
    assert_eq!(lifecycle().await, Lifecycle::Quarantined);
    store.deregister(&"i-1".into(), &REGION.into(), 1).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    assert_eq!(lifecycle().await, Lifecycle::Quarantined);
    store.report(&report("i-1", 2, 1)).await.unwrap();
    assert_eq!(lifecycle().await, Lifecycle::Quarantined);
    let desired = store.desired(&REGION.into(), &"i-1".into()).await.unwrap();
    assert_eq!(desired, Some(written.clone()));

    // Only who put it there, or another operator, lifts it.
    let lifted = store.desire(&wish(DesiredState::Serving, REGION)).await.unwrap();
    assert!(lifted.stamp > written.stamp);
    assert_eq!(lifecycle().await, Lifecycle::Available);
    engine.stop().await;
}

#[tokio::test]
async fn each_region_writes_an_opinion_of_its_own() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let desired = async || store.desired(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    store.desire(&wish(DesiredState::Quarantined, "us-east-1")).await.unwrap();
    store.desire(&wish(DesiredState::Draining, "eu-west-1")).await.unwrap();
    assert_eq!(desired().await.state, DesiredState::Draining, "the later of the two");
    let last = store.desire(&wish(DesiredState::Serving, "us-east-1")).await.unwrap();
    assert_eq!(desired().await, last);

    let items = engine.items("gpu-instances").await;
    assert_eq!(items.len(), 2);
    for item in &items {
        assert!(item["pk"].as_s().unwrap().starts_with("desired#us-east-1#"), "{item:?}");
        // Were it forgotten, the other region's older opinion would count again.
        assert!(!item.contains_key("expires_at"), "{item:?}");
    }
    // Another instance whose id begins alike is another's.
    assert_eq!(store.desired(&REGION.into(), &"i".into()).await.unwrap(), None);
    engine.stop().await;
}

#[tokio::test]
async fn an_uncontradicted_wish_for_service_expires_and_the_next_goes_above_it() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let serving = store.desire(&wish(DesiredState::Serving, REGION)).await.unwrap();
    let key = ("gpu-instances", "i-1#us-east-1");
    assert!(engine.item(key).await.contains_key("expires_at"));
    let over = aws_sdk_dynamodb::types::AttributeValue::N("1".to_owned());
    engine.set(key, "expires_at", over).await;
    assert_eq!(store.desired(&REGION.into(), &"i-1".into()).await.unwrap(), None);

    let draining = store.desire(&wish(DesiredState::Draining, REGION)).await.unwrap();
    assert!(draining.stamp > serving.stamp);
    assert!(!engine.item(key).await.contains_key("expires_at"));
    let desired = store.desired(&REGION.into(), &"i-1".into()).await.unwrap();
    assert_eq!(desired, Some(draining));
    engine.stop().await;
}

#[tokio::test]
async fn wishes_at_once_each_get_a_stamp_and_the_last_counts() {
    if without("atomic-writes") {
        return;
    }
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut wishing = JoinSet::new();
    for n in 0..4 {
        let store = store.clone();
        wishing.spawn(async move {
            let operator = Some(format!("operator {n}"));
            let wish = Desired { operator, ..wish(DesiredState::Draining, REGION) };
            store.desire(&wish).await.unwrap()
        });
    }
    let mut written = wishing.join_all().await;
    written.sort_by_key(|desired| desired.stamp);
    assert!(written.windows(2).all(|pair| pair[0].stamp < pair[1].stamp), "{written:?}");
    let desired = store.desired(&REGION.into(), &"i-1".into()).await.unwrap();
    assert_eq!(desired.as_ref(), written.last());
    engine.stop().await;
}

#[tokio::test]
async fn a_router_lifts_its_own_drain_and_no_person_s() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let by_a_router = |state| Desired { automatic: true, ..wish(state, REGION) };
    let drained = store.desire(&by_a_router(DesiredState::Draining)).await.unwrap();
    assert!(drained.automatic);
    let lifted = store.desire(&by_a_router(DesiredState::Serving)).await.unwrap();
    assert_eq!((lifted.state, lifted.automatic), (DesiredState::Serving, true));

    let quarantined = store.desire(&wish(DesiredState::Quarantined, "eu-west-1")).await.unwrap();
    for state in [DesiredState::Draining, DesiredState::Serving] {
        assert_eq!(store.desire(&by_a_router(state)).await.unwrap(), quarantined);
    }
    let desired = async || store.desired(&REGION.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(desired().await, quarantined);

    // What a person says of the router's region's own item is no longer the router's.
    let released = store.desire(&wish(DesiredState::Serving, REGION)).await.unwrap();
    assert!(!desired().await.automatic);
    assert!(released.stamp > quarantined.stamp);
    let drained = store.desire(&by_a_router(DesiredState::Draining)).await.unwrap();
    assert_eq!(desired().await, drained);
    engine.stop().await;
}

#[tokio::test]
async fn a_wish_that_the_sdk_repeats_is_one() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    // The shard count is read once; then an answer tells what is there, and another that it is written.
    store.desire(&wish(DesiredState::Draining, REGION)).await.unwrap();
    for nth in 1..=2 {
        lossy.lose_answer(nth);
        let written = store.desire(&wish(DesiredState::Draining, REGION)).await.unwrap();
        assert!(lossy.has_lost_it());
        assert_eq!(written.stamp, Stamp { epoch: 0, sequence: u64::from(nth) });
    }
    assert_eq!(store.counts().repeated_writes, 1);
    engine.stop().await;
}

#[tokio::test]
async fn shards_do_not_change_under_a_quarantine() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.desire(&wish(DesiredState::Quarantined, REGION)).await.unwrap();
    let mut wide = region(REGION);
    wide.shards = 16;
    let error = store.put_region(&wide).await.unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("1 held in draining or quarantine"), "{error}");
    store.forget_desired(&REGION.into(), &"i-1".into()).await.unwrap();
    assert_eq!(store.desired(&REGION.into(), &"i-1".into()).await.unwrap(), None);
    store.put_region(&wide).await.unwrap();
    engine.stop().await;
}

/// By a router, which finds the instance again where it breaks off.
#[tokio::test]
async fn what_was_wanted_of_a_dead_instance_is_forgotten_before_it_unless_a_person_holds_it() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let (store, region, id) = (engine.store().await, REGION.into(), "i-1".into());
    let desired = async || store.desired(&region, &id).await.unwrap();
    let registered = async || store.instance(&region, &id).await.unwrap().is_some();
    let by_a_router = Desired { automatic: true, ..wish(DesiredState::Draining, REGION) };
    let gone = store.register(&registration("i-1")).await.unwrap();
    store.desire(&by_a_router).await.unwrap();
    // The second half is refused.
    let anew = store.register(&registration("i-1")).await.unwrap();
    let refused = store.forget_unheld(&gone).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!((desired().await, registered().await), (None, true));

    let held = store.desire(&wish(DesiredState::Quarantined, "eu-west-1")).await.unwrap();
    store.forget_unheld(&anew).await.unwrap();
    assert_eq!((desired().await, registered().await), (Some(held), true));
    // Released, and drained by a router: nobody holds it.
    for serves in [REGION, "eu-west-1"] {
        store.desire(&wish(DesiredState::Serving, serves)).await.unwrap();
    }
    store.desire(&by_a_router).await.unwrap();
    for _ in 0..2 {
        store.forget_unheld(&anew).await.unwrap();
        assert_eq!((desired().await, registered().await), (None, false));
    }
    engine.stop().await;
}
