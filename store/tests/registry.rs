//! The registry: an instance's life in calls.

use std::time::{Duration, Instant};

use mrgc_fleet::model::{
    Desired, DesiredState, Health, InstanceId, Lifecycle, PoolId, Registration, Stamp, Standing,
    Timestamp,
};
use mrgc_store::{Registry, StoreError};

use crate::support::{Engine, Folder, REGION};

fn new(id: &str, pool: &str) -> Registration {
    Registration {
        zone: Some("us-east-1a".to_owned()),
        subnet_id: Some("subnet-12345".to_owned()),
        subnet_cidr: Some("10.66.10.0/23".to_owned()),
        ..Registration::new(id, REGION, pool, "10.66.10.50:8000")
    }
}

fn ids(standings: &[Standing]) -> Vec<&str> {
    standings.iter().map(|standing| standing.registration.id.as_str()).collect()
}

#[tokio::test]
async fn an_instance_lives_through_all_states() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let registry = Registry::new(engine.store().await, REGION);
    let id = InstanceId::from("i-1");
    let registered = registry.register_new_instance(new("i-1", "model-a")).await.unwrap();
    assert_eq!(registered.subnet_cidr.as_deref(), Some("10.66.10.0/23"));
    let standing = async || registry.get(&id).await.unwrap().unwrap();
    assert_eq!(*standing().await.registration, registered);
    assert_eq!(standing().await.lifecycle(), Lifecycle::Registering);

    registry.mark_available(&id).await.unwrap();
    let score = registry.update_routing_metrics(&id, 2, 150.0, Health::Healthy).await.unwrap();
    assert_eq!(score, 85.5);
    registry.heartbeat(&id, 4).await.unwrap();
    let report = standing().await.report.unwrap();
    assert_eq!((report.lifecycle, report.health), (Lifecycle::Available, Health::Healthy));
    assert_eq!((report.queue_depth, report.avg_latency_ms), (Some(4), Some(150.0)));
    assert_eq!(report.routing_score, Some(75.5), "the score follows the queue");

    registry.mark_quarantined(&id, "ECC errors").await.unwrap();
    assert_eq!(standing().await.report.unwrap().reason.as_deref(), Some("ECC errors"));
    // An illegal step is refused, and the next legal one is not hindered.
    let error = registry.mark_draining(&id).await.unwrap_err();
    assert!(matches!(error, StoreError::IllegalTransition { .. }), "{error}");
    registry.mark_available(&id).await.unwrap();
    assert_eq!(standing().await.report.unwrap().reason, None);
    registry.mark_draining(&id).await.unwrap();
    registry.mark_cleaning(&id).await.unwrap();
    assert_eq!(standing().await.lifecycle(), Lifecycle::Cleaning);
    registry.mark_terminated(&id).await.unwrap();
    assert_eq!(registry.get(&id).await.unwrap(), None);

    let error = registry.heartbeat(&id, 0).await.unwrap_err();
    assert!(error.to_string().contains("has not registered the instance"), "{error}");
    let again = registry.register_new_instance(new("i-1", "model-a")).await.unwrap();
    assert_eq!(again.generation, 2);
    engine.stop().await;
}

#[tokio::test]
async fn the_best_come_first_and_only_those_that_serve() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let registry = Registry::new(engine.store().await, REGION);
    for (id, pool, queue, latency, health) in [
        ("i-slow", "model-a", 2, 900.0, Health::Healthy),
        ("i-best", "model-a", 0, 50.0, Health::Healthy),
        ("i-long", "model-b", 9, 50.0, Health::Healthy),
        ("i-sick", "model-a", 0, 50.0, Health::Unhealthy),
        ("i-gone", "model-a", 0, 50.0, Health::Healthy),
    ] {
        let registered = registry.register_new_instance(new(id, pool)).await.unwrap();
        registry.mark_available(&registered.id).await.unwrap();
        let id = &registered.id;
        registry.update_routing_metrics(id, queue, latency, health).await.unwrap();
    }
    let unmeasured = registry.register_new_instance(new("i-new", "model-a")).await.unwrap();
    registry.mark_available(&unmeasured.id).await.unwrap();
    registry.mark_draining(&"i-gone".into()).await.unwrap();

    let best = registry.best_for_routing(2).await.unwrap();
    assert_eq!(ids(&best), ["i-best", "i-slow"]);
    assert_eq!(ids(&registry.best_for_routing(9).await.unwrap()), ["i-best", "i-slow", "i-long"]);
    let pool = PoolId::from("model-a");
    let available = registry.available(Some(&pool)).await.unwrap();
    assert_eq!(ids(&available), ["i-best", "i-new", "i-sick", "i-slow"]);
    assert_eq!(registry.available(None).await.unwrap().len(), 5);
    assert_eq!(registry.by_pool(&pool).await.unwrap().len(), 5);
    engine.stop().await;
}

