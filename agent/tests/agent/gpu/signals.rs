//! What NVML says, each signal from the double to `/health` and the metrics.

use serde_json::{Value, json};

use super::{Machine, fitness_becomes};
use crate::support::{Engine, ModelServer};

#[tokio::test]
async fn two_gpus_are_answered_and_reported() {
    let (store, server, machine) =
        (Engine::start().await, ModelServer::start().await, Machine::new("gpu 1 process 42 1024"));
    let agent = machine.setup().store(&store).inference(&server).start().await;
    machine.is_heard(&agent).await;
    let body = agent.health().await.1;
    assert_eq!(body["checks"]["gpu"], json!({ "status": "ok", "reason": null }));
    assert_eq!(body["status"], "healthy");
    let gpus = body["gpu"].as_array().unwrap();
    assert_eq!(gpus.len(), 2);
    for (key, expected) in [
        ("index", json!(1)),
        ("uuid", json!("GPU-00000000-0000-0000-0000-000000000002")),
        ("name", json!("NVIDIA H100 80GB HBM3")),
        ("pci", json!("0000:11:00")),
        ("fitness", json!("fit")),
        ("action", json!("none")),
        ("reasons", json!([])),
        ("utilization", json!(0.65)),
        ("memory_total_bytes", json!(85_899_345_920_u64)),
        ("memory_used_bytes", json!(42_949_672_960_u64)),
        ("temperature_celsius", json!(47)),
        ("slowdown_celsius", json!(87)),
        ("shutdown_celsius", json!(95)),
        ("power_watts", json!(420.25)),
        ("power_limit_watts", json!(700.0)),
        ("sm_clock_mhz", json!(1_980)),
        ("memory_clock_mhz", json!(2_619)),
        ("throttle_reasons", json!([])),
        ("persistence_mode", json!(true)),
        ("recovery_action", json!("none")),
        ("compute_processes", json!([{ "pid": 42, "memory_used_bytes": 1_024 }])),
        ("mig_slices", Value::Null),
        (
            "remapped_rows",
            json!({ "corrected": 0, "uncorrected": 0, "pending": false, "failure": false }),
        ),
        (
            "ecc",
            json!({
                "volatile_corrected": 0, "volatile_uncorrected": 0,
                "aggregate_corrected": 0, "aggregate_uncorrected": 0
            }),
        ),
        (
            "nvlink",
            json!({
                "active": 18, "inactive": 0,
                "replay_errors": 0, "recovery_errors": 0, "crc_errors": 0
            }),
        ),
    ] {
        assert_eq!(gpus[1][key], expected, "{key}");
    }
    assert_eq!(body["gpus"]["driver_version"], "580.95.05");
    let report = store.report_when("GPUs in a report", |r| r.gpu_utilization.is_some()).await;
    assert_eq!(report.gpu_utilization, Some(0.5));
    assert_eq!(report.gpu_memory_free_bytes, Some(107_374_182_400));
}

