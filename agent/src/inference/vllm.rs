//! What vLLM's metrics say. Names as of vLLM 0.6 to 0.11 (`vllm/v1/metrics/loggers.py`).

use std::time::Duration;

use super::{
    metrics::{self, Sums},
    window::Average,
};
use crate::signals::{Check, Load, Reading};

const WAITING: &str = "vllm:num_requests_waiting";
const RUNNING: &str = "vllm:num_requests_running";
const LATENCY_SUM: &str = "vllm:e2e_request_latency_seconds_sum";
const LATENCY_COUNT: &str = "vllm:e2e_request_latency_seconds_count";
const FIRST_TOKEN_SUM: &str = "vllm:time_to_first_token_seconds_sum";
const FIRST_TOKEN_COUNT: &str = "vllm:time_to_first_token_seconds_count";

const NAMES: [&str; 6] =
    [WAITING, RUNNING, LATENCY_SUM, LATENCY_COUNT, FIRST_TOKEN_SUM, FIRST_TOKEN_COUNT];

/// Reads one vLLM server's metrics, scrape after scrape.
#[derive(Debug)]
pub(super) struct Adapter {
    latency: Average,
    first_token: Average,
}

impl Adapter {
    pub(super) fn new(window: Duration) -> Self {
        Self { latency: Average::over(window), first_token: Average::over(window) }
    }

    /// The load in the text of `/metrics`, scraped at `at` since the agent's start.
    pub(super) fn read(&mut self, text: &str, at: Duration) -> Reading<Load> {
        let sums = metrics::sum(text, &NAMES);
        if sums == Sums::default() {
            let lines = text.lines().count();
            return Reading::missing(format!(
                "none of vLLM's metrics is among the {lines} lines of /metrics"
            ));
        }
        let (waiting, running) = (number(&sums, WAITING), number(&sums, RUNNING));
        let latency = average(&mut self.latency, at, &sums, [LATENCY_SUM, LATENCY_COUNT]);
        let first_token =
            average(&mut self.first_token, at, &sums, [FIRST_TOKEN_SUM, FIRST_TOKEN_COUNT]);

        // Latencies do not decide whether the server is fit: what is not known of them is said, no more.
        let check = match reasons(&[waiting.as_ref().err(), running.as_ref().err()]) {
            Some(reason) => Check::degraded(reason),
            None => {
                let reason = reasons(&[latency.as_ref().err(), first_token.as_ref().err()]);
                Check { reason, ..Check::ok() }
            }
        };
        let load = Load {
            waiting: waiting.ok().map(requests),
            running: running.ok().map(requests),
            avg_latency_ms: latency.ok(),
            time_to_first_token_ms: first_token.ok(),
        };
        Reading::noted(load, check)
    }
}

fn reasons(reasons: &[Option<&String>]) -> Option<String> {
    let told: Vec<&str> = reasons.iter().flatten().map(|reason| reason.as_str()).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// A metric that can only be 0 or more.
fn number(sums: &Sums, name: &'static str) -> Result<f64, String> {
    match (sums.values.get(name), sums.garbled.get(name)) {
        (Some(value), _) if *value >= 0.0 => Ok(*value),
        (Some(value), _) => Err(format!("{name} is {value}")),
        (None, Some(line)) => Err(format!("{name} is not a number in `{line}`")),
        (None, None) => Err(format!("{name} is not among the metrics")),
    }
}

/// A gauge of requests; what is beyond `u32` is as good as its end.
fn requests(gauge: f64) -> u32 {
    gauge.round() as u32
}

/// A histogram's average over the window, in milliseconds.
fn average(
    average: &mut Average,
    at: Duration,
    sums: &Sums,
    [sum, count]: [&'static str; 2],
) -> Result<f64, String> {
    let seconds = average
        .add(at, number(sums, sum)?, number(sums, count)?)
        .ok_or_else(|| format!("{count} is 0: nothing was measured yet"))?;
    // To a microsecond: what is beyond is noise that only makes reports longer.
    Ok((seconds * 1e6).round() / 1e3)
}

#[cfg(test)]
mod tests;
