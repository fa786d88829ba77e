#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::InferenceKind as Kind;

const WINDOW: Duration = Duration::from_secs(30);

fn adapter(kind: Kind) -> Adapter {
    Adapter::of(servers::of(kind).unwrap(), WINDOW)
}

fn read_at(adapter: &mut Adapter, text: &str, second: u64) -> Reading<Load> {
    let mut reader = adapter.reader();
    reader.push(text.as_bytes());
    adapter.read(&reader.finish(), Duration::from_secs(second))
}

fn read(kind: Kind, text: &str) -> Reading<Load> {
    read_at(&mut adapter(kind), text, 0)
}

#[test]
fn each_server_is_read_in_its_own_words() {
    macro_rules! page {
        ($name:literal) => {
            include_str!(concat!("../../../tests/pages/", $name, ".prom"))
        };
    }
    type Numbers = (Option<u32>, Option<u32>, Option<f64>, Option<f64>, Option<f64>);
    let table: [(Kind, &str, Numbers); 11] = [
        // Waiting, running, latency and time to first token in milliseconds, KV cache.
        (Kind::Vllm, page!("vllm"), (Some(2), Some(7), Some(150.0), Some(40.0), Some(0.5))),
        (Kind::Vllm, page!("vllm_v0"), (Some(6), Some(8), Some(1500.0), Some(50.0), Some(0.75))),
        (Kind::Sglang, page!("sglang"), (Some(10), Some(6), Some(2000.0), Some(60.0), Some(0.28))),
        (Kind::Tgi, page!("tgi"), (Some(7), Some(16), Some(900.0), None, None)),
        (Kind::Triton, page!("triton"), (Some(4), None, Some(40.0), None, None)),
        (
            Kind::Triton,
            page!("triton_trtllm"),
            (Some(7), Some(13), Some(2000.0), Some(150.0), Some(0.8)),
        ),
        (
            Kind::TensorrtLlm,
            page!("tensorrt_llm"),
            (Some(4), Some(10), Some(800.0), Some(25.0), Some(0.62)),
        ),
        (Kind::Nim, page!("nim"), (Some(3), Some(11), Some(2500.0), Some(200.0), Some(0.4))),
        (Kind::LlamaCpp, page!("llama_cpp"), (Some(46), Some(4), None, None, None)),
        (Kind::RayServe, page!("ray_serve"), (Some(2), Some(7), Some(350.0), None, None)),
        (
            Kind::RayServe,
            page!("ray_serve_llm"),
            (Some(3), Some(5), Some(800.0), Some(50.0), Some(0.9)),
        ),
    ];
    for (kind, page, expected) in table {
        let reading = read(kind, page);
        let load = reading.value.unwrap();
        let numbers = (
            load.waiting,
            load.running,
            load.avg_latency_ms,
            load.time_to_first_token_ms,
            load.kv_cache_usage,
        );
        assert_eq!(numbers, expected, "{kind:?}");
        assert_eq!(reading.check.status, Status::Ok, "{kind:?}: {:?}", reading.check.reason);
        // Whatever is null has its reason.
        let has_null =
            [load.avg_latency_ms, load.time_to_first_token_ms, load.kv_cache_usage].contains(&None);
        assert_eq!(reading.check.reason.is_some(), has_null, "{kind:?}");
    }
}

const WAITING: &str = "vllm:num_requests_waiting";
const RUNNING: &str = "vllm:num_requests_running";

#[test]
fn what_is_not_there_is_unknown_and_never_zero() {
    for (text, status, waiting, running, told) in [
        ("", Status::Missing, None, None, "none of the metrics of vLLM is among the 0 lines"),
        ("<html>\n<p>vllm</p>\n", Status::Missing, None, None, "among the 2 lines"),
        (
            "vllm:num_requests_running 1\n",
            Status::Degraded,
            None,
            Some(1),
            "vllm:num_requests_waiting is not among",
        ),
        (
            "process_start_time_seconds 1.7e9\n",
            Status::Missing,
            None,
            None,
            "none of the metrics of vLLM",
        ),
        (
            "vllm:num_requests_running 1\nvllm:num_requests_swapped 3\n",
            Status::Degraded,
            None,
            Some(1),
            "vllm:num_requests_waiting is not among",
        ),
        (
            "vllm:num_requests_running 1\nvllm:num_requests_waiting lots\n",
            Status::Degraded,
            None,
            Some(1),
            "vllm:num_requests_waiting is not a number in `vllm:num_requests_waiting lots`",
        ),
        (
            "vllm:num_requests_running -1\nvllm:num_requests_waiting 0\n",
            Status::Degraded,
            Some(0),
            None,
            "vllm:num_requests_running is -1",
        ),
        (
            "vllm:num_requests_running NaN\nvllm:num_requests_waiting 1e300\n",
            Status::Degraded,
            None,
            None,
            "no number of requests; vllm:num_requests_running is NaN",
        ),
        (
            "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 55\n",
            Status::Ok,
            Some(0),
            Some(0),
            "latency: vllm:e2e_request_latency_seconds_sum is not among the metrics; time to first token: \
             vllm:time_to_first_token_seconds_sum is not among the metrics; vllm:kv_cache_usage_perc is 55: more than all",
        ),
    ] {
        let reading = read(Kind::Vllm, text);
        let load = reading.value.unwrap_or_default();
        assert_eq!(reading.check.status, status, "{text}");
        assert_eq!((load.waiting, load.running), (waiting, running), "{text}");
        assert_eq!((load.avg_latency_ms, load.kv_cache_usage), (None, None), "{text}");
        let reason = reading.check.reason.unwrap();
        assert!(reason.contains(told), "{text}: {reason}");
    }
}

