//! How often heartbeats are written: by what changed, and by what the store can take.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    front::{Front, THROTTLED},
    support::{Engine, Gauges, ModelServer, Setup},
};

#[tokio::test]
async fn a_steady_instance_writes_where_it_has_something_to_say() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let agent = Setup::new()
        .store(&store)
        .inference(&server)
        .with(&[
            ("MRGC_AGENT__HEARTBEAT__MODE", "adaptive"),
            ("MRGC_AGENT__HEARTBEAT__MAX_INTERVAL_SECONDS", "3600"),
        ])
        .start()
        .await;
    let steady = agent
        .health_when("looks that wrote nothing", |_, b| {
            b["heartbeats"]["skipped"].as_u64() >= Some(2)
        })
        .await;
    let before = store.report_when("a report", |report| report.queue_depth == Some(0)).await;
    assert_eq!(before.next_within_ms, Some(3_600_000));
    // The first says that it is there, another that its server was found.
    assert!(steady["heartbeats"]["written"].as_u64() <= Some(3), "{steady}");

    server.set(Gauges { waiting: 7, running: 1 });
    let after = store.report_when("the queue", |report| report.queue_depth == Some(7)).await;
    assert!(after.sequence <= before.sequence + 2, "{} {}", before.sequence, after.sequence);
    let text = agent.metrics().await;
    assert!(text.contains("mrgc_agent_heartbeats_total{outcome=\"skipped\"}"), "{text}");
}

#[tokio::test]
async fn a_store_that_throttles_is_written_to_less_often() {
    let store = Engine::start().await;
    let throttles = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&throttles);
    let front =
        Front::before(store.address, move |_| asked.load(Ordering::SeqCst).then_some(THROTTLED))
            .await;
    let agent = Setup::new().store_at(front.address).start().await;
    let report = store.report_when("a report", |_| true).await;
    assert_eq!(report.next_within_ms, Some(1_000));

    throttles.store(true, Ordering::SeqCst);
    let slowed = agent
        .health_when("slower", |code, body| {
            code == 200 && body["heartbeats"]["interval_ms"].as_u64() >= Some(2_000)
        })
        .await;
    throttles.store(false, Ordering::SeqCst);
    assert!(slowed["heartbeats"]["throttled"].as_u64() >= Some(1), "{slowed}");
    assert!(slowed["heartbeats"]["throttled_answers"].as_u64() >= Some(3), "{slowed}");

    let slow = store.report_when("a slower report", |r| r.next_within_ms > Some(1_000)).await;
    assert!(slow.next_within_ms <= Some(3_000), "the bound: {:?}", slow.next_within_ms);
    agent.health_when("well again", |_, body| body["checks"]["store"]["status"] == "ok").await;
    let text = agent.metrics().await;
    assert!(text.contains("\nmrgc_agent_store_up 1\n"), "{text}");
    assert!(!text.contains("outcome=\"throttled\"} 0\n"), "{text}");
    assert!(!text.contains("mrgc_agent_store_throttled_total 0\n"), "{text}");
}
