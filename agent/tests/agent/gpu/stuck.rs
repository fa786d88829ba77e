//! Drivers that hang, vanish, or were never there.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time;

use super::{Machine, fitness_becomes};
use crate::support::{Agent, ModelServer, Setup};

/// A round that takes longer counts as hung.
const IMPATIENT: [(&str, &str); 1] = [("MRGC_AGENT__GPU__DEADLINE_MS", "200")];

#[tokio::test]
async fn a_hung_driver_hangs_nothing_but_its_own_sample() {
    let server = ModelServer::start().await;
    let machine = Machine::new("hang nvmlDeviceGetUtilizationRates");
    let mut agent = machine.setup().inference(&server).with(&IMPATIENT).start().await;
    let is_hung = |body: &Value| {
        let reason = body["checks"]["gpu"]["reason"].as_str().unwrap_or_default();
        reason.contains("the driver hangs")
    };
    let body = agent.health_when("hung", |code, body| code == 200 && is_hung(body)).await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("nvmlDeviceGetUtilizationRates of GPU 0"), "{reason}");
    assert_eq!((&body["gpu"], &body["status"]), (&Value::Null, &json!("degraded")));
    for _ in 0..20 {
        let answered = time::timeout(Duration::from_secs(2), agent.health()).await;
        assert_eq!(answered.expect("/health does not wait for NVML").0, 200);
    }

    // What the kernel says counts all the while.
    machine.log(1, "NVRM: Xid (PCI:0000:10:00): 119, Timeout after 6s of waiting for RPC");
    let body = fitness_becomes(&agent, "unfit").await;
    assert!(is_hung(&body), "{body}");
    machine.log(2, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build");

    machine.say("");
    agent
        .health_when("well again", |_, body| {
            body["status"] == "healthy" && body["gpu"][1].is_object()
        })
        .await;

    machine.say("hang nvmlDeviceGetUtilizationRates");
    agent.health_when("hung again", |_, body| is_hung(body)).await;
    agent.signal("TERM").await;
    assert!(agent.exit().await.success(), "{}", agent.log());
}

#[tokio::test]
async fn whichever_call_hangs_is_named() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let agent = machine.setup().inference(&server).with(&IMPATIENT).start().await;
    for call in [
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ] {
        machine.say(&format!("hang {call}"));
        agent
            .health_when(call, |_, body| {
                let reason = body["checks"]["gpu"]["reason"].as_str().unwrap_or_default();
                reason.contains(&format!("(in {call}"))
            })
            .await;
        machine.say("");
        fitness_becomes(&agent, "fit").await;
        agent.health_when("well again", |_, body| body["gpu"][1].is_object()).await;
    }
    // Events have a thread of their own.
    machine.say("hang nvmlEventSetWait_v2");
    agent.health_when("sampled", |_, body| body["checks"]["gpu"]["status"] == "ok").await;
}

async fn cpu_seconds(agent: &Agent) -> f64 {
    let metrics = agent.metrics().await;
    let mut told =
        metrics.lines().filter_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    told.next().unwrap().parse().unwrap()
}

/// Nothing happened, says NVML each time, and did not wait for it.
#[tokio::test]
async fn a_wait_for_events_that_does_not_wait_keeps_no_core_busy() {
    const TIMEOUT: &str = "fail nvmlEventSetWait_v2 10";
    const MEASURED_FOR: Duration = Duration::from_secs(1);
    let server = ModelServer::start().await;
    let machine = Machine::new(TIMEOUT);
    let agent = machine.start(&server).await;
    let before = cpu_seconds(&agent).await;
    time::sleep(MEASURED_FOR).await;
    let used = cpu_seconds(&agent).await - before;
    assert!(used < MEASURED_FOR.as_secs_f64() / 2.0, "{used} s of CPU");
    let body = fitness_becomes(&agent, "fit").await;
    assert_eq!(body["gpus"]["xid_sources"]["nvml_events"]["status"], "ok");
    machine.say("xid 0 95");
    fitness_becomes(&agent, "unfit").await;
}

