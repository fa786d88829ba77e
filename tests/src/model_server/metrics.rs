//! The metrics an agent reads, under vLLM's names and with vLLM's buckets.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::state::State;

/// Bucket bounds of `vllm:e2e_request_latency_seconds`, in seconds.
pub(super) const E2E_BOUNDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// Bucket bounds of `vllm:time_to_first_token_seconds`, in seconds.
pub(super) const TTFT_BOUNDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];

/// A Prometheus histogram that many threads record into.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// Not cumulative; one more than `bounds`, the last for what is above them all.
    buckets: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_us: AtomicU64::new(0) }
    }

    pub(super) fn record(&self, value: Duration) {
        let seconds = value.as_secs_f64();
        let index = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[index].fetch_add(1, Relaxed);
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, model: &str) -> std::fmt::Result {
        writeln!(out, "# TYPE {name} histogram")?;
        let mut count = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            match self.bounds.get(index) {
                Some(le) => {
                    writeln!(out, "{name}_bucket{{le=\"{le:?}\",model_name=\"{model}\"}} {count}")?;
                }
                None => {
                    writeln!(out, "{name}_bucket{{le=\"+Inf\",model_name=\"{model}\"}} {count}")?;
                }
            }
        }
        let sum = Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64();
        writeln!(out, "{name}_count{{model_name=\"{model}\"}} {count}")?;
        writeln!(out, "{name}_sum{{model_name=\"{model}\"}} {sum}")
    }
}

/// The whole `/metrics` page, in Prometheus's text format.
pub(super) fn page(state: &State) -> String {
    let mut out = String::with_capacity(8 * 1024);
    // Writing into a `String` cannot fail.
    let _ = render(state, &mut out);
    out
}

fn render(state: &State, out: &mut String) -> std::fmt::Result {
    let model = escape(&state.model);
    let counters = state.counters();
    let values = [
        ("vllm:num_requests_running", "gauge", counters.running as f64),
        ("vllm:num_requests_waiting", "gauge", counters.waiting as f64),
        (
            "vllm:kv_cache_usage_perc",
            "gauge",
            counters.running as f64 / state.slots_total.max(1) as f64,
        ),
    ];
    for (name, kind, value) in values {
        writeln!(out, "# TYPE {name} {kind}\n{name}{{model_name=\"{model}\"}} {value:?}")?;
    }
    writeln!(out, "# TYPE vllm:request_success_total counter")?;
    writeln!(
        out,
        "vllm:request_success_total{{finished_reason=\"stop\",model_name=\"{model}\"}} {}",
        counters.completed
    )?;
    state.ttft.render(out, "vllm:time_to_first_token_seconds", &model)?;
    state.e2e.render(out, "vllm:e2e_request_latency_seconds", &model)
}

/// Escapes a label's value as the text format asks.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
