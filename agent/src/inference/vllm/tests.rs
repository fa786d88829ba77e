#![allow(clippy::unwrap_used)]

use super::*;
use crate::signals::Status;

/// A page of vLLM 0.10 with two engines, shortened.
const PAGE: &str = r#"
# HELP python_gc_objects_collected_total Objects collected during gc
python_gc_objects_collected_total{generation="0"} 9892.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="meta-llama/Llama-3.1-8B"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B"} 2.0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B"} 0.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="meta-llama/Llama-3.1-8B"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="meta-llama/Llama-3.1-8B"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="meta-llama/Llama-3.1-8B"} 0.205
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_count{engine="0",model_name="meta-llama/Llama-3.1-8B"} 8.0
vllm:e2e_request_latency_seconds_sum{engine="0",model_name="meta-llama/Llama-3.1-8B"} 1.0
vllm:e2e_request_latency_seconds_count{engine="1",model_name="meta-llama/Llama-3.1-8B"} 2.0
vllm:e2e_request_latency_seconds_sum{engine="1",model_name="meta-llama/Llama-3.1-8B"} 0.5
# TYPE vllm:e2e_request_latency_seconds_created gauge
vllm:e2e_request_latency_seconds_created{engine="0",model_name="meta-llama/Llama-3.1-8B"} 1.7e+09
"#;

fn read(text: &str) -> Reading<Load> {
    Adapter::new(Duration::from_secs(30)).read(text, Duration::ZERO)
}

#[test]
fn a_page_is_read_over_all_engines() {
    let expected = Load {
        waiting: Some(2),
        running: Some(4),
        avg_latency_ms: Some(150.0),
        time_to_first_token_ms: Some(20.5),
    };
    assert_eq!(read(PAGE), Reading::ok(expected));
}

#[test]
fn latency_is_that_of_the_window() {
    let mut adapter = Adapter::new(Duration::from_secs(30));
    let page = |sum: f64, count: u32| {
        format!("{WAITING} 0\n{RUNNING} 0\n{LATENCY_SUM} {sum}\n{LATENCY_COUNT} {count}\n")
    };
    let mut latency = |at, sum, count| {
        let reading = adapter.read(&page(sum, count), Duration::from_secs(at));
        reading.value.unwrap().avg_latency_ms
    };
    assert_eq!(latency(0, 0.0, 0), None);
    assert_eq!(latency(1, 2.0, 10), Some(200.0));
    assert_eq!(latency(100, 2.0, 10), Some(200.0));
    assert_eq!(latency(131, 7.0, 20), Some(500.0));
}

#[test]
fn what_is_not_there_is_unknown_and_never_zero() {
    for (text, status, waiting, running, told) in [
        ("", Status::Missing, None, None, "none of vLLM's metrics"),
        ("<html>\n<p>vllm</p>\n", Status::Missing, None, None, "among the 2 lines"),
        ("vllm:num_requests_running 1", Status::Degraded, None, Some(1), WAITING),
        (
            "vllm:num_requests_running 1\nvllm:num_requests_waiting lots",
            Status::Degraded,
            None,
            Some(1),
            "is not a number in `vllm:num_requests_waiting lots`",
        ),
        (
            "vllm:num_requests_running -1\nvllm:num_requests_waiting 0",
            Status::Degraded,
            Some(0),
            None,
            "vllm:num_requests_running is -1",
        ),
        (
            "vllm:num_requests_running 0\nvllm:num_requests_waiting 0",
            Status::Ok,
            Some(0),
            Some(0),
            "vllm:e2e_request_latency_seconds_sum is not among the metrics",
        ),
    ] {
        let reading = read(text);
        let load = reading.value.unwrap_or_default();
        assert_eq!(reading.check.status, status, "{text}");
        assert_eq!((load.waiting, load.running), (waiting, running), "{text}");
        assert_eq!((load.avg_latency_ms, load.time_to_first_token_ms), (None, None), "{text}");
        assert!(reading.check.reason.unwrap().contains(told), "{text}");
    }
}
