#![allow(clippy::unwrap_used)]

use mrgc_fleet::model::Timestamp;

use super::*;

const MINIMAL: &str =
    "[instance]\nid = \"i-1\"\nregion = \"us-east-1\"\naddress = \"10.0.0.5:8000\"\n";

fn check(text: &str, variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    super::check::check(Some(("agent.toml", text)), variables)
}

#[test]
fn the_example_is_valid_and_shows_the_defaults() {
    let text = include_str!("../../agent.example.toml");
    let example = check(text, &[]).unwrap();
    let url = "[inference]\nurl = \"http://127.0.0.1:8000\"\n";
    let minimal = check(&format!("{MINIMAL}{url}"), &[]).unwrap();

    // Every default that the example shows, but for what it says is an example.
    let shown: String = text
        .lines()
        .filter(|line| !line.contains("# example"))
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if is_setting(setting) => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let shown = check(&shown, &[]).unwrap();
    for config in [&example, &shown] {
        assert_eq!(config.listen, minimal.listen);
        assert_eq!(format!("{:?}", config.inference), format!("{:?}", minimal.inference));
        assert_eq!(format!("{:?}", config.enclave), format!("{:?}", minimal.enclave));
        assert_eq!(config.heartbeat, minimal.heartbeat);
        assert_eq!(config.drain, minimal.drain);
        assert_eq!(config.identity, minimal.identity);
        assert_eq!(config.notices, minimal.notices);
        assert_eq!(config.cleanup, minimal.cleanup);
        assert_eq!(format!("{:?}", config.gpu), format!("{:?}", minimal.gpu));
        assert_eq!(format!("{:?}", config.store), format!("{:?}", minimal.store));
        assert_eq!(format!("{:?}", config.log), format!("{:?}", minimal.log));
        assert_eq!(config.instance.pool, minimal.instance.pool);
        assert_eq!(config.instance.health_address, None);
        assert_eq!(config.state_directory, None);
    }
}

fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
}

#[test]
fn the_example_names_every_key() {
    // What serde lists as known, found out by asking for something unknown.
    let example = include_str!("../../agent.example.toml");
    for section in [
        "",
        "instance",
        "inference",
        "gpu",
        "enclave",
        "heartbeat",
        "drain",
        "identity",
        "notices",
        "cleanup",
        "store",
        "log",
    ] {
        let text = format!("[{section}]\nno_such_key = 1\n");
        let text = if section.is_empty() { "no_such_key = 1\n" } else { &text };
        let problems = check(text, &[]).unwrap_err();
        let told = problems.list().iter().find(|p| p.key.ends_with("no_such_key")).unwrap();
        let keys = told.message.split_once("there are: ").unwrap().1;
        for key in keys.split(", ") {
            let is_shown = |line: &str| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} = ")) || line == format!("[{key}]")
            };
            assert!(example.lines().any(is_shown), "[{section}] {key} is not in the example");
        }
    }
}

#[test]
fn the_environment_alone_is_enough() {
    let config = Config::load(
        None,
        [
            ("MRGC_AGENT__INSTANCE__ID", "i-1"),
            ("MRGC_AGENT__INSTANCE__REGION", "us-east-1"),
            ("MRGC_AGENT__INSTANCE__ADDRESS", "10.0.0.5:8000"),
            ("MRGC_AGENT__INSTANCE__FRAMEWORKS", "GDPR,hipaa"),
            ("MRGC_AGENT__HEARTBEAT__INTERVAL_SECONDS", "7"),
            ("MRGC_AGENT__STORE__REPLICAS", "us-east-2,us-west-2"),
        ]
        .map(|(name, value)| (name.into(), value.into())),
    )
    .unwrap();
    let seconds = Duration::from_secs;
    let Heartbeat { mode, interval, max_interval } = config.heartbeat;
    assert_eq!((interval, max_interval), (seconds(7), seconds(21)), "three intervals by default");
    assert_eq!(mode, HeartbeatMode::Adaptive);
    let replicas: Vec<_> = config.store.replicas.iter().map(|r| r.aws_region.as_str()).collect();
    assert_eq!(replicas, ["us-east-2", "us-west-2"]);
    let registration =
        crate::identity::registration(&config, &Err(String::new()), 8080, Timestamp(1)).unwrap();
    assert_eq!(registration.health_address, "10.0.0.5:8080");
    assert_eq!(registration.pool.as_str(), "default");
    assert_eq!(registration.frameworks, ["gdpr".into(), "hipaa".into()]);
}

#[test]
fn systemd_gives_a_directory_where_none_is_configured() {
    let directory = |configured: Option<&str>| {
        let mut variables = vec![("STATE_DIRECTORY".into(), "/var/lib/mrgc:/var/lib/other".into())];
        let configured = configured.map(|path| ("MRGC_AGENT__STATE_DIRECTORY".into(), path.into()));
        variables.extend(configured);
        Config::load(None, variables).unwrap().state_directory
    };
    assert_eq!(directory(None), Some("/var/lib/mrgc".into()));
    assert_eq!(directory(Some("/srv/mrgc")), Some("/srv/mrgc".into()));
    assert_eq!(check("", &[]).unwrap().state_directory, None);
}