#[tokio::test]
async fn another_process_that_registers_the_id_takes_it_over() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let (first, second) =
        (Registry::new(engine.store().await, REGION), Registry::new(engine.store().await, REGION));
    let id = InstanceId::from("i-1");
    first.register_new_instance(new("i-1", "model-a")).await.unwrap();
    let clone = Registration { address: "10.66.10.99:8000".to_owned(), ..new("i-1", "model-a") };
    second.register_new_instance(clone).await.unwrap();

    let error = first.heartbeat(&id, 0).await.unwrap_err();
    assert!(error.to_string().contains("registered this id from 10.66.10.99:8000"), "{error}");
    let error = first.mark_terminated(&id).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    second.heartbeat(&id, 0).await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn calls_at_once_about_one_instance_do_not_fence_each_other() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let registry = std::sync::Arc::new(Registry::new(engine.store().await, REGION));
    let id = InstanceId::from("i-1");
    registry.register_new_instance(new("i-1", "model-a")).await.unwrap();
    let mut beating = tokio::task::JoinSet::new();
    for queue in 0..20 {
        let (registry, id) = (registry.clone(), id.clone());
        beating.spawn(async move { registry.heartbeat(&id, queue).await.unwrap() });
    }
    beating.join_all().await;
    let report = registry.get(&id).await.unwrap().unwrap().report.unwrap();
    assert_eq!(report.sequence, 21);
    engine.stop().await;
}

#[tokio::test]
async fn who_does_not_report_is_stale_by_the_readers_clock() {
    const AFTER: Duration = Duration::from_millis(300);
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (agents, reader) = (Registry::new(store.clone(), REGION), Registry::new(store, REGION));
    for id in ["i-1", "i-2"] {
        agents.register_new_instance(new(id, "model-a")).await.unwrap();
    }
    let began = Instant::now();
    assert!(reader.stale(AFTER).await.unwrap().is_empty(), "nobody knows yet");
    let deadline = began + Duration::from_secs(30);
    loop {
        agents.heartbeat(&"i-1".into(), 0).await.unwrap();
        let stale = reader.stale(AFTER).await.unwrap();
        // i-1 has a new report at every look, however long the machine takes between them.
        match ids(&stale)[..] {
            [] => assert!(Instant::now() < deadline, "i-2 never became stale"),
            ["i-2"] => break,
            ref others => panic!("{others:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(began.elapsed() >= AFTER);
    agents.heartbeat(&"i-2".into(), 0).await.unwrap();
    assert!(reader.stale(AFTER).await.unwrap().iter().all(|s| s.registration.id.as_str() != "i-2"));
    engine.stop().await;
}

#[tokio::test]
async fn an_operator_removes_what_another_process_registered() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (agent, operator) =
        (Registry::new(store.clone(), REGION), Registry::new(store.clone(), REGION));
    let id = InstanceId::from("i-1");
    agent.register_new_instance(new("i-1", "model-a")).await.unwrap();
    agent.mark_available(&id).await.unwrap();
    let error = operator.mark_draining(&id).await.unwrap_err();
    assert!(error.to_string().contains("use `desire`"), "{error}");
    let wish = Desired {
        instance: id.clone(),
        region: REGION.into(),
        state: DesiredState::Draining,
        reason: None,
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: REGION.into(),
        stamp: Stamp::default(),
    };
    store.desire(&wish).await.unwrap();
    assert!(operator.available(None).await.unwrap().is_empty());

    operator.delete(&id).await.unwrap();
    assert_eq!(operator.get(&id).await.unwrap(), None);
    let error = agent.heartbeat(&id, 0).await.unwrap_err();
    let told = matches!(error, StoreError::IllegalTransition { from: Lifecycle::Terminated, .. });
    assert!(told, "{error}");
    assert_eq!(store.desired(&REGION.into(), &id).await.unwrap(), None);
    operator.delete(&id).await.unwrap();
    operator.delete(&"i-never".into()).await.unwrap();
    engine.stop().await;
}
