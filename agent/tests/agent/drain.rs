//! SIGTERM: draining, what is in flight, deregistration.

use std::time::{Duration, Instant};

use mrgc_fleet::model::{Health, Lifecycle};

use crate::support::{Engine, Gauges, ModelServer, Setup};

#[tokio::test]
async fn what_is_in_flight_ends_before_the_agent_does() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    server.set(Gauges { waiting: 1, running: 2 });
    let mut agent = Setup::new().store(&store).inference(&server).start().await;
    store.report_when("healthy", |report| report.health == Health::Healthy).await;

    agent.signal("TERM").await;
    let body = agent
        .health_when("draining", |code, body| code == 503 && body["lifecycle"] == "draining")
        .await;
    assert_eq!(body["status"], "healthy", "draining is no illness");
    let report = store.report_when("draining", |r| r.lifecycle == Lifecycle::Draining).await;
    server.set(Gauges { waiting: 0, running: 1 });
    store
        .report_when("heartbeats go on", |r| {
            r.sequence > report.sequence && r.queue_depth == Some(0)
        })
        .await;
    assert!(
        agent.child.try_wait().unwrap().is_none(),
        "one request is in flight:\n{}",
        agent.log()
    );

    server.set(Gauges::default());
    assert!(agent.exit().await.success(), "{}", agent.log());
    assert_eq!(store.standing().await, None, "it is deregistered");
    assert!(agent.log().contains("drained: nothing is in flight"), "{}", agent.log());
}

#[tokio::test]
async fn the_deadline_ends_a_drain() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    server.set(Gauges { waiting: 0, running: 1 });
    let mut agent = Setup::new()
        .store(&store)
        .inference(&server)
        .with(&[("MRGC_AGENT__DRAIN__DEADLINE_SECONDS", "1")])
        .start()
        .await;
    store.report_when("healthy", |report| report.health == Health::Healthy).await;
    let start = Instant::now();
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(store.standing().await, None);
    assert!(agent.log().contains("deadline is over"), "{}", agent.log());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    server.set(Gauges { waiting: 0, running: 1 });
    let mut agent = Setup::new().store(&store).inference(&server).start().await;
    store.report_when("healthy", |report| report.health == Health::Healthy).await;
    agent.signal("INT").await;
    agent.health_when("draining", |code, _| code == 503).await;
    agent.signal("INT").await;
    assert_eq!(agent.exit().await.code(), Some(1));
    assert!(store.standing().await.is_some());
}

#[tokio::test]
async fn without_a_store_it_still_goes() {
    let mut agent = Setup::new().start().await;
    agent.health_when("up", |code, _| code == 200).await;
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
}

#[tokio::test]
async fn a_store_that_is_gone_does_not_hold_it() {
    let store = Engine::start().await;
    let mut agent = Setup::new().store(&store).start().await;
    store.report_when("a report", |_| true).await;
    store.stop().await;
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
    assert!(agent.log().contains("not deregistered"), "{}", agent.log());
}
