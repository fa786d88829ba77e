//! XIDs, from the driver's mouth to the verdict.

use std::fs;

use serde_json::json;

use super::{Machine, fitness_becomes};
use crate::support::{Engine, ModelServer};

const FELL_OFF: &str = "NVRM: Xid (PCI:0000:11:00): 79, GPU has fallen off the bus.";
const UNCONTAINED: &str = "NVRM: Xid (PCI:0000:10:00): 95, pid=7, name=vllm, Uncontained: FBHUB.";

#[tokio::test]
async fn one_of_the_kernel_s_log_makes_the_instance_unfit_at_once() {
    let (store, server, machine) =
        (Engine::start().await, ModelServer::start().await, Machine::new(""));
    let agent = machine.setup().store(&store).inference(&server).start().await;
    machine.is_heard(&agent).await;
    machine.log(1, "some other driver: all is well");
    machine.log(2, FELL_OFF);
    let body = fitness_becomes(&agent, "unfit").await;
    assert_eq!(body["gpu"][0]["fitness"], "fit");
    assert_eq!(body["gpu"][1]["fitness"], "unfit");
    assert_eq!(body["gpu"][1]["action"], "reboot");
    assert_eq!(
        body["checks"]["gpu"],
        json!({
            "status": "error",
            "reason": "GPU 1: XID 79 (GPU has fallen off the bus); reboot the machine"
        })
    );
    assert_eq!(agent.health().await.0, 503);
    let report =
        store.report_when("an unhealthy report", |r| r.health.as_str() == "unhealthy").await;
    assert!(report.reason.as_ref().unwrap().contains("XID 79"), "{report:?}");
    let labels = "gpu=\"1\",uuid=\"GPU-00000000-0000-0000-0000-000000000002\",pci=\"0000:11:00\"";
    let total = format!("mrgc_agent_gpu_xid_errors_total{{{labels},xid=\"79\"}} 1");
    agent.metrics_say(&total).await;
    let text = agent.metrics().await;
    let last_seen =
        format!("mrgc_agent_gpu_xid_last_seen_timestamp_seconds{{{labels},xid=\"79\"}} 1");
    assert!(text.contains(&last_seen), "{text}");
}

#[tokio::test]
async fn what_nvml_and_the_log_both_tell_is_one() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let agent = machine.start(&server).await;
    machine.say("xid 0 95");
    let body = fitness_becomes(&agent, "unfit").await;
    assert_eq!(body["gpus"]["action"], "reset_gpu");
    machine.log(1, UNCONTAINED);
    // A second one, of which only the log tells, shows that the first was read by then.
    machine.log(2, "NVRM: Xid (PCI:0000:11:00): 13, Graphics Exception");
    let body =
        agent.health_when("the other XID", |_, body| body["gpus"]["xids"][1]["code"] == 13).await;
    let xids = &body["gpus"]["xids"];
    assert_eq!((&xids[0]["code"], &xids[0]["count"]), (&json!(95), &json!(1)), "{xids}");
    machine.log(3, UNCONTAINED);
    agent.health_when("counted", |_, body| body["gpus"]["xids"][0]["count"] == 2).await;
}

#[tokio::test]
async fn what_each_asks_for_decides() {
    let server = ModelServer::start().await;
    for (message, fitness, action) in [
        ("Xid (PCI:0000:10:00): 43, pid=7, name=vllm, Ch 00000008", "fit", "none"),
        (
            "Xid (PCI:0000:10:00): 31, pid=7, name=vllm, MMU Fault",
            "degraded",
            "restart_application",
        ),
        ("Xid (PCI:0000:10:00): 999, something new", "degraded", "contact_support"),
        ("Xid (PCI:0000:10:00): 119, Timeout after 6s of waiting for RPC", "unfit", "reset_gpu"),
        (
            "Xid (PCI:0000:10:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 \
             (Node Reboot Required)",
            "unfit",
            "reboot",
        ),
        (
            "Xid (PCI:0000:10:00): 145, RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000082 0x00000100 \
             0x0 0x0 0x0 0x0)",
            "fit",
            "none",
        ),
        // Not one of NVML's GPUs.
        ("Xid (PCI:0000:7f:00): 79, GPU has fallen off the bus.", "unfit", "reboot"),
    ] {
        let machine = Machine::new("");
        let agent = machine.setup().inference(&server).start().await;
        machine.log(1, &format!("NVRM: {message}"));
        let body = agent
            .health_when(message, |_, body| {
                body["gpus"]["xids"][0].is_object() && body["gpu"][1].is_object()
            })
            .await;
        assert_eq!(body["gpus"]["fitness"], fitness, "{message}");
        assert_eq!(body["gpus"]["action"], action, "{message}");
    }
}

