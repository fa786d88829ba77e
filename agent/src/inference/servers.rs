//! What each inference server says, and under which names.
//!
//! | server | names from | old and new |
//! |---|---|---|
//! | vLLM | `vllm/v1/metrics/loggers.py`, before it `vllm/engine/metrics.py` | `num_requests_swapped` until 0.8; `kv_cache_usage_perc` since #18354 of 2025, `gpu_cache_usage_perc` until #29330 |
//! | SGLang | `sglang/srt/metrics/collector.py`, later `srt/observability/metrics_collector.py` | `prefill_prealloc` became `prefill_bootstrap`; labels `priority` and `dp_rank` came during 0.5 |
//! | TGI | its documentation, *Metrics* | the same from 1 to 3 |
//! | Triton | `docs/user_guide/metrics.md`; for TensorRT-LLM the README of `tensorrtllm_backend` | TensorRT-LLM's since 23.11, `waiting` later |
//! | TensorRT-LLM | `tensorrt_llm/metrics/collector.py`, as `trtllm-serve` shows them | histograms since #5785 of 2025 (1.1), gauges since #12545 of 2026 |
//! | NIM | NIM for LLMs, *Observability* | its own names, or those of the vLLM within |
//! | llama.cpp | `tools/server/README.md` | with `--metrics`, else `/slots`; `kv_cache_usage_ratio` until 2025 |
//! | Ray Serve | Ray's *Monitor Your Application*; Serve LLM's dashboards | `queued_queries` and `processing_queries` renamed by #61090 of 2026; `ray_vllm_` was `ray_vllm:` |
//! | Ollama | `docs/api.md` | it has no metrics |
//!
//! Old and new names stand side by side, the newest first, and the first one on the page is taken.

use crate::config::InferenceKind as Kind;

/// Alternatives for one number: the first that is on the page counts.
type Names = &'static [&'static str];

/// One kind of server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    /// What a sample on its page may begin with, and on no other server's.
    pub(super) marks: Names,
    pub(super) load: LoadPage,
    /// Where the page is, when not at the port that serves requests.
    pub(super) metrics_port: Option<u16>,
    /// Added up: requests wait in more places than one.
    pub(super) waiting: &'static [Names],
    pub(super) running: &'static [Names],
    pub(super) latency: &'static [Histogram],
    pub(super) first_token: &'static [Histogram],
    /// Between 0 and 1.
    pub(super) kv_cache: Names,
    /// Labels that tell apart replicas of the same requests, as the ranks of a tensor-parallel engine are.
    pub(super) replicas: Names,
    /// Whether its gauges are there as soon as it serves; else they come with the first request, or with some
    /// models only, and their absence is no defect.
    pub(super) is_complete: bool,
    /// 200 once the model is loaded, another code before; `None` where asking costs the server a request.
    pub(super) ready: Option<&'static str>,
    /// Tried in this order.
    pub(super) models: &'static [ModelPage],
    /// In place of them once a KV cache was seen; before, these pages may be another application's, which would
    /// have to serve them.
    pub(super) engine_models: &'static [ModelPage],
    /// Whether a model that was not there, and is, has been loading all the time in between.
    pub(super) loads_at_start: bool,
}

/// Where a server says how busy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadPage {
    Metrics(&'static str),
    /// `/metrics`, or `/slots` where that is switched off.
    MetricsOrSlots,
    Nowhere,
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl LoadPage {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics(path) => path,
            Self::MetricsOrSlots => "/metrics",
            Self::Nowhere => "",
        }
    }
}

/// Where a server says which models it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelPage {
    /// `/v1/models`
    OpenAi,
    /// `/info` of TGI.
    TgiInfo,
    /// `/v2/repository/index`
    Triton,
    /// `/api/ps`, and `/api/tags` for those that load when they are asked for.
    Ollama,
    /// `/-/routes`: the applications, where they are no models.
    RayRoutes,
}

/// A sum and a count of what it is over.
#[derive(Debug)]
pub(super) struct Histogram {
    pub(super) sum: &'static str,
    pub(super) count: &'static str,
    /// Milliseconds in one of the sum.
    pub(super) ms: f64,
}

pub(super) const SECONDS: f64 = 1e3;
pub(super) const MILLISECONDS: f64 = 1.0;
const MICROSECONDS: f64 = 1e-3;

macro_rules! histogram {
    ($name:literal, $ms:ident) => {
        Histogram { sum: concat!($name, "_sum"), count: concat!($name, "_count"), ms: $ms }
    };
}

/// When the server's process started, by the clock: `prometheus_client` says it, in one process.
pub(super) const PROCESS_START: &str = "process_start_time_seconds";

