//! `GET /metrics`: all that the agent knows, in the Prometheus text format. Pure. Names are a contract:
//! dashboards and alerts read them. What was not measured has no sample.

mod exposition;

use mrgc_fleet::model::{Health, Lifecycle};

pub(crate) use self::exposition::Exposition;
use crate::{
    enclave, gpu,
    process::Process,
    signals::{Heartbeats, Signals, Status},
    state::Snapshot,
};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that the snapshot tells.
pub(crate) fn text(snapshot: &Snapshot) -> String {
    let mut text = Exposition::default();
    instance(&mut text, snapshot);
    inference(&mut text, snapshot);
    if let Some(gpus) = &snapshot.signals.gpu.value {
        gpu::metrics::write(&mut text, gpus);
    }
    enclave::metrics::write(&mut text, snapshot.signals.enclave.value.as_ref());
    host(&mut text, &snapshot.signals);
    store(&mut text, &snapshot.signals);
    config(&mut text, snapshot);
    text.finish()
}

fn instance(text: &mut Exposition, snapshot: &Snapshot) {
    let registration = &snapshot.registration;
    let name = "mrgc_agent_info";
    text.family(name, "gauge", "Who this agent is; always 1.");
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("instance_id", registration.id.as_str()),
        ("region", registration.region.as_str()),
        ("zone", registration.zone.as_deref().unwrap_or_default()),
        ("pool", registration.pool.as_str()),
    ];
    text.labelled(name, &labels, 1);

    let name = "mrgc_agent_serving";
    text.family(name, "gauge", "1 while /health answers 200.");
    text.sample(name, "", u8::from(snapshot.is_serving()));
    let name = "mrgc_agent_health";
    text.family(name, "gauge", "1 for the health that the instance is in.");
    for health in [Health::Healthy, Health::Degraded, Health::Unhealthy] {
        let is_it = health == snapshot.assessment.health;
        text.labelled(name, &[("health", health.as_str())], u8::from(is_it));
    }
    let name = "mrgc_agent_lifecycle";
    text.family(name, "gauge", "1 for the lifecycle that the instance is in.");
    for lifecycle in Lifecycle::ALL {
        let is_it = lifecycle == snapshot.lifecycle;
        text.labelled(name, &[("lifecycle", lifecycle.as_str())], u8::from(is_it));
    }
    let name = "mrgc_agent_check";
    text.family(name, "gauge", "1 for the status in which a part of the machine was found.");
    for (part, check) in snapshot.assessment.checks.each() {
        for status in Status::ALL {
            let is_it = status == check.status;
            text.labelled(name, &[("check", part), ("status", status.as_str())], u8::from(is_it));
        }
    }
}

fn inference(text: &mut Exposition, snapshot: &Snapshot) {
    let load = snapshot.load();
    let models = snapshot.models().map(<[String]>::len);
    text.gauge("mrgc_agent_requests_waiting", "Requests that wait in the server.", load.waiting);
    text.gauge("mrgc_agent_requests_running", "Requests that the server works on.", load.running);
    text.gauge(
        "mrgc_agent_request_latency_seconds",
        "Of whole requests: the average of those that ended lately.",
        load.avg_latency_ms.map(|ms| ms / 1_000.0),
    );
    text.gauge(
        "mrgc_agent_time_to_first_token_seconds",
        "The average of the requests that ended lately.",
        load.time_to_first_token_ms.map(|ms| ms / 1_000.0),
    );
    text.gauge(
        "mrgc_agent_kv_cache_usage_ratio",
        "Of the inference server's cache, from 0 to 1.",
        load.kv_cache_usage,
    );
    text.gauge(
        "mrgc_agent_model_load_seconds",
        "How long the model that is ready took to load.",
        snapshot.model_load_ms().map(|ms| ms as f64 / 1_000.0),
    );
    text.gauge("mrgc_agent_models", "Models that the inference server serves.", models);
}

