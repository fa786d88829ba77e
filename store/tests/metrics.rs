//! Metrics: what several programs measured, added up from the store.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{CleanupTally, PoolId, RegionId, Sample, Timestamp};
use mrgc_store::{MetricsCollector, Store};

use crate::support::{Engine, Folder, Lossy, REGION, region, registration, store_at, table};

const MINUTE_MS: u64 = 60_000;
/// Tests may run over the end of a minute, or of a few on a busy machine.
const WINDOW_MINUTES: u32 = 30;

fn pool() -> PoolId {
    "model-a".into()
}

fn home() -> RegionId {
    REGION.into()
}

fn minutes_ago(minutes: u64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp(u64::try_from(now).unwrap() - minutes * MINUTE_MS)
}

fn collector(store: &Store, writer: &str) -> MetricsCollector {
    MetricsCollector::new(store.clone(), home(), writer)
}

#[tokio::test]
async fn what_programs_measured_adds_up_over_writers_and_minutes() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let (first, second) = (collector(&store, "router-1"), collector(&store, "router-2"));
    for n in 1..=100_u32 {
        let (collector, minute) = if n % 2 == 0 { (&first, 3) } else { (&second, 5) };
        let ms = f64::from(n) * 10.0;
        collector.record(minutes_ago(minute), &pool(), &Sample::InferenceLatency { ms });
    }
    for (collector, rate) in [(&first, 45.2), (&second, 4.8)] {
        collector.record_rps(&pool(), rate);
        collector.record_queue_depth(&pool(), 3);
    }
    first.record_queue_depth(&pool(), 9);
    first.record_model_load_time(&pool(), 32.5);
    first.record_enclave_operation(&pool(), "attest", 12.0);
    second.record_enclave_operation(&pool(), "attest", 14.0);
    second.record_enclave_operation(&pool(), "start", 900.0);
    first.record_cleanup(&pool(), true);
    second.record_cleanup(&pool(), false);
    first.flush_all().await.unwrap();
    second.flush_all().await.unwrap();

    let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
    let found = metrics.latency_percentiles().unwrap();
    for (found, exact) in [(found.p50_ms, 500.0), (found.p95_ms, 950.0), (found.p99_ms, 990.0)] {
        assert!((found - exact).abs() <= exact / 32.0, "{found} for {exact}");
    }
    assert_eq!(metrics.requests_per_second(), Some(50.0));
    let depth = metrics.queue_depth().unwrap();
    assert_eq!((depth.mean(), depth.max), (Some(5.0), 9.0));
    assert_eq!(metrics.model_load().mean_ms(), Some(32_500.0));
    let operations = metrics.enclave_operations();
    assert_eq!(operations["attest"].mean_ms(), Some(13.0));
    assert_eq!(operations["start"].max_ms(), Some(900.0));
    assert_eq!(metrics.cleanup(), Some(CleanupTally { passed: 1, failed: 1 }));

    // Between the last two minutes and now lies nothing of what was measured 3 and 5 minutes ago.
    let lately = store.latency_percentiles(&home(), &pool(), 2).await.unwrap();
    assert_eq!(lately, None);
    let region = store.region_metrics(&home(), WINDOW_MINUTES).await.unwrap();
    assert_eq!(region.into_iter().collect::<Vec<_>>(), [(pool(), metrics)]);
    engine.stop().await;
}

#[tokio::test]
async fn what_nobody_measured_is_none() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let collector = collector(&store, "router-1");
    collector.record_model_load_time(&pool(), 32.5);
    collector.record_rps(&pool(), f64::NAN);
    collector.flush_all().await.unwrap();
    let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
    assert_eq!((metrics.requests_per_second(), metrics.queue_depth()), (None, None));
    assert_eq!((metrics.latency_percentiles(), metrics.cleanup()), (None, None));
    assert_eq!(metrics.model_load().count(), 1);
    assert_eq!(collector.counts().rejected_samples, 1);

    let other = store.pool_metrics(&home(), &"model-b".into(), WINDOW_MINUTES).await.unwrap();
    assert_eq!(other.model_load().count(), 0);
    engine.stop().await;
}