#[tokio::test]
async fn what_slows_a_gpu_down_or_will_degrades_it() {
    each_is_judged(
        "degraded",
        &[
            ("gpu 1 throttle 0x40", "none", "GPU 1: too hot: the hardware has slowed"),
            ("gpu 1 throttle 0x20", "none", "GPU 1: too hot: the driver has slowed"),
            ("gpu 0 throttle 0x80", "none", "GPU 0: the power supply has slowed"),
            ("gpu 0 temperature 94", "none", "1 °C below turning itself off"),
            ("gpu 0 ecc_volatile 2", "reset_gpu", "errors since the driver loaded: 2"),
            ("gpu 0 field 144 1", "reset_gpu", "row remapping waits for a reset"),
            ("gpu 1 field 230 3", "restart_application", "its peers to let go"),
            ("gpu 1 field 230 4", "reset_gpu", "to drain and reset it"),
            ("gpu 1 field 230 7", "contact_support", "recovery action 7"),
            ("gpu 1 links 17", "reset_gpu", "GPU 1: 17 of 18 NVLinks are active"),
            ("fail nvmlDeviceGetPowerUsage 999", "none", "GPU 0: nvmlDeviceGetPowerUsage: an int"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_breaks_a_gpu_makes_it_unfit() {
    each_is_judged(
        "unfit",
        &[
            ("gpu 0 field 145 1", "contact_support", "row remapping failed"),
            ("gpu 1 field 230 1", "reset_gpu", "the driver asks for a reset"),
            ("gpu 1 field 230 2", "reboot", "the driver asks for a reboot"),
            ("gpu 1 lost", "reboot", "GPU 1: it has fallen off the bus"),
            ("gpu 1 reset-required", "reset_gpu", "NVML refuses it until it is reset"),
            ("gpus 1", "reboot", "NVML lists 1 of 2 GPUs"),
        ],
    )
    .await;
}

/// One agent goes through all of them: the script, the operator's action, and what is told.
async fn each_is_judged(fitness: &str, cases: &[(&str, &str, &str)]) {
    let server = ModelServer::start().await;
    let machine = Machine::new("");
    let agent = machine.start(&server).await;
    for (script, action, told) in cases {
        machine.say(script);
        let body = fitness_becomes(&agent, fitness).await;
        let reason = body["checks"]["gpu"]["reason"].as_str().unwrap();
        assert!(reason.contains(told), "{script}: {reason}");
        assert_eq!(body["gpus"]["action"], *action, "{script}");
        // What is unfit quarantines the instance besides, for as long as an operator has not said otherwise.
        let (health, code) =
            if fitness == "unfit" { ("unhealthy", 503) } else { ("degraded", 200) };
        assert_eq!(body["status"], health, "{script}");
        assert_eq!(agent.health().await.0, code, "{script}");
        machine.say("");
        fitness_becomes(&agent, "fit").await;
    }
}

#[tokio::test]
async fn counters_are_for_graphs_and_not_for_verdicts() {
    let server = ModelServer::start().await;
    let machine = Machine::new(
        "gpu 0 ecc_aggregate 3\ngpu 0 ecc_corrected 9\ngpu 0 link_errors 2\ngpu 0 throttle 0x4",
    );
    let agent = machine.start(&server).await;
    let body = agent.health().await.1;
    assert_eq!(body["gpus"]["fitness"], "fit", "{body}");
    let labels = "gpu=\"0\",uuid=\"GPU-00000000-0000-0000-0000-000000000001\"";
    for (name, value) in [
        ("fitness", "0"),
        ("utilization_ratio", "0.35"),
        ("temperature_celsius", "41"),
        ("slowdown_margin_celsius", "46"),
        ("power_limit_watts", "700"),
        ("sm_clock_hertz", "1980000000"),
        ("ecc_uncorrected_errors_total", "3"),
        ("ecc_corrected_errors_total", "9"),
        ("nvlink_active_links", "18"),
        ("nvlink_replay_errors_total", "36"),
        ("remapped_rows_pending", "0"),
    ] {
        agent.metrics_say(&format!("mrgc_agent_gpu_{name}{{{labels}}} {value}")).await;
    }
    let throttled = format!("mrgc_agent_gpu_throttled{{{labels},reason=\"sw_power_cap\"}} 1");
    agent.metrics_say(&throttled).await;
}

#[tokio::test]
async fn a_gpu_in_mig_mode_lists_its_slices() {
    let server = ModelServer::start().await;
    let machine = Machine::new("gpu 0 mig 2\ngpu 0 process 7 512");
    let agent = machine.start(&server).await;
    let body = agent.health().await.1;
    let gpu = &body["gpu"][0];
    assert_eq!((&gpu["utilization"], &gpu["fitness"]), (&Value::Null, &json!("fit")));
    let slices = gpu["mig_slices"].as_array().unwrap();
    assert_eq!(slices.len(), 2);
    assert_eq!(slices[0]["name"], "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
    assert_eq!(slices[1]["uuid"], "MIG-00000000-0000-0000-0001-000000000001");
    assert_eq!(slices[0]["memory_total_bytes"], 10_737_418_240_u64);
    assert_eq!(slices[0]["compute_processes"][0]["pid"], 7);
    assert_eq!(slices[1]["compute_processes"], json!([]));
    assert_eq!(body["gpu"][1]["mig_slices"], Value::Null);
}

#[tokio::test]
async fn an_older_gpu_says_less_and_is_fit() {
    let server = ModelServer::start().await;
    // NOT_SUPPORTED, and a switched-off ECC.
    let calls = [
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetTemperatureThreshold",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetPersistenceMode",
    ];
    let script: String = calls.iter().map(|call| format!("fail {call} 3\n")).collect();
    let machine = Machine::new(&format!("{script}gpu 0 ecc 0"));
    let agent = machine.start(&server).await;
    let body = agent.health().await.1;
    assert_eq!(body["checks"]["gpu"]["status"], "ok");
    for key in [
        "remapped_rows",
        "recovery_action",
        "nvlink",
        "mig_slices",
        "slowdown_celsius",
        "throttle_reasons",
        "persistence_mode",
        "ecc",
    ] {
        assert_eq!(body["gpu"][0].get(key), Some(&Value::Null), "{key}");
    }
}

/// The calls of a round, of 8 GPUs with 18 NVLinks each, as ARCHITECTURE has them.
#[tokio::test]
async fn most_rounds_ask_little() {
    const OFTEN: u64 = 1 + 8 * 9;
    const RARE: u64 = 11 + 18 * 4;
    let server = ModelServer::start().await;
    let machine = Machine::new("gpus 8");
    assert_eq!(calls_of_a_round(&machine, &server, 1_000).await, OFTEN);
    assert_eq!(calls_of_a_round(&machine, &server, 1).await, OFTEN + 8 * RARE);
    // What is rare is asked of a few GPUs in each round, and not of all in one.
    assert_eq!(calls_of_a_round(&machine, &server, 4).await, OFTEN + 2 * RARE);
}

/// Once every GPU is known.
async fn calls_of_a_round(machine: &Machine, server: &ModelServer, rare_every: u32) -> u64 {
    let agent = machine.rarely(rare_every).inference(server).start().await;
    machine.is_heard(&agent).await;
    let calls = async || agent.health().await.1["gpus"]["nvml_calls"].as_u64().unwrap();
    let mut seen = vec![calls().await];
    while seen.len() < 4 {
        let last = seen[seen.len() - 1];
        let body =
            agent.health_when("another round", |_, body| body["gpus"]["nvml_calls"] != last).await;
        seen.push(body["gpus"]["nvml_calls"].as_u64().unwrap());
    }
    // A poll may have slept through a round.
    seen.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap()
}
