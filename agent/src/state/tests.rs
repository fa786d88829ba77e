#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    answer::Detail,
    gpu::status::{Sample, Verdict},
};

const LIMITS: DrainLimits = DrainLimits {
    deadline: Duration::from_secs(60),
    settle: Duration::from_secs(1),
    unknown_grace: Duration::from_secs(30),
};
const NOTHING_REQUIRED: Requirements =
    Requirements { gpu: false, enclave: false, inference: false, silent_polls: 3 };

fn registration() -> Registration {
    Registration {
        health_address: "10.0.0.5:8080".to_owned(),
        registered_at: Timestamp(1),
        ..Registration::new("i-1", "us-east-1", "model-a", "10.0.0.5:8000")
    }
}

fn state(has_inference: bool) -> State {
    let requirements = Requirements { inference: has_inference, ..NOTHING_REQUIRED };
    State::new(registration(), has_inference, requirements, LIMITS)
}

impl Snapshot {
    /// Before anything was sampled, and without an inference server.
    pub(crate) fn blank() -> Self {
        state(false).snapshot(Timestamp(1_000))
    }
}

fn gpu(index: u32, utilization: Option<f64>, used: Option<u64>) -> Gpu {
    let sample = Sample {
        index,
        utilization,
        memory_total_bytes: Some(100),
        memory_used_bytes: used,
        ..Sample::default()
    };
    Gpu { sample, verdict: Verdict::default() }
}

fn gpus(gpus: Vec<Gpu>) -> Event {
    Event::Gpu(Reading::ok(Gpus { gpus, ..Gpus::default() }))
}

fn poll(running: u32, waiting: u32) -> Inference {
    poll_at(0, running, waiting)
}

/// A poll that was made at a second.
fn poll_at(second: u64, running: u32, waiting: u32) -> Inference {
    let load = Load {
        waiting: Some(waiting),
        running: Some(running),
        avg_latency_ms: Some(150.0),
        time_to_first_token_ms: Some(20.5),
        kv_cache_usage: Some(0.5),
    };
    let models = Reading::ok(vec!["m".to_owned()]);
    Inference::new(Reading::ok(load), models, Duration::from_secs(second))
}

/// Applies events at second 0 and gives the answer as JSON.
fn answer(state: &mut State, events: Vec<Event>) -> serde_json::Value {
    for event in events {
        state.apply(event, Duration::ZERO);
    }
    serde_json::to_value(Detail::of(&state.snapshot(Timestamp(7)))).unwrap()
}

#[test]
fn the_five_fields_come_first_and_what_is_missing_is_null() {
    let state = state(false);
    let snapshot = state.snapshot(Timestamp(7));
    let text = serde_json::to_string(&Detail::of(&snapshot)).unwrap();
    let first = r#"{"status":"degraded","queue_depth":null,"avg_latency_ms":null,"model_loaded":null,"enclave_running":null,"#;
    assert!(text.starts_with(first), "{text}");
    assert!(snapshot.is_serving());
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["gpu", "host", "enclave", "models", "running", "sequence"] {
        assert!(body[key].is_null(), "{key} in {text}");
    }
    for part in ["gpu", "host", "enclave", "inference", "model", "store"] {
        assert_eq!(body["checks"][part]["status"], "missing", "{part}");
        assert!(body["checks"][part]["reason"].is_string(), "{part}");
    }
}

#[test]
fn what_was_sampled_is_answered() {
    let mut state = state(true);
    let body = answer(
        &mut state,
        vec![
            Event::Inference(poll(1, 2)),
            gpus(vec![gpu(0, Some(0.25), Some(40)), gpu(1, Some(0.75), Some(80))]),
            Event::Enclave(Reading::ok(Enclaves { running: 1, listed: 1, ..Enclaves::default() })),
            Event::Store(StoreEvent::Registered { generation: 4, desired: None }),
            Event::Store(StoreEvent::Written { sequence: 9 }),
        ],
    );
    for (pointer, expected) in [
        ("/status", "healthy".into()),
        ("/queue_depth", 2.into()),
        ("/running", 1.into()),
        ("/avg_latency_ms", 150.0.into()),
        ("/model_loaded", true.into()),
        ("/enclave_running", true.into()),
        ("/lifecycle", "available".into()),
        ("/sequence", 9.into()),
        ("/instance/generation", 4.into()),
        ("/gpu/1/utilization", 0.75.into()),
        ("/reason", serde_json::Value::Null),
    ] {
        assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
    }

    let report = state.snapshot(Timestamp(7)).report(4, 10);
    assert_eq!((report.generation, report.sequence, report.at), (4, 10, Timestamp(7)));
    assert_eq!((report.lifecycle, report.health), (Lifecycle::Available, Health::Healthy));
    assert_eq!((report.queue_depth, report.running), (Some(2), Some(1)));
    assert_eq!(report.time_to_first_token_ms, Some(20.5));
    assert_eq!(report.enclave, EnclaveState::Running);
    assert_eq!(report.gpu_utilization, Some(0.5));
    assert_eq!(report.gpu_memory_free_bytes, Some(80));
}