#[tokio::test]
async fn what_is_wrong_with_the_gpus_is_told() {
    let server = ModelServer::start().await;
    for (script, required, http, check, told) in [
        ("", "true", 200, "ok", ""),
        ("gpu 1 lost", "true", 503, "error", "GPU 1: it has fallen off the bus"),
        // Whatever the model runs on, it may be this one.
        ("gpu 0 lost\ngpu 1 lost", "false", 503, "error", "GPU 0: it has fallen off the bus"),
        ("gpus 0", "true", 503, "missing", "lists no GPU"),
        ("gpus 0", "false", 200, "missing", "lists no GPU"),
        ("no-driver", "true", 503, "error", "NVIDIA driver is not loaded"),
        ("no-driver", "false", 200, "error", "NVIDIA driver is not loaded"),
    ] {
        let machine = Machine::new(script);
        let agent = machine
            .setup()
            .inference(&server)
            .with(&[("MRGC_AGENT__GPU__REQUIRED", required)])
            .start()
            .await;
        machine.is_heard(&agent).await;
        let (code, body) = agent.health().await;
        assert_eq!(body["checks"]["gpu"]["status"], check, "{script}");
        let reason = body["checks"]["gpu"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(told), "{script}: {reason}");
        assert_eq!(code, http, "{script}, required: {required}");
    }
}

#[tokio::test]
async fn fewer_gpus_than_there_must_be_are_too_few() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let agent =
        machine.setup().inference(&server).with(&[("MRGC_AGENT__GPU__COUNT", "8")]).start().await;
    let body = fitness_becomes(&agent, "unfit").await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("NVML lists 2 of 8 GPUs"), "{reason}");
    machine.say("gpus 8");
    let body = fitness_becomes(&agent, "fit").await;
    assert_eq!(body["gpu"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_driver_that_vanishes_is_told_and_found_again() {
    let server = ModelServer::start().await;
    let machine = Machine::new("no-driver");
    let agent = machine.setup().inference(&server).start().await;
    machine.is_heard(&agent).await;
    for _ in 0..2 {
        machine.say("");
        agent.health_when("found", |_, body| body["gpu"][1].is_object()).await;
        machine.say("no-driver");
        let body = agent.health_when("gone", |_, body| body["gpu"] == Value::Null).await;
        assert_eq!(body["checks"]["gpu"]["status"], "error");
    }
    // In the middle of a round.
    machine.say("fail nvmlDeviceGetMemoryInfo_v2 9");
    agent
        .health_when("gone in the middle", |_, body| {
            let reason = body["checks"]["gpu"]["reason"].as_str().unwrap_or_default();
            reason.contains("the driver is gone: NVIDIA driver is not loaded")
        })
        .await;
    machine.say("");
    agent.health_when("found", |_, body| body["gpu"][1].is_object()).await;
}

#[tokio::test]
async fn a_gpu_that_is_lost_is_still_known_by_its_name() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let agent = machine.start(&server).await;
    machine.say("gpu 1 lost");
    let body = fitness_becomes(&agent, "unfit").await;
    let gpu = &body["gpu"][1];
    assert_eq!(gpu["uuid"], "GPU-00000000-0000-0000-0000-000000000002");
    for key in ["utilization", "memory_used_bytes", "temperature_celsius", "ecc", "nvlink"] {
        assert_eq!(gpu.get(key), Some(&Value::Null), "{key}");
    }
    assert_eq!(body["gpu"][0]["fitness"], "fit");
}

#[tokio::test]
async fn a_library_that_is_not_there_is_an_error_where_it_was_asked_for() {
    let agent =
        Setup::new().with(&[("MRGC_AGENT__GPU__LIBRARY", "/nowhere/libnvml.so")]).start().await;
    let body =
        agent.health_when("looked for", |_, body| body["checks"]["gpu"]["status"] == "error").await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.contains("/nowhere/libnvml.so"), "{reason}");
}
