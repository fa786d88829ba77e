use super::*;

const MINIMAL: &str = r#"
region = "us-east-1"
[[regions]]
region_id = "us-east-1"
endpoint = "http://127.0.0.1:8000"
"#;

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment.iter().map(|(key, value)| (key.into(), value.into()));
    Config::read("router.toml", text, environment)
        .map_err(|problems| problems.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn the_environment_overrides_the_file() {
    let variable = "MRGC_ROUTER__HEALTH_CHECK__INTERVAL_SECONDS";
    let config = read(MINIMAL, &[(variable, "5")]).unwrap();
    assert_eq!(config.health_check.interval_seconds, 5.0);
    assert_eq!(config.health_check.failure_threshold, 3);
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let text = r#"
region = "us-east-1"
colour = "blue"
[listen]
data = "nowhere"
[limits]
attempts = 99
[metrics]
flush_interval_seconds = 0.0
[[regions]]
region_id = "us-east-1"
endpoint = "ftp://x"
[[routes]]
name = "chat"
picker = "wildest"
policies = [{ name = "Latency!", weight = -1.0 }]
"#;
    let problems = read(text, &[("MRGC_ROUTER__PEERS__KEY", "tiny-secret")]).unwrap_err();
    for (line, word) in [
        (3, "colour"),
        (5, "listen.data"),
        (7, "limits.attempts"),
        (9, "metrics.flush_interval_seconds"),
        (10, "ftp://x"),
        (15, "picker"),
        (16, "weight"),
        (16, "Latency!"),
    ] {
        let place = format!("router.toml:{line}:");
        assert!(
            problems.iter().any(|p| p.starts_with(&place) && p.contains(word)),
            "nothing about {word} in line {line} among {problems:#?}"
        );
    }
    assert!(problems.iter().any(|p| p.starts_with("MRGC_ROUTER__PEERS__KEY: ")), "{problems:#?}");
    assert!(!problems.iter().any(|p| p.contains("tiny-secret")), "a secret is told: {problems:#?}");
}

#[test]
fn a_region_is_required_to_forward_but_not_to_serve_state() {
    assert!(read("", &[]).unwrap_err()[0].contains("region"));
    assert!(read(r#"roles = ["state"]"#, &[]).is_ok());
}

#[test]
fn who_only_watches_needs_a_region_and_a_store_and_no_data_listener() {
    let roles = |text: &str| format!("roles = [\"health\", \"failover\"]\n{text}");
    let config = read(&roles("region = \"us-east-1\"\n[store]\n"), &[]).unwrap();
    assert!(config.roles.watch_fleet() && !config.roles.has(Role::Proxy));
    for (text, words) in [("[store]\n", "region"), (MINIMAL, "need a [store]")] {
        let problems = read(&roles(text), &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:#?}");
    }
}

#[test]
fn aws_is_asked_only_with_a_store_and_at_urls() {
    let config = read(MINIMAL, &[]).unwrap();
    assert!(!config.aws.is_used() && config.aws.interval().as_secs() == 60);
    let text = format!(
        "{MINIMAL}[aws]\ninstance_status = true\nregion = \"\"\ninterval_seconds = 0.0\n\
         ec2_endpoint = \"ec2\"\nauto_scaling_endpoint = \"ftp://x\"\n"
    );
    let problems = read(&text, &[]).unwrap_err();
    for word in ["[store]", "aws.region", "aws.interval_seconds", "`ec2`", "`ftp://x`"] {
        assert!(problems.iter().any(|p| p.contains(word)), "nothing about {word}: {problems:#?}");
    }
    let text = format!("{MINIMAL}[store]\n[aws]\nset_instance_health = true\n");
    assert!(read(&text, &[]).unwrap().aws.is_used());
}

#[test]
fn patterns_match_whole_or_by_their_start() {
    let matches = Match { path: Some("/v1/*".to_owned()), model: Some("llama".to_owned()) };
    assert!(matches.path("/v1/chat/completions"));
    assert!(!matches.path("/v2/chat/completions"));
    assert!(matches.model(Some("llama")));
    assert!(!matches.model(Some("llama-3")));
    assert!(!matches.model(None), "a request that names no model");
    assert!(Match::default().model(None) && Match::default().path("/"));
}

#[test]
fn the_example_is_valid() {
    let text = include_str!("../../router.example.toml");
    if let Err(problems) = read(text, &[]) {
        panic!("{problems:#?}");
    }
}