#[test]
fn a_sum_over_some_gpus_is_not_one_over_all() {
    for (listed, utilization, free) in [
        (vec![], None, None),
        (vec![gpu(0, Some(0.5), Some(10)), gpu(1, None, Some(10))], None, Some(180)),
        (vec![gpu(0, Some(0.5), Some(10)), gpu(1, Some(0.5), None)], Some(0.5), None),
    ] {
        let mut state = state(false);
        state.apply(gpus(listed), Duration::ZERO);
        let report = state.snapshot(Timestamp(0)).report(1, 1);
        assert_eq!((report.gpu_utilization, report.gpu_memory_free_bytes), (utilization, free));
    }
}

#[test]
fn very_many_models_do_not_make_a_long_report() {
    let mut state = state(true);
    let names: Vec<String> = (0..100).map(|i| format!("adapter-{i:02}")).collect();
    let models = Reading::ok(names.clone());
    state.apply(Event::Inference(Inference { models, ..poll(0, 0) }), Duration::ZERO);
    let snapshot = state.snapshot(Timestamp(0));
    assert_eq!(snapshot.models().map(<[String]>::len), Some(100));
    assert_eq!(snapshot.report(1, 1).models, names[..38]);
}

#[test]
fn fitness_and_lifecycle_decide_whether_it_serves() {
    let mut unfit = state(true);
    assert!(!unfit.snapshot(Timestamp(0)).is_serving(), "its server was never polled");
    unfit.apply(Event::Inference(poll(0, 0)), Duration::ZERO);
    assert!(unfit.snapshot(Timestamp(0)).is_serving());
    unfit.apply(Event::Drain, Duration::ZERO);
    let snapshot = unfit.snapshot(Timestamp(0));
    assert!(!snapshot.is_serving());
    assert_eq!(snapshot.assessment.health, Health::Healthy, "draining is no illness");
}

#[test]
fn a_drain_waits_for_what_is_in_flight() {
    let at = Duration::from_secs;
    let mut state = state(true);
    state.apply(Event::Inference(poll(0, 0)), at(0));
    state.apply(Event::Drain, at(10));
    state.apply(Event::Tick, at(12));
    assert_eq!(state.drained(), None, "idle before the drain says nothing");
    state.apply(Event::Inference(poll_at(9, 0, 0)), at(12));
    assert_eq!(state.drained(), None, "nor does what was asked before");
    state.apply(Event::Inference(poll_at(13, 1, 0)), at(13));
    state.apply(Event::Inference(poll_at(14, 0, 0)), at(14));
    assert_eq!(state.drained(), None, "it settles first");
    state.apply(Event::Tick, at(15));
    assert_eq!(state.drained(), Some(Drained::Idle));
    assert_eq!(state.snapshot(Timestamp(0)).lifecycle, Lifecycle::Terminated);
}

#[test]
fn the_store_is_told_of_in_the_checks() {
    let mut state = state(false);
    let failed = |sequence| StoreEvent::Failed { sequence, reason: "no answer".to_owned() };
    let body = answer(&mut state, vec![Event::Store(failed(None))]);
    assert_eq!(body["checks"]["store"]["status"], "degraded");
    assert!(body["sequence"].is_null());
    assert_eq!(body["lifecycle"], "registering");

    let registered = StoreEvent::Registered { generation: 1, desired: None };
    let body = answer(&mut state, vec![Event::Store(registered), Event::Store(failed(Some(3)))]);
    assert_eq!((&body["sequence"], &body["lifecycle"]), (&3.into(), &"available".into()));

    let fenced = StoreEvent::Fenced { reason: "generation 1 lost against 2".to_owned() };
    let body = answer(&mut state, vec![Event::Store(fenced)]);
    assert_eq!(
        body["checks"]["store"],
        serde_json::json!({ "status": "error", "reason": "fenced: generation 1 lost against 2" })
    );
}