/// `None` for the kinds that are none of a server.
pub(super) fn of(kind: Kind) -> Option<&'static Server> {
    SERVERS.iter().chain([&CONFIGURED]).find(|server| server.kind == kind)
}

/// The server whose metric a sample of this name is.
pub(super) fn by_sample(name: &str) -> Option<&'static Server> {
    SERVERS.iter().find(|server| server.marks.iter().any(|mark| name.starts_with(mark)))
}

/// The server that signs its list of models so.
pub(super) fn by_owner(owner: &str) -> Option<&'static Server> {
    of(match owner {
        "vllm" => Kind::Vllm,
        "sglang" => Kind::Sglang,
        "tensorrt_llm" => Kind::TensorrtLlm,
        "llamacpp" => Kind::LlamaCpp,
        _ => return None,
    })
}

/// One whose metrics have names that were configured.
pub(super) static CONFIGURED: Server = Server {
    name: "the configured server",
    load: LoadPage::Metrics("/metrics"),
    is_complete: true,
    ..SILENT
};

/// A server that says nothing of itself.
const SILENT: Server = Server {
    kind: Kind::Generic,
    name: "",
    marks: &[],
    load: LoadPage::Nowhere,
    metrics_port: None,
    waiting: &[],
    running: &[],
    latency: &[],
    first_token: &[],
    kv_cache: &[],
    replicas: &[],
    is_complete: false,
    ready: None,
    models: &[ModelPage::OpenAi],
    engine_models: &[],
    loads_at_start: true,
};

