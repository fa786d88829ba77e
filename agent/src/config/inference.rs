//! The inference server beside the agent: which it is, where it is, and how it is asked.

use std::time::Duration;

use mrgc_settings::Layers;
use serde::Deserialize;

use super::{
    check::{check_url, millis, seconds},
    raw,
};
use crate::inference::metrics::Selector;

/// Where the servers listen by default: vLLM, TensorRT-LLM, NIM, Triton and Ray Serve; SGLang; llama.cpp and
/// Ray's metrics; TGI; Triton's metrics; Ollama.
const PORTS: [u16; 6] = [8000, 30000, 8080, 3000, 8002, 11434];

/// More ports than these are no search but a scan.
const MAX_PORTS: usize = 32;

const DEFAULT_STALE_SECONDS: u64 = 15;

/// The inference server beside the agent.
#[derive(Clone, Debug)]
pub struct Inference {
    pub source: InferenceSource,
    pub required: bool,
    pub poll_interval: Duration,
    pub timeout: Duration,
    pub latency_window: Duration,
    /// Silent polls in a row after which it is down.
    pub silent_polls: u32,
}

/// How the agent knows about it.
#[derive(Clone, Debug)]
pub enum InferenceSource {
    /// The agent asks.
    Poll(Box<InferenceTarget>),
    /// It reports itself.
    Push {
        /// How long a report holds.
        stale_after: Duration,
    },
}

/// Whom the agent asks.
#[derive(Clone, Debug)]
pub struct InferenceTarget {
    pub kind: InferenceKind,
    /// As in `http://127.0.0.1:8000`, with no slash at the end; `None`: it is looked for at the ports.
    pub url: Option<String>,
    /// Its page of metrics; `None`: where such a server has it.
    pub metrics_url: Option<String>,
    /// Of this machine.
    pub ports: Vec<u16>,
    /// For [`InferenceKind::Generic`].
    pub metrics: Option<MetricNames>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InferenceKind {
    /// By what its pages contain.
    #[default]
    Auto,
    Vllm,
    Sglang,
    Tgi,
    /// Also with TensorRT-LLM behind it.
    Triton,
    /// `trtllm-serve`
    TensorrtLlm,
    Nim,
    Ollama,
    LlamaCpp,
    RayServe,
    /// Any other with a Prometheus page.
    Generic,
    /// One that reports itself.
    Push,
}

/// The metrics of a server that the agent does not know: `name` or `name{label="value"}`, summed over all series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricNames {
    pub waiting: Option<String>,
    pub running: Option<String>,
    /// Counters: of time, and of the requests that took it.
    pub latency_sum: Option<String>,
    pub latency_count: Option<String>,
    pub first_token_sum: Option<String>,
    pub first_token_count: Option<String>,
    /// Of both sums.
    pub latency_unit: TimeUnit,
    /// Between 0 and 1; of several, the highest counts.
    pub kv_cache_usage: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    #[default]
    Seconds,
    Milliseconds,
}

impl Inference {
    /// Whether the agent waits for what it says, instead of asking.
    pub fn reports_itself(&self) -> bool {
        matches!(self.source, InferenceSource::Push { .. })
    }

    /// The port that it listens on, as the routers reach it, too; `None`: it is not configured.
    pub fn port(&self) -> Option<u16> {
        let InferenceSource::Poll(target) = &self.source else { return None };
        reqwest::Url::parse(target.url.as_deref()?).ok()?.port_or_known_default()
    }
}

/// `None`: no inference server is configured.
pub(super) fn inference(layers: &mut Layers, raw: raw::Inference) -> Option<Inference> {
    let poll_interval =
        millis(layers, "inference.poll_interval_ms", raw.poll_interval_ms, 1_000, 50..=60_000);
    let timeout = millis(layers, "inference.timeout_ms", raw.timeout_ms, 2_000, 10..=60_000);
    let window = raw.latency_window_seconds;
    let latency_window = seconds(layers, "inference.latency_window_seconds", window, 30, 1..=3_600);
    let stale = raw.report_stale_seconds;
    let stale_after =
        seconds(layers, "inference.report_stale_seconds", stale, DEFAULT_STALE_SECONDS, 1..=3_600);
    let silent_polls = raw.silent_polls.unwrap_or(3);
    if silent_polls == 0 {
        layers.reject("inference.silent_polls", "is 0: choose 1 or more");
    }
    let required = raw.required;
    let source = if raw.kind == InferenceKind::Push {
        check_push(layers, &raw);
        Some(InferenceSource::Push { stale_after })
    } else {
        target(layers, raw).map(|target| InferenceSource::Poll(Box::new(target)))
    };
    if source.is_none() && required == Some(true) {
        let needs = "is true, and inference.url is not set: set it, or inference.detect";
        layers.reject("inference.required", needs);
    }
    Some(Inference {
        source: source?,
        required: required.unwrap_or(true),
        poll_interval,
        timeout,
        latency_window,
        silent_polls,
    })
}