#[tokio::test]
async fn a_flush_writes_minutes_that_are_over_and_each_only_once() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let collector = collector(&store, "router-1");
    let loads = async || {
        let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
        metrics.model_load().count()
    };
    let load = Sample::ModelLoad { seconds: 1.0 };
    collector.record(minutes_ago(2), &pool(), &load);
    // In an hour, so that its minute is not over, however slow this test is.
    collector.record(Timestamp(minutes_ago(0).0 + 60 * MINUTE_MS), &pool(), &load);
    collector.flush().await.unwrap();
    collector.flush().await.unwrap();
    assert_eq!((loads().await, collector.counts().waiting), (1, 1));

    // More of a minute that was stored adds to it.
    collector.record(minutes_ago(2), &pool(), &load);
    collector.flush_all().await.unwrap();
    assert_eq!((loads().await, collector.counts().waiting), (2, 0));
    let items = engine.client().scan().table_name(table("metrics")).send().await.unwrap();
    assert_eq!(items.count(), 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_counts_once() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    let collector = collector(&store, "router-1");
    collector.record_rps(&pool(), 45.2);
    collector.record_inference_latency(&pool(), 150.0);
    lossy.lose_next_answer();
    // Whether the client repeats it, or this does.
    if collector.flush_all().await.is_err() {
        collector.flush_all().await.unwrap();
    }
    assert!(lossy.has_lost_it());
    let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
    assert_eq!(metrics.inference_latency().count(), 1);
    assert_eq!(metrics.requests_per_second(), Some(45.2));
    engine.stop().await;
}

#[tokio::test]
async fn what_could_not_be_stored_is_stored_later() {
    let folder = Folder::new();
    // Bound and never answered: nothing listens there once the listener is dropped.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let store = store_at(address).await;
    let collector = collector(&store, "router-1");
    for minute in [1, 2, 3] {
        collector.record(minutes_ago(minute), &pool(), &Sample::Cleanup { passed: true });
    }
    let error = collector.flush().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(collector.counts().waiting, 3);

    let engine = Engine::start_at(&folder, address).await;
    collector.flush().await.unwrap();
    assert_eq!(collector.counts().waiting, 0);
    let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
    assert_eq!(metrics.cleanup(), Some(CleanupTally { passed: 3, failed: 0 }));
    engine.stop().await;
}

#[tokio::test]
async fn what_has_ended_and_what_cannot_be_read_is_left_out() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let collector = collector(&store, "router-1");
    for _ in 0..3 {
        collector.record_cleanup(&pool(), true);
        collector.flush_all().await.unwrap();
    }
    let client = engine.client();
    let items = client.scan().table_name(table("metrics")).send().await.unwrap();
    let [ended, corrupt, _] = items.items() else { panic!("{items:?}") };
    for (item, name, value) in [
        (ended, "expires_at", AttributeValue::N((minutes_ago(1).0 / 1_000).to_string())),
        (corrupt, "model_load", AttributeValue::S("many".to_owned())),
    ] {
        let mut item = item.clone();
        item.insert(name.to_owned(), value);
        let put = client.put_item().table_name(table("metrics")).set_item(Some(item));
        put.send().await.unwrap();
    }
    let metrics = store.pool_metrics(&home(), &pool(), WINDOW_MINUTES).await.unwrap();
    assert_eq!(metrics.cleanup(), Some(CleanupTally { passed: 1, failed: 0 }));
    assert_eq!(store.counts().corrupt_items, 1);
    engine.stop().await;
}

#[tokio::test]
async fn the_summary_has_the_instances_and_the_load_of_every_region_and_pool() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for id in [REGION, "us-west-2"] {
        store.put_region(&region(id)).await.unwrap();
    }
    for (id, pool, at) in
        [("i-1", "model-a", REGION), ("i-2", "model-b", REGION), ("i-3", "model-a", "us-west-2")]
    {
        let mut registration = registration(id);
        registration.pool = pool.into();
        registration.region = at.into();
        store.register(&registration).await.unwrap();
    }
    let east = collector(&store, "router-1");
    let west = MetricsCollector::new(store.clone(), "us-west-2".into(), "router-1");
    for (collector, rate, depth) in [(&east, 45.0, 2), (&west, 5.0, 8)] {
        collector.record_rps(&pool(), rate);
        collector.record_queue_depth(&pool(), depth);
        collector.flush_all().await.unwrap();
    }

    let health = store.cluster_health_summary(WINDOW_MINUTES).await.unwrap();
    assert_eq!((health.total.instances, health.total.requests_per_second), (3, Some(50.0)));
    assert_eq!(health.total.average_queue_depth(), Some(5.0));
    let east = &health.regions[&home()];
    assert_eq!((east.total.instances, east.total.requests_per_second), (2, Some(45.0)));
    let idle = &east.pools[&PoolId::from("model-b")];
    assert_eq!((idle.instances, idle.requests_per_second), (1, None));
    assert_eq!(idle.average_queue_depth(), None);
    engine.stop().await;
}