pub(super) static SERVERS: [Server; 9] = [
    Server {
        kind: Kind::Vllm,
        name: "vLLM",
        marks: &["vllm:"],
        load: LoadPage::Metrics("/metrics"),
        waiting: &[&["vllm:num_requests_waiting"], &["vllm:num_requests_swapped"]],
        running: &[&["vllm:num_requests_running"]],
        latency: &[histogram!("vllm:e2e_request_latency_seconds", SECONDS)],
        first_token: &[histogram!("vllm:time_to_first_token_seconds", SECONDS)],
        kv_cache: &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"],
        is_complete: true,
        ready: Some("/health"),
        ..SILENT
    },
    Server {
        kind: Kind::Sglang,
        name: "SGLang",
        marks: &["sglang:"],
        load: LoadPage::Metrics("/metrics"),
        // With priorities, each one has a series beside the total, which has none.
        waiting: &[
            &[r#"sglang:num_queue_reqs{priority=""}"#],
            &["sglang:num_grammar_queue_reqs"],
            &[
                r#"sglang:num_prefill_bootstrap_queue_reqs{priority=""}"#,
                "sglang:num_prefill_prealloc_queue_reqs",
            ],
            &[r#"sglang:num_prefill_inflight_queue_reqs{priority=""}"#],
            &[r#"sglang:num_decode_prealloc_queue_reqs{priority=""}"#],
            &[r#"sglang:num_decode_transfer_queue_reqs{priority=""}"#],
        ],
        running: &[&[r#"sglang:num_running_reqs{priority=""}"#]],
        latency: &[histogram!("sglang:e2e_request_latency_seconds", SECONDS)],
        first_token: &[histogram!("sglang:time_to_first_token_seconds", SECONDS)],
        kv_cache: &["sglang:token_usage"],
        replicas: &["tp_rank", "pp_rank", "moe_ep_rank"],
        // It generates a token to answer `/health`. The port opens when the model is loaded.
        ..SILENT
    },
    Server {
        kind: Kind::Tgi,
        name: "TGI",
        marks: &["tgi_"],
        load: LoadPage::Metrics("/metrics"),
        waiting: &[&["tgi_queue_size"]],
        running: &[&["tgi_batch_current_size"]],
        latency: &[histogram!("tgi_request_duration", SECONDS)],
        ready: Some("/health"),
        models: &[ModelPage::TgiInfo, ModelPage::OpenAi],
        ..SILENT
    },
    Server {
        kind: Kind::Triton,
        name: "Triton",
        marks: &["nv_inference_", "nv_trt_llm_"],
        load: LoadPage::Metrics("/metrics"),
        metrics_port: Some(8002),
        // In Triton's queue, and in the queue of TensorRT-LLM behind it.
        waiting: &[
            &["nv_inference_pending_request_count"],
            &[r#"nv_trt_llm_request_metrics{request_type="waiting"}"#],
        ],
        running: &[&[r#"nv_trt_llm_request_metrics{request_type="active"}"#]],
        latency: &[Histogram {
            sum: "nv_inference_request_duration_us",
            count: "nv_inference_request_success",
            ms: MICROSECONDS,
        }],
        first_token: &[histogram!("nv_inference_first_response_histogram_ms", MILLISECONDS)],
        kv_cache: &[r#"nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"}"#],
        ready: Some("/v2/health/ready"),
        models: &[ModelPage::Triton],
        ..SILENT
    },
    Server {
        kind: Kind::TensorrtLlm,
        name: "TensorRT-LLM",
        marks: &["trtllm_"],
        // Its `/metrics` hands out each iteration's statistics once: whoever reads them takes them away.
        load: LoadPage::Metrics("/prometheus/metrics"),
        waiting: &[&["trtllm_num_requests_waiting"]],
        running: &[&["trtllm_num_requests_running"]],
        latency: &[histogram!("trtllm_e2e_request_latency_seconds", SECONDS)],
        first_token: &[histogram!("trtllm_time_to_first_token_seconds", SECONDS)],
        kv_cache: &["trtllm_kv_cache_utilization"],
        ready: Some("/health"),
        ..SILENT
    },
    Server {
        kind: Kind::Nim,
        name: "NIM",
        marks: &["num_requests_waiting", "num_requests_running", "num_request_max"],
        load: LoadPage::Metrics("/v1/metrics"),
        waiting: &[&["vllm:num_requests_waiting", "num_requests_waiting"]],
        running: &[&["vllm:num_requests_running", "num_requests_running"]],
        latency: &[
            histogram!("vllm:e2e_request_latency_seconds", SECONDS),
            histogram!("e2e_request_latency_seconds", SECONDS),
        ],
        first_token: &[
            histogram!("vllm:time_to_first_token_seconds", SECONDS),
            histogram!("time_to_first_token_seconds", SECONDS),
        ],
        kv_cache: &[
            "vllm:kv_cache_usage_perc",
            "vllm:gpu_cache_usage_perc",
            "gpu_cache_usage_perc",
        ],
        ready: Some("/v1/health/ready"),
        ..SILENT
    },
    Server {
        kind: Kind::Ollama,
        name: "Ollama",
        models: &[ModelPage::Ollama],
        loads_at_start: false,
        ..SILENT
    },
    Server {
        kind: Kind::LlamaCpp,
        name: "llama.cpp",
        marks: &["llamacpp:"],
        load: LoadPage::MetricsOrSlots,
        waiting: &[&["llamacpp:requests_deferred"]],
        running: &[&["llamacpp:requests_processing"]],
        kv_cache: &["llamacpp:kv_cache_usage_ratio"],
        is_complete: true,
        ready: Some("/health"),
        ..SILENT
    },
    Server {
        kind: Kind::RayServe,
        name: "Ray Serve",
        marks: &["ray_serve_", "ray_vllm"],
        load: LoadPage::Metrics("/metrics"),
        metrics_port: Some(8080),
        // Until a replica takes it, and then, with Serve LLM, in the engine's queue.
        waiting: &[
            &["ray_serve_router_num_queued_requests", "ray_serve_deployment_queued_queries"],
            &["ray_vllm_num_requests_waiting", "ray_vllm:num_requests_waiting"],
        ],
        running: &[&[
            "ray_vllm_num_requests_running",
            "ray_vllm:num_requests_running",
            "ray_serve_replica_num_ongoing_requests",
            "ray_serve_replica_processing_queries",
        ]],
        // Without the application, it is what the proxy answers itself, as to the agent.
        latency: &[
            histogram!("ray_vllm_e2e_request_latency_seconds", SECONDS),
            histogram!("ray_vllm:e2e_request_latency_seconds", SECONDS),
            Histogram {
                sum: r#"ray_serve_http_request_latency_ms_sum{application!=""}"#,
                count: r#"ray_serve_http_request_latency_ms_count{application!=""}"#,
                ms: MILLISECONDS,
            },
            histogram!("ray_serve_deployment_processing_latency_ms", MILLISECONDS),
        ],
        first_token: &[
            histogram!("ray_vllm_time_to_first_token_seconds", SECONDS),
            histogram!("ray_vllm:time_to_first_token_seconds", SECONDS),
        ],
        kv_cache: &[
            "ray_vllm_kv_cache_usage_perc",
            "ray_vllm:kv_cache_usage_perc",
            "ray_vllm:gpu_cache_usage_perc",
        ],
        ready: Some("/-/healthz"),
        models: &[ModelPage::RayRoutes],
        engine_models: &[ModelPage::OpenAi, ModelPage::RayRoutes],
        ..SILENT
    },
];

#[cfg(test)]
mod tests;