/// A server that reports itself is not asked.
fn check_push(layers: &mut Layers, raw: &raw::Inference) {
    for (key, is_set) in [
        ("inference.url", raw.url.is_some()),
        ("inference.metrics_url", raw.metrics_url.is_some()),
        ("inference.detect", raw.detect),
        ("inference.metrics", raw.metrics.is_some()),
    ] {
        if is_set {
            layers.reject(key, "is set, and inference.kind is \"push\": leave one of them out");
        }
    }
}

/// `None` where there is neither a URL nor a search.
fn target(layers: &mut Layers, raw: raw::Inference) -> Option<InferenceTarget> {
    if raw.detect && raw.url.is_some() {
        layers
            .reject("inference.detect", "is true, and inference.url is set: leave one of them out");
    }
    for (key, url) in [("inference.url", &raw.url), ("inference.metrics_url", &raw.metrics_url)] {
        if let Some(url) = url {
            check_url(layers, key, url, &["http"]);
        }
    }
    if raw.metrics_url.is_some() && raw.url.is_none() {
        layers.reject("inference.metrics_url", "is set, and inference.url is not: set it");
    }
    let ports = raw.detect_ports.unwrap_or_else(|| PORTS.to_vec());
    if ports.is_empty() || ports.len() > MAX_PORTS || ports.contains(&0) {
        layers
            .reject("inference.detect_ports", format!("is {ports:?}: give 1 to {MAX_PORTS} ports"));
    }
    let kind = kind(layers, &raw.kind, raw.metrics.as_ref());
    if raw.url.is_none() && !raw.detect {
        if kind != InferenceKind::Auto {
            let needs =
                "is set, and the server's address is not: set inference.url or inference.detect";
            layers.reject("inference.kind", needs);
        }
        return None;
    }
    if kind == InferenceKind::Generic && raw.url.is_none() {
        layers.reject(
            "inference.detect",
            "cannot find a server of kind \"generic\": set inference.url",
        );
    }
    Some(InferenceTarget {
        kind,
        url: raw.url.map(|url| url.trim_end_matches('/').to_owned()),
        metrics_url: raw.metrics_url,
        ports,
        metrics: raw.metrics,
    })
}

/// Names of metrics make it a server of kind "generic", and one of that kind needs names.
fn kind(layers: &mut Layers, kind: &InferenceKind, metrics: Option<&MetricNames>) -> InferenceKind {
    let Some(metrics) = metrics else {
        if *kind == InferenceKind::Generic {
            layers.reject(
                "inference.metrics",
                "is missing: a server of kind \"generic\" needs names",
            );
        }
        return *kind;
    };
    if !matches!(kind, InferenceKind::Auto | InferenceKind::Generic) {
        layers
            .reject("inference.metrics", "is set: it goes with inference.kind = \"generic\" alone");
    }
    check_names(layers, metrics);
    InferenceKind::Generic
}

fn check_names(layers: &mut Layers, metrics: &MetricNames) {
    let names = [
        ("waiting", &metrics.waiting),
        ("running", &metrics.running),
        ("latency_sum", &metrics.latency_sum),
        ("latency_count", &metrics.latency_count),
        ("first_token_sum", &metrics.first_token_sum),
        ("first_token_count", &metrics.first_token_count),
        ("kv_cache_usage", &metrics.kv_cache_usage),
    ];
    for (field, name) in names {
        let key = format!("inference.metrics.{field}");
        if let Some(name) = name.as_deref().filter(|name| Selector::parse(name).is_none()) {
            let form = "give a metric's name, as in queue_depth or requests{state=\"waiting\"}";
            layers.reject(&key, format!("is \"{name}\": {form}"));
        }
    }
    if names.iter().all(|(_, name)| name.is_none()) {
        layers
            .reject("inference.metrics", "names nothing: give waiting, running or another metric");
    }
    for (sum, count, what) in [
        (&metrics.latency_sum, &metrics.latency_count, "latency"),
        (&metrics.first_token_sum, &metrics.first_token_count, "first_token"),
    ] {
        if sum.is_some() != count.is_some() {
            let key = format!("inference.metrics.{what}_sum");
            layers.reject(&key, format!("and {what}_count go together: set both or neither"));
        }
    }
}

#[cfg(test)]
mod tests;
