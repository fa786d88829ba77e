#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use super::*;

fn plain(source: &Source, detail: &Value) -> String {
    anstream::adapter::strip_str(&text(source, detail, 200_000)).to_string()
}

fn agent() -> Source {
    Source::Agent("127.0.0.1:8080".to_owned())
}

#[test]
fn everything_is_shown() {
    let detail = json!({
        "status": "degraded", "queue_depth": 2, "avg_latency_ms": 150.4, "lifecycle": "available",
        "instance": {
            "id": "i-1", "region": "us-east-1", "zone": "us-east-1a", "pool": "model-a",
            "agent_version": "0.1.0",
        },
        "checks": {
            "gpu": { "status": "degraded", "reason": "GPU 1 is hot" },
            "host": { "status": "ok", "reason": null },
        },
        "running": 3, "models": ["llama", "qwen"],
        "gpu": [
            {
                "index": 0, "name": "H100", "utilization": 0.354, "memory_used_bytes": 1_u64 << 30,
                "memory_total_bytes": 80_u64 << 30, "temperature_celsius": 41, "power_watts": 310.5,
                "fitness": "fit", "action": "none",
            },
            {
                "index": 1, "name": "H100", "utilization": null, "memory_used_bytes": null,
                "memory_total_bytes": 80_u64 << 30, "temperature_celsius": 91, "power_watts": null,
                "fitness": "degraded", "action": "reset_gpu",
            },
        ],
        "gpus": { "xids": [{
            "code": 63, "pci": "0000:5a:00", "name": "row remapping", "action": "none", "count": 2,
            "last_seen": 195_000,
        }] },
        "enclave": { "running": 1, "listed": 2 },
        "host": { "cpus": 192, "cpu_utilization": 0.125, "memory_available_bytes": 3_u64 << 30 },
        "heartbeats": { "written": 12, "skipped": 3, "failed": 0 },
        "config": { "error": "agent.toml:3: gpu.interval_ms: is 1", "restart_needed": ["listen"] },
        "changes": [
            { "at": 80_000, "what": "checks.gpu", "from": "ok", "to": "degraded", "reason": "hot" },
        ],
    });
    assert_eq!(
        plain(&agent(), &detail),
        "\
i-1 in us-east-1a, pool model-a
available, degraded, says mrgc-agent 0.1.0 at 127.0.0.1:8080

CHECK  STATUS    REASON
gpu    degraded  GPU 1 is hot
host   ok

GPU  NAME  FITNESS   ACTION     USE   MEMORY           TEMPERATURE  POWER
0    H100  fit                  35 %  1.0 of 80.0 GiB  41 °C        310 W
1    H100  degraded  reset gpu                         91 °C

XID  GPU AT      NAME           COUNT  LAST
63   0000:5a:00  row remapping  2      5 s ago

ALSO
requests         3 running, 2 waiting, 150 ms on average
models           llama, qwen
enclaves         1 running, 2 listed
host             192 CPUs, 12 % used, 3.0 GiB of memory free
heartbeats       12 written, 3 not needed, 0 failed
reload refused   agent.toml:3: gpu.interval_ms: is 1
needs a restart  listen

LATELY     WHAT        FROM  TO        REASON
2 min ago  checks.gpu  ok    degraded  hot
"
    );
}

#[test]
fn an_agent_that_says_little_is_shown_as_far_as_it_goes() {
    let detail = json!({ "status": "healthy", "checks": {} });
    assert!(plain(&agent(), &detail).contains("healthy, says mrgc-agent"));
    let look = Source::Look(SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert!(plain(&look, &detail).contains("no agent listens at 127.0.0.1:8080"));
}

#[test]
fn what_is_bad_is_red() {
    let detail = json!({ "checks": { "gpu": { "status": "error", "reason": null } } });
    let shown = text(&agent(), &detail, 0);
    assert!(shown.contains(&format!("{}error", BAD.render())), "{shown:?}");
}

#[test]
fn ages_are_short() {
    for (seconds, expected) in [
        (0, "0 s ago"),
        (99, "99 s ago"),
        (100, "1 min ago"),
        (5_999, "99 min ago"),
        (6_000, "1 h ago"),
        (172_800, "2 days ago"),
    ] {
        assert_eq!(ago(1_000, 1_000 + seconds * 1_000), expected);
    }
    assert_eq!(ago(5_000, 1_000), "0 s ago", "a clock that was set back");
}
