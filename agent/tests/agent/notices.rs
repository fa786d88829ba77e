//! What the cloud announces: spot interruptions, Auto Scaling, rebalancing, maintenance.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::State, http::HeaderMap, routing::post};
use mrgc_fleet::model::{InstanceId, RegionId};
use tokio::net::TcpListener;

use crate::{
    imds::{GROUP, Imds, MAINTENANCE, REBALANCE, SPOT, TARGET},
    support::{Engine, Setup, until},
};

const INTERRUPTED: &str = r#"{"action": "terminate", "time": "2026-05-04T08:22:00Z"}"#;

async fn is_registered(store: &Engine) -> bool {
    let (region, id) = (RegionId::from("us-east-1"), InstanceId::from("i-0abc"));
    store.store.instance(&region, &id).await.unwrap().is_some()
}

#[tokio::test]
async fn a_spot_interruption_drains_and_deregisters() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    let mut agent = Setup::new().ec2(&imds).store(&store).start().await;
    agent.in_lifecycle("available").await;
    assert!(is_registered(&store).await);

    // The token ends at the worst moment, and IMDS throttles.
    imds.end_token();
    imds.throttle(2);
    imds.set(SPOT, INTERRUPTED);
    let body = agent.in_lifecycle("terminated").await;
    assert_eq!(agent.health().await.0, 503);
    let notices = &body["life"]["notices"];
    assert_eq!(notices[0]["text"], "spot interruption: terminate at 2026-05-04T08:22:00Z");
    until("it is deregistered", async || {
        if is_registered(&store).await { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(agent.child.try_wait().unwrap().is_none(), "it answers until it is told to end");
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
}

#[tokio::test]
async fn a_rebalance_recommendation_drains_where_configured_and_can_be_undrained() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    let ignoring = Setup::new().ec2(&imds).start().await;
    let draining = Setup::new()
        .ec2(&imds)
        .store(&store)
        .with(&[("MRGC_AGENT__NOTICES__REBALANCE", "drain")])
        .start()
        .await;
    draining.in_lifecycle("available").await;
    imds.set(REBALANCE, r#"{"noticeTime": "2026-05-04T07:59:00Z"}"#);
    let body = draining.in_lifecycle("draining").await;
    assert_eq!(body["life"]["drain"]["causes"], serde_json::json!(["rebalance"]));
    assert_eq!(draining.post("/undrain").await.0, 200);
    draining.in_lifecycle("available").await;

    // The same notice, seen again and again, is no news.
    let asked = imds.asked(REBALANCE);
    until("a few more looks", async || {
        let now = imds.asked(REBALANCE);
        if now > asked + 6 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    assert_eq!(draining.health().await.1["lifecycle"], "available");
    let ignored = ignoring
        .health_when("noticed", |_, body| body["life"]["notices"][0]["cause"].is_null())
        .await;
    assert_eq!(
        ignored["life"]["notices"][0]["text"],
        "rebalance recommended at 2026-05-04T07:59:00Z"
    );
    assert_eq!(ignored["lifecycle"], "registering");
}

#[tokio::test]
async fn maintenance_drains_when_it_is_near_by_the_clock_of_ec2() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    let event = |not_before: &str| {
        format!(
            r#"[{{"NotBefore": "{not_before}", "NotAfter": "{not_before}", "Code": "system-reboot",
                "Description": "scheduled reboot", "EventId": "instance-event-1", "State": "active"}}]"#
        )
    };
    imds.set(MAINTENANCE, &event("21 Jan 2099 09:00:43 GMT"));
    let far = Setup::new().ec2(&imds).store(&store).start().await;
    let body = far.health_when("noticed", |_, body| body["life"]["notices"][0].is_object()).await;
    assert!(body["life"]["notices"][0]["cause"].is_null(), "{body}");
    far.in_lifecycle("available").await;

    imds.set(MAINTENANCE, &event("21 Jan 2019 09:00:43 GMT"));
    let near = Setup::new().ec2(&imds).store(&store).start().await;
    let body = near.in_lifecycle("draining").await;
    assert_eq!(body["life"]["drain"]["causes"], serde_json::json!(["maintenance"]));
}

#[tokio::test]
async fn notices_that_cannot_be_read_change_nothing() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    let agent = Setup::new().ec2(&imds).store(&store).start().await;
    agent.in_lifecycle("available").await;
    imds.set(SPOT, "<html>");
    let check = |body: &serde_json::Value| body["life"]["notices_check"]["status"].clone();
    let body = agent.health_when("garbled", |_, body| check(body) == "error").await;
    let reason = body["life"]["notices_check"]["reason"].as_str().unwrap();
    assert!(reason.contains("spot/instance-action"), "{reason}");
    assert_eq!(body["lifecycle"], "available");
    imds.set(REBALANCE, r#"{"noticeTime": "2026-05-04T07:59:00Z"}"#);
    agent
        .health_when("the others are read", |_, body| body["life"]["notices"][0].is_object())
        .await;
    imds.remove(SPOT);
    agent.health_when("well again", |_, body| check(body) == "ok").await;
}

/// The Auto Scaling service: it fails once, and takes the rest.
#[derive(Default)]
struct Calls(Mutex<Vec<(String, String)>>);

async fn auto_scaling() -> (SocketAddr, Arc<Calls>) {
    let calls = Arc::new(Calls::default());
    let answer = async |State(calls): State<Arc<Calls>>, headers: HeaderMap, body: String| {
        let signature = headers["authorization"].to_str().unwrap().to_owned();
        let mut calls = calls.0.lock().unwrap();
        calls.push((signature, body));
        if calls.len() == 1 {
            return (axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
        }
        (axum::http::StatusCode::OK, "<CompleteLifecycleActionResponse/>")
    };
    let service = Router::new().route("/", post(answer)).with_state(Arc::clone(&calls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    (address, calls)
}

#[tokio::test]
async fn a_group_that_ends_an_instance_is_told_once_when_it_is_drained() {
    let (imds, store) = (Imds::start().await, Engine::start().await);
    let (address, calls) = auto_scaling().await;
    imds.set(TARGET, "InService");
    imds.set(GROUP, "gpu & more");
    let mut agent = Setup::new()
        .ec2(&imds)
        .store(&store)
        .with(&[
            ("MRGC_AGENT__NOTICES__LIFECYCLE_HOOK", "mrgc-drain"),
            ("MRGC_AGENT__NOTICES__AUTO_SCALING_ENDPOINT", &format!("http://{address}")),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ])
        .start()
        .await;
    agent.in_lifecycle("available").await;
    imds.set(TARGET, "Terminated");
    agent.in_lifecycle("terminated").await;
    until("the action is completed", async || {
        let log = agent.log();
        if log.contains("lifecycle action completed") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!is_registered(&store).await, "it left the fleet first");
    {
        let calls = calls.0.lock().unwrap();
        assert_eq!(calls.len(), 2, "one that failed, and one");
        let (signature, body) = &calls[1];
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
        assert!(signature.contains("/us-east-1/autoscaling/aws4_request"), "{signature}");
        assert_eq!(
            body,
            "Action=CompleteLifecycleAction&Version=2011-01-01&AutoScalingGroupName=gpu+%26+more\
             &LifecycleHookName=mrgc-drain&InstanceId=i-0abc&LifecycleActionResult=CONTINUE"
        );
    }
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
    assert_eq!(calls.0.lock().unwrap().len(), 2);
}
