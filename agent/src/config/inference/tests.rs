#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;

const INSTANCE: &str =
    "[instance]\nid = \"i-1\"\nregion = \"us-east-1\"\naddress = \"10.0.0.5:8000\"\n[inference]\n";

fn check(keys: &str) -> Result<Config, String> {
    let text = format!("{INSTANCE}{keys}");
    super::super::check::check(Some(("agent.toml", &text)), []).map_err(|error| error.to_string())
}

fn target(keys: &str) -> InferenceTarget {
    match check(keys).unwrap().inference.unwrap().source {
        InferenceSource::Poll(target) => *target,
        InferenceSource::Push { .. } => panic!("{keys}"),
    }
}

#[test]
fn a_server_is_asked_searched_for_or_reports_itself() {
    assert!(check("").unwrap().inference.is_none());
    assert!(check("detect_ports = [8000]\n").unwrap().inference.is_none(), "ports alone");

    let asked = target("url = \"http://localhost:30000/\"\nkind = \"sglang\"\n");
    assert_eq!(
        (asked.url.as_deref(), asked.kind),
        (Some("http://localhost:30000"), InferenceKind::Sglang)
    );
    let searched = target("detect = true\n");
    assert_eq!(
        (searched.url, searched.kind, &searched.ports[..]),
        (None, InferenceKind::Auto, &PORTS[..])
    );
    assert_eq!(target("detect = true\ndetect_ports = [9000]\nkind = \"tgi\"\n").ports, [9000]);
    let generic =
        target("url = \"http://localhost:1\"\nmetrics = { waiting = \"q{a=\\\"b\\\"}\" }\n");
    assert_eq!(generic.kind, InferenceKind::Generic);
    assert_eq!(generic.metrics.unwrap().waiting.unwrap(), "q{a=\"b\"}");

    let pushed = check("kind = \"push\"\nreport_stale_seconds = 4\n").unwrap().inference.unwrap();
    assert!(pushed.required && pushed.port().is_none());
    let InferenceSource::Push { stale_after } = pushed.source else { panic!("it is asked") };
    assert_eq!(stale_after, Duration::from_secs(4));
}

#[test]
fn what_does_not_go_together_is_told() {
    let url = "url = \"http://localhost:8000\"\n";
    for (keys, told) in [
        ("kind = \"vlm\"\n", "inference.kind: is \"vlm\", expected one of: auto, vllm, sglang"),
        (
            "kind = \"vllm\"\n",
            "inference.kind: is set, and the server's address is not: set inference.url",
        ),
        ("required = true\n", "inference.required: is true, and inference.url is not set"),
        (&format!("{url}detect = true\n"), "inference.detect: is true, and inference.url is set"),
        (
            &format!("{url}kind = \"push\"\n"),
            "inference.url: is set, and inference.kind is \"push\"",
        ),
        (&format!("{url}kind = \"generic\"\n"), "inference.metrics: is missing"),
        (
            &format!("{url}kind = \"tgi\"\nmetrics = {{ waiting = \"q\" }}\n"),
            "it goes with inference.kind",
        ),
        (&format!("{url}metrics = {{ }}\n"), "inference.metrics: names nothing"),
        (
            &format!("{url}metrics = {{ waiting = \"a b\" }}\n"),
            "inference.metrics.waiting: is \"a b\": give a metric's name",
        ),
        (
            &format!("{url}metrics = {{ queue = \"a\" }}\n"),
            "inference.metrics.queue: there is no such key here",
        ),
        (&format!("{url}metrics = {{ latency_sum = \"a\" }}\n"), "latency_count go together"),
        (
            "metrics_url = \"localhost:1\"\ndetect = true\n",
            "inference.metrics_url: is \"localhost:1\": give a URL",
        ),
        (
            "metrics_url = \"http://localhost:1/x\"\ndetect = true\n",
            "inference.metrics_url: is set, and inference.url is not",
        ),
        ("detect = true\ndetect_ports = []\n", "inference.detect_ports: is []: give 1 to 32 ports"),
        (
            "detect = true\nmetrics = { waiting = \"q\" }\n",
            "inference.detect: cannot find a server of kind \"generic\"",
        ),
        ("report_stale_seconds = 0\n", "inference.report_stale_seconds: is 0: choose 1 to 3600"),
    ] {
        let problems = check(keys).unwrap_err();
        assert!(problems.contains(told), "{keys}: {problems}");
    }
}