#[test]
fn a_server_that_has_not_served_yet_is_no_defect() {
    // SGLang shows its gauges with the first batch, and constants before it.
    let reading = read(Kind::Sglang, "sglang:max_total_num_tokens{model_name=\"m\"} 442368\n");
    assert_eq!((reading.value, reading.check.status), (Some(Load::default()), Status::Ok));
    assert!(reading.check.reason.unwrap().contains("sglang:num_queue_reqs"));
    // A page of something else is none of its.
    assert_eq!(read(Kind::Sglang, "up 1\n").check.status, Status::Missing);
    // What is there must be right all the same.
    let reading = read(Kind::Sglang, "sglang:num_queue_reqs x\n");
    assert_eq!(reading.check.status, Status::Degraded);
}

#[test]
fn latency_is_that_of_the_window() {
    let mut adapter = adapter(Kind::Vllm);
    let mut latency = |second, sum: f64, count: u32| {
        let name = "vllm:e2e_request_latency_seconds";
        let page = format!("{WAITING} 0\n{RUNNING} 0\n{name}_sum {sum}\n{name}_count {count}\n");
        read_at(&mut adapter, &page, second).value.unwrap().avg_latency_ms
    };
    assert_eq!(latency(0, 0.0, 0), None);
    assert_eq!(latency(1, 2.0, 10), Some(200.0));
    assert_eq!(latency(100, 2.0, 10), Some(200.0));
    assert_eq!(latency(131, 7.0, 20), Some(500.0));
    // It restarted, and has finished one request since; before it has, nothing is known.
    assert_eq!(latency(132, 0.0, 0), None);
    assert_eq!(latency(133, 3.0, 1), Some(3000.0));
}

#[test]
fn a_histogram_without_its_counts_says_nothing() {
    let name = "vllm:time_to_first_token_seconds";
    for (lines, told) in [
        (format!("{name}_sum 3\n"), format!("{name}_count is not among the metrics")),
        (format!("{name}_count 3\n"), format!("{name}_sum is not among the metrics")),
        (format!("{name}_bucket{{le=\"1\"}} 3\n"), format!("{name}_sum is not among the metrics")),
        (format!("{name}_sum 3\n{name}_count NaN\n"), format!("{name}_count is NaN")),
        (
            format!("{name}_sum{{a=\"1\"}} 3\n{name}_count{{a=\"2\"}} 1\n"),
            "not of the same series".to_owned(),
        ),
        (
            format!("{name}_sum 0\n{name}_count 0\n"),
            "time to first token: nothing was measured yet".to_owned(),
        ),
    ] {
        let reading = read(Kind::Vllm, &format!("{WAITING} 0\n{RUNNING} 0\n{lines}"));
        assert_eq!(reading.value.unwrap().time_to_first_token_ms, None, "{lines}");
        assert_eq!(reading.check.status, Status::Ok, "{lines}");
        let reason = reading.check.reason.unwrap();
        assert!(reason.contains(&told), "{lines}: {reason}");
    }
}

#[test]
fn names_can_be_configured() {
    let names = MetricNames {
        waiting: Some("jobs{state=\"queued\"}".to_owned()),
        running: Some("jobs{state=\"busy\"}".to_owned()),
        latency_sum: Some("job_ms_total".to_owned()),
        latency_count: Some("jobs_total".to_owned()),
        latency_unit: TimeUnit::Milliseconds,
        ..MetricNames::default()
    };
    let mut adapter = Adapter::configured(&names, WINDOW);
    let page = "jobs{gpu=\"0\",state=\"queued\"} 3\njobs{gpu=\"1\",state=\"queued\"} 1\n\
                jobs{gpu=\"0\",state=\"busy\"} 2\njob_ms_total 900\njobs_total 3\n";
    let load = read_at(&mut adapter, page, 0).value.unwrap();
    assert_eq!((load.waiting, load.running, load.avg_latency_ms), (Some(4), Some(2), Some(300.0)));

    let reading = read_at(&mut adapter, "jobs{state=\"queued\"} 3\n", 1);
    assert_eq!(reading.check.status, Status::Degraded, "what was configured is expected");
    assert_eq!(read_at(&mut adapter, "up 1\n", 2).check.status, Status::Missing);
}

#[test]
fn the_process_says_when_it_started() {
    let adapter = adapter(Kind::Vllm);
    let started = |text: &str| {
        let mut reader = adapter.reader();
        reader.push(text.as_bytes());
        process_start(&reader.finish())
    };
    assert_eq!(started("process_start_time_seconds 1.7e9\n"), Some(1.7e9));
    assert_eq!(started("process_start_time_seconds x\n"), None);
    assert_eq!(started("up 1\n"), None);
}
