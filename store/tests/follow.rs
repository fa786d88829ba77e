//! Following a region: it must come to the same as listing it, and read only what is new.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{
    Desired, DesiredState, InstanceId, Lifecycle, Report, Stamp, Standing, Timestamp,
};
use mrgc_store::{Changes, Follower, FollowerConfig, Store};

use crate::support::{Engine, Folder, REGION, registration, report, table};

const NEVER_AGAIN: FollowerConfig =
    FollowerConfig { registrations_every: Duration::from_secs(1_000_000) };
const EACH_TIME: FollowerConfig = FollowerConfig { registrations_every: Duration::ZERO };

fn follower(store: &Store, config: FollowerConfig) -> Follower {
    Follower::new(store.clone(), REGION.into(), config)
}

fn ids(ids: &[&str]) -> Vec<InstanceId> {
    ids.iter().map(|id| InstanceId::from(*id)).collect()
}

fn added(changes: &Changes) -> &[InstanceId] {
    assert!(changes.changed.is_empty() && changes.gone.is_empty(), "{changes:?}");
    &changes.added
}

async fn join(store: &Store, id: &str) -> u64 {
    let generation = store.register(&registration(id)).await.unwrap().generation;
    store.report(&report(id, generation, 1)).await.unwrap();
    generation
}

async fn assert_as_listed(follower: &Follower, store: &Store) {
    let listed = store.instances(&REGION.into()).await.unwrap();
    let followed: Vec<Standing> = follower.standings().iter().map(|s| (**s).clone()).collect();
    assert_eq!(followed, listed);
}

#[tokio::test]
async fn only_what_is_new_is_read() {
    const INSTANCES: usize = 150;
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut follower = follower(&store, NEVER_AGAIN);
    assert!(follower.refresh().await.unwrap().is_empty());
    let mut joining = tokio::task::JoinSet::new();
    for n in 0..INSTANCES {
        let store = store.clone();
        joining.spawn(async move { join(&store, &format!("i-{n:03}")).await });
    }
    joining.join_all().await;

    // More than one batch of keys, none of which was listed among the registrations.
    let changes = follower.refresh().await.unwrap();
    assert_eq!(added(&changes).len(), INSTANCES);
    assert_eq!((changes.read.reports, changes.read.registrations), (INSTANCES, INSTANCES));
    assert_as_listed(&follower, &store).await;

    let before: Vec<Arc<Standing>> = follower.standings().to_vec();
    let changes = follower.refresh().await.unwrap();
    assert!(changes.is_empty());
    assert_eq!(changes.read.report_heads, INSTANCES);
    assert_eq!((changes.read.reports, changes.read.registrations), (0, 0));
    assert_eq!(changes.read.registration_heads, None);

    store.report(&report("i-007", 1, 2)).await.unwrap();
    let changes = follower.refresh().await.unwrap();
    assert_eq!((&changes.changed, changes.read.reports), (&ids(&["i-007"]), 1));
    let same = follower.standings().iter().zip(&before).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(same.count(), INSTANCES - 1);
    assert_as_listed(&follower, &store).await;
    engine.stop().await;
}

#[tokio::test]
async fn joining_leaving_and_coming_back_are_followed() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let mut closely = follower(&store, EACH_TIME);
    let mut loosely = follower(&store, NEVER_AGAIN);
    for follower in [&mut closely, &mut loosely] {
        follower.refresh().await.unwrap();
    }
    // One that has not reported yet is in the list of registrations only.
    store.register(&registration("i-1")).await.unwrap();
    assert_eq!(added(&closely.refresh().await.unwrap()), ids(&["i-1"]));
    assert!(loosely.refresh().await.unwrap().is_empty());
    store.report(&report("i-1", 1, 1)).await.unwrap();
    assert_eq!(closely.refresh().await.unwrap().changed, ids(&["i-1"]));
    assert_eq!(added(&loosely.refresh().await.unwrap()), ids(&["i-1"]));

    // The same id under another generation, then gone.
    let mut moved = registration("i-1");
    moved.address = "10.0.0.9:8000".to_owned();
    store.register(&moved).await.unwrap();
    store.report(&report("i-1", 2, 1)).await.unwrap();
    for follower in [&mut closely, &mut loosely] {
        assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
        let standing = follower.get(&"i-1".into()).unwrap();
        assert_eq!(standing.registration.address, "10.0.0.9:8000");
        assert_as_listed(follower, &store).await;
    }
    store.deregister(&"i-1".into(), &REGION.into(), 2).await.unwrap();
    for follower in [&mut closely, &mut loosely] {
        let changes = follower.refresh().await.unwrap();
        assert_eq!(changes.gone, ids(&["i-1"]));
        assert!(follower.standings().is_empty());
        assert!(follower.refresh().await.unwrap().is_empty());
    }
    assert_eq!(join(&store, "i-1").await, 3);
    for follower in [&mut closely, &mut loosely] {
        assert_eq!(added(&follower.refresh().await.unwrap()), ids(&["i-1"]));
        assert_as_listed(follower, &store).await;
    }
    engine.stop().await;
}

