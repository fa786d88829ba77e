use mrgc_fleet::{
    health::{ProbeConfig, ProbeResult, Probes, Verdict},
    model::InstanceId,
};

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
fn times_that_contradict_each_other_are_told_with_what_to_do() {
    let text = format!(
        "{MINIMAL}[health_check]\nping_interval_seconds = 0.5\n[failover]\nlease_seconds = 15.0\n"
    );
    let problems = read(&text, &[]).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for (key, words) in [
        ("failover.failover_timeout_seconds", "1 is less than the 1.5 s in which 3 pings"),
        ("failover.lease_seconds", "15 is not below 15"),
    ] {
        let told = problems.iter().find(|problem| problem.contains(key));
        assert!(told.is_some_and(|told| told.contains(words)), "{key}: {problems:#?}");
    }
    let in_time = format!(
        "{MINIMAL}[health_check]\nping_interval_seconds = 0.5\n\
         [failover]\nfailover_timeout_seconds = 1.5\nlease_seconds = 14.9\n"
    );
    assert!(read(&in_time, &[]).is_ok());
    let in_time_by_a_hair = format!(
        "{MINIMAL}[health_check]\nping_interval_seconds = 0.1\n[failover]\nfailover_timeout_seconds = 0.3\n"
    );
    assert!(read(&in_time_by_a_hair, &[]).is_ok(), "0.1 three times is above 0.3 in binary");
}

/// Seed 4's monitor: a check that fails marks the region's machine, one that times out does after two retries,
/// and two passes bring it back.
#[test]
fn seed_4_s_monitor_marks_a_failed_check_at_once_and_a_silent_one_within_15_s() {
    let text = format!(
        "{MINIMAL}[health_check]\nscheme = \"https\"\npath = \"/health\"\nallow_insecure = false\n\
         interval_seconds = 30\ntimeout_seconds = 5\nretries = 2\nfailure_threshold = 0\n\
         recovery_passes = 2\nexpected_codes = [\"200\"]\nfollow_redirects = true\n\
         expected_body = '\"status\":\"healthy\"'\n\
         headers = {{ Host = \"api.erlvinc.com\", User-Agent = \"Cloudflare-Health-Check\" }}\n"
    );
    let config = read(&text, &[]).unwrap().health_check;
    assert!(config.expected_codes[0].contain(200) && !config.expected_codes[0].contain(204));
    assert_eq!(config.headers["Host"], "api.erlvinc.com");
    let refused = || ProbeResult::Failed("answered 503 Service Unavailable".to_owned());
    assert_eq!(marked_after_ms(config.probes(), refused), 0);
    assert_eq!(marked_after_ms(config.probes(), || ProbeResult::TimedOut), 15_000);

    // From the failure itself: an interval at most until the next check. Every 5 s, it is well below 30 s.
    let text =
        text.replace("interval_seconds = 30\ntimeout_seconds = 5\n", "interval_seconds = 5\n");
    let often = read(&text, &[]).unwrap().health_check.probes();
    let silent_ms = marked_after_ms(often, || ProbeResult::TimedOut);
    assert!(often.interval_ms + silent_ms <= 10_000, "{} + {silent_ms}", often.interval_ms);
}

/// From the beginning of the first check that fails until its instance is marked. Then it is marked well by the
/// second check that passes, and not before.
fn marked_after_ms(config: ProbeConfig, failure: impl Fn() -> ProbeResult) -> u64 {
    let (mut probes, id) = (Probes::new(config), InstanceId::from("gateway-us-east"));
    probes.keep([&id], 0);
    let mut now_ms = probes.next_ms().unwrap();
    let mut check = |result: ProbeResult| {
        now_ms = now_ms.max(probes.next_ms().unwrap());
        let began_ms = now_ms;
        assert_eq!(probes.due(now_ms), std::slice::from_ref(&id));
        now_ms += if result == ProbeResult::TimedOut { config.timeout_ms } else { 0 };
        (began_ms, now_ms, probes.handle(&id, result, false, now_ms))
    };
    assert_eq!(check(ProbeResult::Passed).2, Some(Verdict::Healthy));
    let (began_ms, mut ended_ms, mut verdict) = check(failure());
    while verdict.is_none() {
        (_, ended_ms, verdict) = check(failure());
    }
    assert!(verdict.is_some_and(|verdict| verdict.is_unhealthy()));
    assert_eq!(check(ProbeResult::Passed).2, None);
    assert_eq!(check(ProbeResult::Passed).2, Some(Verdict::Healthy));
    ended_ms - began_ms
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
