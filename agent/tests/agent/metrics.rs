//! `/metrics`: the names, and the format that Prometheus insists on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::support::{Engine, ModelServer, Setup, program};

/// The families as `name kind`, in their order, with each one's labels.
#[derive(Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    labels: BTreeMap<String, BTreeSet<String>>,
    series: BTreeSet<String>,
}

fn is_name(name: &str) -> bool {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_start) && name.chars().all(|c| is_start(c) || c.is_ascii_digit())
}

/// Reads the text as strictly as the format's description allows; panics where it is not kept.
fn read(text: &str) -> Page {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut page = Page::default();
    let mut family = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            assert!(is_name(name) && help.ends_with('.'), "{line}");
            let kind = lines.next().unwrap_or_default();
            let kind = kind.strip_prefix(&format!("# TYPE {name} ")).expect(kind);
            assert!(["gauge", "counter", "summary"].contains(&kind), "{line}: {kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            let known = page.kinds.insert(name.to_owned(), kind.to_owned());
            assert_eq!(known, None, "{name} comes twice");
            family = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let of_family = match page.kinds.get(&family).map(String::as_str) {
            Some("summary") => {
                ["", "_sum", "_count"].iter().any(|end| name == family.clone() + end)
            }
            _ => name == family,
        };
        assert!(of_family, "{line} stands below the head of {family}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(page.series.insert(series.to_owned()), "{series} comes twice");
        let mut rest = labels.strip_suffix('}').expect(line);
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").expect(line);
            assert!(is_name(label) && !label.starts_with("__"), "{line}");
            page.labels.entry(family.clone()).or_default().insert(label.to_owned());
            let end = closing_quote(after).expect(line);
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    page
}

/// Where a label's value ends; a backslash escapes itself, a quote, or stands for a line's end.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                assert!(matches!(c, '\\' | '"' | 'n'), "{text}");
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// `BLESS=1 cargo test` writes the golden anew.
#[tokio::test]
async fn the_names_are_as_agreed() {
    let (store, server) = (Engine::start().await, ModelServer::start().await);
    let folder = tempfile::tempdir().unwrap();
    let nitro_cli = program(folder.path(), "nitro-cli", r#"[{"State":"RUNNING"}]"#, 0);
    let script = folder.path().join("script");
    fs::write(&script, "").unwrap();
    let agent = Setup::new()
        .store(&store)
        .inference(&server)
        .gpus(&script)
        .with(&[
            ("MRGC_AGENT__ENCLAVE__NITRO_CLI", nitro_cli.to_str().unwrap()),
            ("MRGC_AGENT__INSTANCE__ZONE", "a \"quoted\" \\ zone"),
        ])
        .start()
        .await;
    agent
        .health_when("everything is known", |_, body| {
            body["status"] == "healthy"
                && body["lifecycle"] == "available"
                && body["enclave_running"] == true
                && body["host"]["cpu_utilization"].is_number()
        })
        .await;
    let response = agent.get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let page = read(&text);
    let lines = page.kinds.iter().map(|(name, kind)| {
        let labels = page.labels.get(name).cloned().unwrap_or_default();
        let labels: Vec<String> = labels.into_iter().collect();
        format!("{name} {kind} {}\n", labels.join(",")).replace(" \n", "\n")
    });
    let names: String = lines.collect();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/agent/metrics.txt");
    if std::env::var_os("BLESS").is_some() {
        fs::write(golden, &names).unwrap();
    }
    assert_eq!(names, fs::read_to_string(golden).unwrap());
    for line in [
        "mrgc_agent_serving 1",
        "mrgc_agent_health{health=\"healthy\"} 1",
        "mrgc_agent_health{health=\"degraded\"} 0",
        "mrgc_agent_lifecycle{lifecycle=\"available\"} 1",
        "mrgc_agent_check{check=\"gpu\",status=\"ok\"} 1",
        "mrgc_agent_request_latency_seconds 0.15",
        "mrgc_agent_enclaves_running 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn what_was_not_measured_has_no_sample() {
    let agent = Setup::new().start().await;
    let text = agent.metrics().await;
    let page = read(&text);
    for name in ["mrgc_agent_requests_waiting", "mrgc_agent_enclaves_running", "mrgc_agent_models"]
    {
        assert!(page.kinds.contains_key(name), "{name} has a head");
        assert!(!page.series.contains(name), "{name} has no value:\n{text}");
    }
}