#[tokio::test]
async fn what_is_wanted_is_seen_at_the_next_look() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    join(&store, "i-1").await;
    join(&store, "i-2").await;
    let mut follower = follower(&store, NEVER_AGAIN);
    follower.refresh().await.unwrap();
    let wish = |state| Desired {
        instance: "i-1".into(),
        region: REGION.into(),
        state,
        reason: None,
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: REGION.into(),
        stamp: Stamp::default(),
    };
    for (state, lifecycle) in [
        (DesiredState::Quarantined, Lifecycle::Quarantined),
        (DesiredState::Serving, Lifecycle::Available),
        (DesiredState::Draining, Lifecycle::Draining),
    ] {
        store.desire(&wish(state)).await.unwrap();
        assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
        assert_eq!(follower.get(&"i-1".into()).unwrap().lifecycle(), lifecycle);
    }
    // It stays through reports and registrations, and for one that was wanted so before it came.
    store.report(&report("i-1", 1, 2)).await.unwrap();
    follower.refresh().await.unwrap();
    assert_eq!(follower.get(&"i-1".into()).unwrap().lifecycle(), Lifecycle::Draining);
    assert_eq!(join(&store, "i-1").await, 2);
    follower.refresh().await.unwrap();
    assert_eq!(follower.get(&"i-1".into()).unwrap().lifecycle(), Lifecycle::Draining);
    assert_as_listed(&follower, &store).await;

    // A look that does not find it may be one at the past. One after the other is not, and until then it stays.
    store.forget_desired(&REGION.into(), &"i-1".into()).await.unwrap();
    for _ in 0..4 {
        assert!(follower.refresh().await.unwrap().is_empty());
    }
    assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
    assert_eq!(follower.get(&"i-1".into()).unwrap().lifecycle(), Lifecycle::Available);

    // Whoever wants something of it now begins with the lowest stamp, and is heard at once.
    store.desire(&wish(DesiredState::Quarantined)).await.unwrap();
    assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
    assert_as_listed(&follower, &store).await;
    engine.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_hides_nothing_else() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for id in ["i-1", "i-2"] {
        join(&store, id).await;
    }
    let mut follower = follower(&store, EACH_TIME);
    follower.refresh().await.unwrap();
    let text = |text: &str| AttributeValue::S(text.to_owned());
    // Of a known instance: a report with a head and nothing sensible in it, under a newer sequence.
    engine.set(("routing-state", "i-1"), "sequence", AttributeValue::N("9".to_owned())).await;
    engine.set(("routing-state", "i-1"), "health", text("splendid")).await;
    // Of strangers: one without a head, one with.
    for (name, id, generation) in [
        ("routing-state", "i-8", text("one")),
        ("gpu-instances", "i-9", AttributeValue::N("1".to_owned())),
    ] {
        let item = HashMap::from([
            ("pk".to_owned(), text("us-east-1#0")),
            ("sk".to_owned(), text(id)),
            ("generation".to_owned(), generation),
        ]);
        let put = engine.client().put_item().table_name(table(name));
        put.set_item(Some(item)).send().await.unwrap();
    }
    assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
    assert_eq!(follower.standings().len(), 2);
    assert_eq!(follower.get(&"i-1".into()).unwrap().report, None);
    let named = store.corrupt_items();
    let keys: Vec<_> = named.iter().map(|it| it.key.rsplit_once(' ').unwrap().1).collect();
    assert_eq!(keys, ["i-9", "i-8", "i-1"]);
    assert!(named[2].reason.contains("splendid"), "{named:?}");

    for _ in 0..3 {
        assert!(follower.refresh().await.unwrap().is_empty());
    }
    assert_eq!(store.counts().corrupt_items, 3);
    engine.set(("routing-state", "i-1"), "health", text("healthy")).await;
    let next = Report { models: Vec::new(), ..report("i-1", 1, 10) };
    store.report(&next).await.unwrap();
    assert_eq!(follower.refresh().await.unwrap().changed, ids(&["i-1"]));
    assert_eq!(follower.get(&"i-1".into()).unwrap().report, Some(next));
    engine.stop().await;
}

#[tokio::test]
async fn a_look_that_fails_changes_nothing() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    join(&store, "i-1").await;
    let mut follower = follower(&store, EACH_TIME);
    follower.refresh().await.unwrap();
    let before = follower.standings().to_vec();
    let client = engine.client();
    client.delete_table().table_name(table("routing-state")).send().await.unwrap();
    assert!(follower.refresh().await.is_err());
    assert_eq!(follower.standings(), before);
    engine.stop().await;
}