#[test]
fn everything_wrong_is_told_at_once() {
    let text = "\
listen = \"everywhere\"
[instance]
region = \"us east\"
address = \"10.0.0.5\"
slots = 0
cost_per_hour = -1.0
colour = \"red\"
[inference]
url = \"https://127.0.0.1:8000\"
poll_interval_ms = 1
[heartbeat]
interval_seconds = \"often\"
[store]
endpoint = \"127.0.0.1:8000\"
timeout_ms = 0
replicas = [{ aws_region = \"us-east-2\", endpoint = \"there\" }]
[log]
level = \"a=b=c\"
format = \"xml\"
[identity]
source = \"config\"
";
    let problems = check(text, &[("MRGC_AGENT__GPU__LIBRARY", "")]).unwrap_err();
    let expected = "\
agent.toml:1: listen: is \"everywhere\": give an address and port, as in 0.0.0.0:8080
agent.toml:2: instance.id: is missing: set it in agent.toml, or as MRGC_AGENT__INSTANCE__ID
agent.toml:3: instance.region: is \"us east\": use 1 to 256 letters, digits, and `-`, `_`, `.`, `:`
agent.toml:4: instance.address: is \"10.0.0.5\": give host and port, as in 10.66.10.50:8000
agent.toml:5: instance.slots: is 0: give how many requests it serves at once, or leave it out
agent.toml:6: instance.cost_per_hour: is -1: give a price of 0 or more
agent.toml:7: instance.colour: there is no such key here; there are: id, region, zone, subnet_id, \
subnet_cidr, ami_id, pool, address, port, health_address, provider, instance_type, slots, cost_per_hour, frameworks, metadata
agent.toml:9: inference.url: is \"https://127.0.0.1:8000\": give a URL that begins with http://
agent.toml:10: inference.poll_interval_ms: is 1: choose 50 to 60000
agent.toml:12: heartbeat.interval_seconds: is string \"often\", expected u64
agent.toml:14: store.endpoint: is \"127.0.0.1:8000\": give a URL that begins with http:// or https://
agent.toml:15: store.timeout_ms: is 0: choose 1 or more
agent.toml:16: store.replicas: is \"there\": give a URL that begins with http:// or https://
agent.toml:18: log.level: is \"a=b=c\": give a level or a filter, as in info
agent.toml:19: log.format: is \"xml\", expected one of: text, json
MRGC_AGENT__GPU__LIBRARY: gpu.library: is empty: give a path, or leave it out";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn an_inference_server_is_required_only_where_there_is_one() {
    let required = |inference: &str| {
        check(&format!("{MINIMAL}{inference}"), &[]).map(|config| config.requirements().inference)
    };
    assert!(!required("").unwrap());
    assert!(required("[inference]\nurl = \"http://localhost:8000/\"").unwrap());
    assert!(!required("[inference]\nurl = \"http://localhost:8000\"\nrequired = false").unwrap());
    let problems = required("[inference]\nrequired = true").unwrap_err();
    assert!(problems.to_string().contains("inference.url is not set"), "{problems}");
}

#[test]
fn what_is_wrong_about_gpus_and_enclaves_is_told() {
    for (section, key, told) in [
        ("gpu", "count = 0", "gpu.count: is 0: give how many GPUs there must be, or leave it out"),
        ("gpu", "rare_every = 0", "gpu.rare_every: is 0: choose 1 to 10000"),
        ("gpu", "kernel_log = \"kmsg\"", "gpu.kernel_log: is \"kmsg\": give a path from the root"),
        (
            "gpu",
            "acknowledgement_file = \"\"",
            "gpu.acknowledgement_file: is \"\": give a path from the root",
        ),
        (
            "enclave",
            "logs_directory = \"logs\"",
            "enclave.logs_directory: is \"logs\": give a path from the root",
        ),
        ("enclave", "socket = \"s\"", "enclave.socket: is \"s\": give a path from the root"),
    ] {
        let problems = check(&format!("{MINIMAL}[{section}]\n{key}\n"), &[]).unwrap_err();
        assert!(problems.to_string().contains(told), "{problems}");
    }
}

#[test]
fn the_longest_silence_is_an_interval_or_more() {
    let max_interval = |keys: &str| {
        check(&format!("{MINIMAL}[heartbeat]\n{keys}"), &[]).map(|c| c.heartbeat.max_interval)
    };
    let same = "mode = \"fixed\"\ninterval_seconds = 20\nmax_interval_seconds = 20\n";
    assert_eq!(max_interval(same).unwrap(), Duration::from_secs(20));
    let problems = max_interval("interval_seconds = 20\nmax_interval_seconds = 19\n").unwrap_err();
    assert!(problems.to_string().contains("is 19: choose 20 to 3600"), "{problems}");
}

#[test]
fn addresses_have_host_and_port() {
    for (address, expected) in [
        ("10.0.0.5:8000", true),
        ("gpu-1.internal:8000", true),
        ("[::1]:8000", true),
        ("::1:8000", false),
        ("10.0.0.5", false),
        ("10.0.0.5:0", false),
        ("10.0.0.5:70000", false),
        (":8000", false),
        ("http://10.0.0.5:8000", false),
        ("", false),
    ] {
        let checked = check(MINIMAL, &[("MRGC_AGENT__INSTANCE__ADDRESS", address)]);
        assert_eq!(checked.is_ok(), expected, "{address}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = Config::load(Some(Path::new("/nowhere/agent.toml")), []).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/agent.toml: "), "{error}");
}