fn host(text: &mut Exposition, signals: &Signals) {
    let host = signals.host.value.as_ref();
    let load = |which: usize| Some(host?.load_average?[which]);
    text.gauge("mrgc_agent_host_cpus", "CPUs of this machine.", host.map(|h| h.cpus));
    text.gauge(
        "mrgc_agent_host_cpu_utilization_ratio",
        "Over all CPUs, from 0 to 1.",
        host.and_then(|h| h.cpu_utilization),
    );
    text.gauge(
        "mrgc_agent_host_memory_bytes",
        "Memory of this machine.",
        host.map(|h| h.memory_total_bytes),
    );
    text.gauge(
        "mrgc_agent_host_memory_available_bytes",
        "Memory that could be given out.",
        host.map(|h| h.memory_available_bytes),
    );
    text.gauge("mrgc_agent_host_load1", "Load average over 1 minute.", load(0));
    text.gauge("mrgc_agent_host_load5", "Load average over 5 minutes.", load(1));
    text.gauge("mrgc_agent_host_load15", "Load average over 15 minutes.", load(2));
}

fn store(text: &mut Exposition, signals: &Signals) {
    let link = &signals.store;
    let Heartbeats {
        interval_ms,
        written,
        skipped,
        failed,
        throttled,
        throttled_answers,
        retried_calls,
    } = link.heartbeats;
    let is_up = link.check.status == Status::Ok;
    let name = "mrgc_agent_store_up";
    text.family(name, "gauge", "1 while the store takes this agent's writes.");
    text.sample(name, "", u8::from(is_up));
    text.gauge("mrgc_agent_generation", "Of this agent's registration.", link.generation);
    let name = "mrgc_agent_heartbeats_total";
    text.family(name, "counter", "Heartbeats that were due, by what came of them.");
    for (outcome, count) in [
        ("written", written),
        ("skipped", skipped),
        ("throttled", throttled),
        ("failed", failed.saturating_sub(throttled)),
    ] {
        text.labelled(name, &[("outcome", outcome)], count);
    }
    let name = "mrgc_agent_heartbeat_interval_seconds";
    text.family(name, "gauge", "Between two heartbeats; it grows while the store throttles.");
    text.sample(name, "", interval_ms as f64 / 1_000.0);
    let name = "mrgc_agent_store_throttled_total";
    text.family(name, "counter", "Answers by which the store throttled, retries included.");
    text.sample(name, "", throttled_answers);
    let name = "mrgc_agent_store_retries_total";
    text.family(name, "counter", "Attempts at a call of the store after its first.");
    text.sample(name, "", retried_calls);
}

fn config(text: &mut Exposition, snapshot: &Snapshot) {
    let status = &snapshot.config;
    let name = "mrgc_agent_config_reloads_total";
    text.family(name, "counter", "Reloads of the configuration, by what came of them.");
    text.labelled(name, &[("outcome", "applied")], status.reloads);
    text.labelled(name, &[("outcome", "refused")], status.failed_reloads);
    let name = "mrgc_agent_config_last_reload_successful";
    text.family(name, "gauge", "0 while the last reload was refused.");
    text.sample(name, "", u8::from(status.error.is_none()));
    let name = "mrgc_agent_config_restart_needed";
    text.family(name, "gauge", "Keys that were changed and wait for a restart.");
    text.sample(name, "", status.restart_needed.len());
}

/// What belongs to the process and not to a snapshot: it is looked at for each scrape. The names without the
/// agent's prefix are those that Prometheus' own clients use.
pub(crate) fn of_process(process: Option<&Process>, refused_connections: u64) -> String {
    let mut text = Exposition::default();
    let name = "mrgc_agent_connections_refused_total";
    text.family(name, "counter", "Connections closed at once, since too many were open.");
    text.sample(name, "", refused_connections);
    if let Some(process) = process {
        let name = "process_cpu_seconds_total";
        text.family(name, "counter", "CPU time that the agent has used.");
        text.sample(name, "", process.cpu_seconds);
        text.gauge(
            "process_resident_memory_bytes",
            "Memory that the agent holds.",
            Some(process.resident_bytes),
        );
        text.gauge(
            "process_start_time_seconds",
            "When the agent started, since 1970.",
            Some(process.start_seconds),
        );
        text.gauge("process_open_fds", "Files that the agent has open.", process.open_files);
    }
    text.finish()
}

#[cfg(test)]
mod tests;
