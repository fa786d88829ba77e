//! Inference servers: how they are found, followed and believed. Each is a real HTTP server with the pages of its
//! kind; the pages of metrics are in `tests/pages`.

mod kinds;
mod pages;

use std::{
    fs,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::pages::{OPENAI, PageServer, captured, ok, vllm};
use crate::support::{Agent, Engine, Setup};

fn setup(settings: &[(&str, &str)]) -> Setup {
    let named =
        settings.iter().map(|(key, value)| (format!("MRGC_AGENT__INFERENCE__{key}"), *value));
    let named: Vec<(String, &str)> = named.collect();
    let settings: Vec<(&str, &str)> = named.iter().map(|(key, value)| (&**key, *value)).collect();
    Setup::new().with(&[("MRGC_AGENT__INFERENCE__POLL_INTERVAL_MS", "50")]).with(&settings)
}

fn inference_says(body: &Value, told: &str) -> bool {
    body["checks"]["inference"]["reason"].as_str().is_some_and(|reason| reason.contains(told))
}

#[tokio::test]
async fn the_server_is_found_at_its_port_and_again_at_another() {
    let (first, second) = (PageServer::start(vllm(2)).await, PageServer::start(Vec::new()).await);
    let ports = format!("{},{}", first.port, second.stop().await);
    let agent = setup(&[("DETECT", "true"), ("DETECT_PORTS", &ports)]).start().await;
    let body = agent.health_when("found", |_, body| body["queue_depth"] == 2).await;
    assert_eq!((&body["inference_server"], &body["status"]), (&json!("vLLM"), &json!("healthy")));

    let port = first.stop().await;
    let body = agent.health_when("gone", |_, body| body["inference_server"].is_null()).await;
    assert_eq!((&body["queue_depth"], &body["status"]), (&Value::Null, &json!("unhealthy")));
    // It comes back as another kind of server.
    let again = PageServer::start_at(
        port,
        vec![ok("/metrics", &captured("sglang")), ok("/v1/models", OPENAI)],
    )
    .await;
    agent
        .health_when("found again", |_, body| {
            body["inference_server"] == "SGLang" && body["queue_depth"] == 10
        })
        .await;
    drop(again);
}

#[tokio::test]
async fn metrics_are_read_by_names_that_are_configured() {
    let page = "jobs{state=\"queued\"} 3\njobs{state=\"busy\"} 2\nmy_ms_total 900\nmy_total 3\n";
    let it = PageServer::start(vec![ok("/stats", page), ok("/v1/models", OPENAI)]).await;
    let metrics_url = format!("{}/stats", it.url);
    let agent = setup(&[("URL", &it.url), ("METRICS_URL", &metrics_url)])
        .file(
            "[inference]\nkind = \"generic\"\n[inference.metrics]\nwaiting = 'jobs{state=\"queued\"}'\n\
             running = 'jobs{state=\"busy\"}'\nlatency_sum = \"my_ms_total\"\nlatency_count = \"my_total\"\n\
             latency_unit = \"milliseconds\"\n",
        )
        .start()
        .await;
    let body = agent.health_when("read", |_, body| body["queue_depth"] == 3).await;
    assert_eq!((&body["running"], &body["avg_latency_ms"]), (&json!(2), &json!(300.0)));
}

#[tokio::test]
async fn bad_pages_are_told_and_pass() {
    let it = PageServer::start(vllm(2)).await;
    let agent = setup(&[("URL", &it.url), ("KIND", "vllm")]).start().await;
    agent.health_when("read", |_, body| body["queue_depth"] == 2).await;
    let peak_before = peak_memory_bytes(&agent);
    let metrics = |body: &str| vec![ok("/metrics", body), ok("/v1/models", OPENAI)];
    for (case, page, told, queue_depth) in [
        ("garbage", "\u{0}\u{1}%PDF-1.7\n".repeat(100), "none of the metrics of vLLM", Value::Null),
        (
            "10 MB",
            format!("x{{a=\"{}\"}} 1\n", "b".repeat(190)).repeat(50_000),
            "/metrics is larger than 4194304 bytes",
            Value::Null,
        ),
        (
            "a line without end",
            format!("vllm:num_requests_waiting {}", "1".repeat(1 << 20)),
            "is not a number",
            Value::Null,
        ),
        (
            "cut off",
            "vllm:num_requests_running 1\nvllm:num_requests_waiting 1".to_owned(),
            "is not a number",
            Value::Null,
        ),
        (
            "not a number",
            "vllm:num_requests_running 1\nvllm:num_requests_waiting NaN\n".to_owned(),
            "is NaN",
            Value::Null,
        ),
        (
            "negative",
            "vllm:num_requests_running 1\nvllm:num_requests_waiting -3\n".to_owned(),
            "is -3",
            Value::Null,
        ),
        (
            "huge",
            "vllm:num_requests_running 1\nvllm:num_requests_waiting 1e300\n".to_owned(),
            "no number of requests",
            Value::Null,
        ),
        (
            "without counts",
            format!("{}vllm:e2e_request_latency_seconds_sum 3\n", vllm(4)[0].2),
            "_count is not among the metrics",
            json!(4),
        ),
        ("twice", vllm(5)[0].2.repeat(2), "latency: ", json!(5)),
    ] {
        it.show(metrics(&page));
        let body = agent
            .health_when(case, |_, body| {
                inference_says(body, told) && body["queue_depth"] == queue_depth
            })
            .await;
        assert_eq!(body["model_loaded"], true, "{case}");
    }
    it.show(vllm(7));
    agent.health_when("well again", |_, body| body["queue_depth"] == 7).await;
    let grown = peak_memory_bytes(&agent) - peak_before;
    assert!(grown < 8 << 20, "{grown} bytes more for pages of at most 4 MiB, which are not kept");
}

/// The most memory that the agent ever had.
fn peak_memory_bytes(agent: &Agent) -> u64 {
    let pid = agent.child.id().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

#[tokio::test]
async fn a_restart_begins_the_average_again() {
    let page = |sum: f64, count: u32| {
        let name = "vllm:e2e_request_latency_seconds";
        let metrics = format!("{}{name}_sum {sum}\n{name}_count {count}\n", vllm(0)[0].2);
        vec![ok("/metrics", &metrics), ok("/v1/models", OPENAI)]
    };
    let it = PageServer::start(page(1_000.0, 1_000)).await;
    let agent = setup(&[("URL", &it.url), ("KIND", "vllm")]).start().await;
    agent.health_when("over all", |_, body| body["avg_latency_ms"] == 1000.0).await;
    it.show(page(0.0, 0));
    agent.health_when("a new server", |_, body| body["avg_latency_ms"].is_null()).await;
    it.show(page(8.0, 2));
    agent.health_when("its own average", |_, body| body["avg_latency_ms"] == 4000.0).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Connections are accepted by the system, and nobody answers them.
    let agent = setup(&[("URL", &url), ("KIND", "vllm"), ("TIMEOUT_MS", "100")]).start().await;
    let body =
        agent.health_when("silent", |_, body| inference_says(body, "did not answer in time")).await;
    assert_eq!((&body["queue_depth"], &body["status"]), (&Value::Null, &json!("unhealthy")));
    drop(listener);
}

#[tokio::test]
async fn a_server_may_report_itself() {
    let agent = setup(&[("KIND", "push"), ("REPORT_STALE_SECONDS", "1")]).start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let report = async |body: String| {
        let url = format!("http://{}/report", agent.address);
        let response = http.post(url).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let valid = json!({"queue_depth": 3, "running": 2, "avg_latency_ms": 81.5, "models": ["m"]})
        .to_string();
    assert_eq!(report(valid).await, (204, String::new()));
    let body = agent.health_when("reported", |_, body| body["queue_depth"] == 3).await;
    assert_eq!(
        (&body["running"], &body["models"], &body["status"]),
        (&json!(2), &json!(["m"]), &json!("healthy"))
    );

    for (body, code, told) in [
        (r#"{"queue":1}"#.to_owned(), 400, "unknown field `queue`"),
        (r#"{"avg_latency_ms":-1}"#.to_owned(), 400, "give 0 or more"),
        ("{".to_owned(), 400, "EOF"),
        (format!("{{\"models\":[\"{}\"]}}", "m".repeat(70_000)), 413, "at most 65536 bytes"),
    ] {
        let (answered, problem) = report(body).await;
        assert_eq!(answered, code, "{problem}");
        assert!(problem.contains(told), "{problem}");
    }
    let body = agent
        .health_when("stale", |_, body| inference_says(body, "has not reported for 1 s"))
        .await;
    assert_eq!((&body["queue_depth"], &body["status"]), (&Value::Null, &json!("degraded")));
}

#[tokio::test]
async fn nobody_reports_to_an_agent_that_asks() {
    let agent = Setup::new().start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/report", agent.address);
    let response = http.post(&url).body(r#"{"running":1}"#).send().await.unwrap();
    assert_eq!(response.status(), 409);
    assert!(response.text().await.unwrap().contains("inference.kind"));
    let asked = http.get(&url).send().await.unwrap();
    assert_eq!(
        (asked.status().as_u16(), asked.headers()["allow"].to_str().unwrap()),
        (405, "POST")
    );
}

#[tokio::test]
async fn the_models_load_is_timed_and_reported() {
    let store = Engine::start().await;
    let loading = vec![ok("/v1/models", OPENAI), ("/health", 503, String::new())];
    let it = PageServer::start(loading).await;
    let agent = setup(&[("URL", &it.url), ("KIND", "vllm")]).store(&store).start().await;
    let body = agent.health_when("loading", |_, body| body["model_loaded"] == false).await;
    assert_eq!((&body["status"], &body["model_load_ms"]), (&json!("unhealthy"), &Value::Null));
    assert!(body["checks"]["model"]["reason"].as_str().unwrap().contains("/health answered 503"));

    // Its process has been running for 40 s when the model is there.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let started = (now - Duration::from_secs(40)).as_secs_f64();
    let mut ready = vllm(0);
    ready[0].2 += &format!("process_start_time_seconds {started}\n");
    it.show(ready);
    let body = agent.health_when("loaded", |_, body| body["model_loaded"] == true).await;
    let load_ms = body["model_load_ms"].as_u64().unwrap();
    assert!((40_000..70_000).contains(&load_ms), "{load_ms}");
    let report = store.report_when("reported", |report| report.model_load_ms.is_some()).await;
    assert_eq!(report.model_load_ms, Some(load_ms));
}
