//! Every kind of server: what it says is what `/health?detail` says.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    pages::{OPENAI, Page, PageServer, captured, ok},
    setup,
};

/// A server of each kind.
struct Case {
    server: &'static str,
    /// `inference.kind`, where it is not found out.
    kind: Option<&'static str>,
    pages: Vec<Page>,
    /// Waiting, running, latency, time to first token, models.
    expected: [Value; 5],
}

fn case(server: &'static str, pages: Vec<Page>, expected: [Value; 5]) -> Case {
    Case { server, kind: None, pages, expected }
}

/// With these metrics at a path, and a list of models.
fn with_metrics(path: &'static str, page: &str) -> Vec<Page> {
    vec![ok(path, &captured(page)), ok("/v1/models", OPENAI)]
}

fn triton(page: &str) -> Vec<Page> {
    vec![
        ok("/metrics", &captured(page)),
        ok("/v2/health/ready", ""),
        ok("/v2/repository/index", r#"[{"name":"m","version":"1","state":"READY"}]"#),
    ]
}

/// Those of the data centre, by their metrics.
fn engines() -> Vec<Case> {
    vec![
        case(
            "vLLM",
            with_metrics("/metrics", "vllm"),
            [json!(2), json!(7), json!(150.0), json!(40.0), json!(["m"])],
        ),
        case(
            "vLLM",
            with_metrics("/metrics", "vllm_v0"),
            [json!(6), json!(8), json!(1500.0), json!(50.0), json!(["m"])],
        ),
        case(
            "SGLang",
            with_metrics("/metrics", "sglang"),
            [json!(10), json!(6), json!(2000.0), json!(60.0), json!(["m"])],
        ),
        case(
            "TGI",
            vec![
                ok("/metrics", &captured("tgi")),
                ok("/health", ""),
                ok("/info", r#"{"model_id":"m"}"#),
            ],
            [json!(7), json!(16), json!(900.0), Value::Null, json!(["m"])],
        ),
        case(
            "Triton",
            triton("triton"),
            [json!(4), Value::Null, json!(40.0), Value::Null, json!(["m"])],
        ),
        case(
            "Triton",
            triton("triton_trtllm"),
            [json!(7), json!(13), json!(2000.0), json!(150.0), json!(["m"])],
        ),
        case(
            "TensorRT-LLM",
            with_metrics("/prometheus/metrics", "tensorrt_llm"),
            [json!(4), json!(10), json!(800.0), json!(25.0), json!(["m"])],
        ),
        case(
            "NIM",
            with_metrics("/v1/metrics", "nim"),
            [json!(3), json!(11), json!(2500.0), json!(200.0), json!(["m"])],
        ),
    ]
}

/// Those with pages of their own kind.
fn others() -> Vec<Case> {
    let slots = r#"[{"id":0,"is_processing":true},{"id":1,"is_processing":false}]"#;
    let tags = r#"{"models":[{"name":"m","size":1}]}"#;
    vec![
        case(
            "llama.cpp",
            with_metrics("/metrics", "llama_cpp"),
            [json!(46), json!(4), Value::Null, Value::Null, json!(["m"])],
        ),
        Case {
            kind: Some("llama-cpp"),
            ..case(
                "llama.cpp",
                vec![
                    ("/metrics", 501, String::new()),
                    ok("/slots", slots),
                    ok("/v1/models", OPENAI),
                ],
                [Value::Null, json!(1), Value::Null, Value::Null, json!(["m"])],
            )
        },
        case(
            "Ray Serve",
            vec![
                ok("/metrics", &captured("ray_serve_llm")),
                ok("/-/routes", r#"{"/":"llm"}"#),
                ok("/v1/models", OPENAI),
            ],
            [json!(3), json!(5), json!(800.0), json!(50.0), json!(["m"])],
        ),
        case(
            "Ray Serve",
            vec![ok("/metrics", &captured("ray_serve")), ok("/-/routes", r#"{"/":"m"}"#)],
            [json!(2), json!(7), json!(350.0), Value::Null, json!(["m"])],
        ),
        case(
            "Ollama",
            vec![ok("/api/ps", r#"{"models":[]}"#), ok("/api/tags", tags)],
            [Value::Null, Value::Null, Value::Null, Value::Null, json!(["m"])],
        ),
    ]
}

#[tokio::test]
async fn every_server_is_understood() {
    let mut checks = JoinSet::new();
    for Case { server, kind, pages, expected } in engines().into_iter().chain(others()) {
        checks.spawn(async move {
            let it = PageServer::start(pages).await;
            let setup = setup(&[("URL", &it.url), ("KIND", kind.unwrap_or("auto"))]);
            let agent = setup.start().await;
            let is_it = |_, body: &Value| {
                body["inference_server"] == server && body["models"] == expected[4]
            };
            let body = agent.health_when(server, is_it).await;
            let keys =
                ["queue_depth", "running", "avg_latency_ms", "time_to_first_token_ms", "models"];
            assert_eq!(keys.map(|key| body[key].clone()), expected, "{server}: {body}");
            assert_eq!(body["status"], "healthy", "{server}: {body}");
            assert_eq!(body["checks"]["inference"]["status"], "ok", "{server}");
        });
    }
    while let Some(checked) = checks.join_next().await {
        checked.unwrap();
    }
}