#[tokio::test]
async fn only_what_resolves_it_ends_it() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let mut agent = machine.start(&server).await;
    machine.log(1, UNCONTAINED);
    fitness_becomes(&agent, "unfit").await;

    // Not an agent that is started anew: the kernel still has its log.
    agent.child.kill().await.unwrap();
    let agent = machine.start(&server).await;
    fitness_becomes(&agent, "unfit").await;

    machine.log(2, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build");
    fitness_becomes(&agent, "fit").await;

    // The driver's own word, in the log.
    machine.log(3, UNCONTAINED);
    fitness_becomes(&agent, "unfit").await;
    let changed = "NVRM: Xid (PCI:0000:10:00): 154, GPU recovery action changed from";
    machine.log(4, &format!("{changed} 0x1 (GPU Reset Required) to 0x0 (None)"));
    fitness_becomes(&agent, "fit").await;

    // A GPU that is off the bus needs more, or somebody who knows better.
    machine.log(5, FELL_OFF);
    fitness_becomes(&agent, "unfit").await;
    machine.log(6, "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build");
    machine.log(7, "NVRM: Xid (PCI:0000:10:00): 43, pid=7");
    agent.health_when("read", |_, body| body["gpus"]["xids"][0]["code"] == 43).await;
    assert_eq!(agent.health().await.1["gpus"]["fitness"], "unfit");
    fs::write(&machine.acknowledgement, "").unwrap();
    let body = fitness_becomes(&agent, "fit").await;
    let held = body["gpus"]["xids"].as_array().unwrap().iter().any(|xid| xid["is_held"] == true);
    assert!(!held, "{body}");
}

#[tokio::test]
async fn what_was_there_before_the_agent_counts_as_what_comes() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    machine.log_at(1_000_000, 1, FELL_OFF);
    let agent = machine.start(&server).await;
    let body = fitness_becomes(&agent, "unfit").await;
    let seen = body["gpus"]["xids"][0]["last_seen"].as_u64().unwrap();
    assert!(seen < body["at"].as_u64().unwrap(), "{body}");
    drop(agent);

    // Resolved by what comes after it in the log: nobody hears of it.
    machine.log_at(2_000_000, 2, UNCONTAINED);
    let load = "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05  Release Build";
    machine.log_at(3_000_000, 3, load);
    // Acknowledged, also for an agent that reads of it only later.
    fs::write(&machine.acknowledgement, "").unwrap();
    let agent = machine.start(&server).await;
    let body = agent.health_when("read", |_, body| body["gpus"]["xids"][0].is_object()).await;
    assert_eq!(body["gpus"]["fitness"], "fit", "{body}");
    // Not for a moment, either, or it would be in quarantine.
    assert_eq!(body["lifecycle"], "registering", "{body}");
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_told_and_harms_nothing() {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    fs::remove_file(&machine.log).unwrap();
    let agent = machine.start(&server).await;
    let body = agent.health().await.1;
    let log = &body["gpus"]["xid_sources"]["kernel_log"];
    assert_eq!(log["status"], "error");
    assert!(log["reason"].as_str().unwrap().contains("cannot be read: No such file"), "{log}");
    assert_eq!(body["gpus"]["fitness"], "fit", "NVML's events are enough");
    // Its text, which would say more, will not come.
    machine.say("xid 0 149");
    let body = fitness_becomes(&agent, "unfit").await;
    assert_eq!(body["gpus"]["action"], "reset_gpu");
}

#[tokio::test]
async fn with_neither_source_nobody_would_tell() {
    let server = ModelServer::start().await;
    let machine = Machine::new("fail nvmlDeviceRegisterEvents 3");
    fs::remove_file(&machine.log).unwrap();
    let agent = machine.start(&server).await;
    let body = fitness_becomes(&agent, "degraded").await;
    let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("XIDs are not seen: none of 2 GPUs gives events"), "{reason}");
}
