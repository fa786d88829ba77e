//! From what is written to what holds: each value within its bounds, each problem told.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, time::Duration};

use mrgc_settings::{Layers, Problems};

use super::{Config, ENVIRONMENT_PREFIX, Enclave, Gpu, Heartbeat, Inference, Instance, raw};
use crate::lifecycle::DrainLimits;

const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8080);

/// Free facts of a registration: an item of the store has room for these.
const MAX_METADATA: usize = 64;

/// The longest silence where nothing is configured, in intervals.
const MAX_INTERVALS: u64 = 3;

const MAX_SILENCE_SECONDS: u64 = 3_600;

const MAX_TEXT_BYTES: usize = 256;

pub(super) fn check(
    file: Option<(&str, &str)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Problems> {
    let mut layers = Layers::new(ENVIRONMENT_PREFIX);
    if let Some((name, text)) = file {
        layers = layers.file(name, text);
    }
    let mut layers = layers.environment(environment);
    let settings: raw::Settings = layers.read();
    let config = check_all(&mut layers, settings);
    layers.finish(config)
}

/// `None` where something that the configuration cannot be without is missing or wrong. Every section is
/// looked at before that is said.
fn check_all(layers: &mut Layers, settings: raw::Settings) -> Option<Config> {
    let instance = instance(layers, settings.instance);
    let listen = match settings.listen {
        Some(text) => text.parse().ok().or_else(|| {
            layers.reject(
                "listen",
                format!("is \"{text}\": give an address and port, as in 0.0.0.0:8080"),
            );
            None
        }),
        None => Some(DEFAULT_LISTEN),
    };
    let inference = inference(layers, settings.inference);
    let gpu = gpu(layers, settings.gpu);
    let enclave = enclave(layers, settings.enclave);
    let heartbeat = heartbeat(layers, &settings.heartbeat);
    let drain = drain(layers, &settings.drain);
    if settings.store.timeout_ms == 0 {
        layers.reject("store.timeout_ms", "is 0: choose 1 or more");
    }
    if let Some(endpoint) = &settings.store.endpoint {
        check_url(layers, "store.endpoint", endpoint, &["http", "https"]);
    }
    for endpoint in settings.store.replicas.iter().filter_map(|replica| replica.endpoint.as_ref()) {
        check_url(layers, "store.replicas", endpoint, &["http", "https"]);
    }
    if tracing_subscriber::EnvFilter::try_new(&settings.log.level).is_err() {
        let level = &settings.log.level;
        layers.reject("log.level", format!("is \"{level}\": give a level or a filter, as in info"));
    }
    Some(Config {
        instance: instance?,
        listen: listen?,
        inference,
        gpu,
        enclave,
        heartbeat,
        drain,
        store: settings.store,
        log: settings.log,
    })
}

fn instance(layers: &mut Layers, raw: raw::Instance) -> Option<Instance> {
    let id = name(layers, "instance.id", raw.id);
    let region = name(layers, "instance.region", raw.region);
    let pool =
        name(layers, "instance.pool", Some(raw.pool.unwrap_or_else(|| "default".to_owned())));
    let address = layers.require("instance.address", raw.address);
    for (key, address) in
        [("instance.address", &address), ("instance.health_address", &raw.health_address)]
    {
        if let Some(address) = address.as_deref().filter(|address| !is_host_and_port(address)) {
            layers.reject(
                key,
                format!("is \"{address}\": give host and port, as in 10.66.10.50:8000"),
            );
        }
    }
    if raw.slots == Some(0) {
        layers.reject(
            "instance.slots",
            "is 0: give how many requests it serves at once, or leave it out",
        );
    }
    if let Some(cost) = raw.cost_per_hour.filter(|cost| !(cost.is_finite() && *cost >= 0.0)) {
        layers.reject("instance.cost_per_hour", format!("is {cost}: give a price of 0 or more"));
    }
    if raw.metadata.len() > MAX_METADATA {
        let count = raw.metadata.len();
        layers.reject("instance.metadata", format!("has {count} entries: {MAX_METADATA} at most"));
    }
    for (entry, text) in &raw.metadata {
        if text.len() > MAX_TEXT_BYTES {
            let key = format!("instance.metadata.{entry}");
            layers.reject(&key, format!("is longer than {MAX_TEXT_BYTES} bytes"));
        }
    }
    Some(Instance {
        id: id?.into(),
        region: region?.into(),
        zone: raw.zone,
        subnet_id: raw.subnet_id,
        subnet_cidr: raw.subnet_cidr,
        ami_id: raw.ami_id,
        pool: pool?.into(),
        address: address?,
        health_address: raw.health_address,
        provider: raw.provider,
        instance_type: raw.instance_type,
        slots: raw.slots,
        cost_per_hour: raw.cost_per_hour,
        frameworks: raw.frameworks,
        metadata: raw.metadata,
    })
}

/// A name that is part of keys in the store and of URLs.
fn name(layers: &mut Layers, key: &str, name: Option<String>) -> Option<String> {
    let name = layers.require(key, name)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if name.is_empty() || name.len() > MAX_TEXT_BYTES || !name.chars().all(is_plain) {
        layers.reject(
            key,
            format!(
                "is \"{name}\": use 1 to {MAX_TEXT_BYTES} letters, digits, and `-`, `_`, `.`, `:`"
            ),
        );
        return None;
    }
    Some(name)
}

/// `None`: no inference server is configured.
fn inference(layers: &mut Layers, raw: raw::Inference) -> Option<Inference> {
    let poll_interval =
        millis(layers, "inference.poll_interval_ms", raw.poll_interval_ms, 1_000, 50..=60_000);
    let timeout = millis(layers, "inference.timeout_ms", raw.timeout_ms, 2_000, 10..=60_000);
    let latency_window = seconds(
        layers,
        "inference.latency_window_seconds",
        raw.latency_window_seconds,
        30,
        1..=3_600,
    );
    let silent_polls = raw.silent_polls.unwrap_or(3);
    if silent_polls == 0 {
        layers.reject("inference.silent_polls", "is 0: choose 1 or more");
    }
    let Some(url) = raw.url else {
        if raw.required == Some(true) {
            layers.reject("inference.required", "is true, and inference.url is not set: set it");
        }
        return None;
    };
    check_url(layers, "inference.url", &url, &["http"]);
    Some(Inference {
        url: url.trim_end_matches('/').to_owned(),
        required: raw.required.unwrap_or(true),
        poll_interval,
        timeout,
        latency_window,
        silent_polls,
    })
}

fn gpu(layers: &mut Layers, raw: raw::Gpu) -> Gpu {
    if raw.library.as_deref() == Some("") {
        layers.reject("gpu.library", "is empty: give a path, or leave it out");
    }
    Gpu {
        library: raw.library,
        required: raw.required,
        interval: millis(layers, "gpu.interval_ms", raw.interval_ms, 5_000, 100..=300_000),
        deadline: millis(layers, "gpu.deadline_ms", raw.deadline_ms, 2_000, 10..=60_000),
    }
}

fn enclave(layers: &mut Layers, raw: raw::Enclave) -> Enclave {
    if raw.nitro_cli.as_deref() == Some("") {
        layers.reject("enclave.nitro_cli", "is empty: give a name or a path, or leave it out");
    }
    Enclave {
        nitro_cli: raw.nitro_cli.unwrap_or_else(|| "nitro-cli".to_owned()),
        required: raw.required,
        interval: millis(layers, "enclave.interval_ms", raw.interval_ms, 10_000, 100..=600_000),
        timeout: millis(layers, "enclave.timeout_ms", raw.timeout_ms, 5_000, 10..=60_000),
    }
}

fn heartbeat(layers: &mut Layers, raw: &raw::Heartbeat) -> Heartbeat {
    let interval = seconds(layers, "heartbeat.interval_seconds", raw.interval_seconds, 10, 1..=300);
    let shortest = interval.as_secs();
    let max_interval = seconds(
        layers,
        "heartbeat.max_interval_seconds",
        raw.max_interval_seconds,
        shortest * MAX_INTERVALS,
        shortest..=MAX_SILENCE_SECONDS,
    );
    Heartbeat { mode: raw.mode, interval, max_interval }
}

fn drain(layers: &mut Layers, raw: &raw::Drain) -> DrainLimits {
    let mut limit = |key, value, default| seconds(layers, key, value, default, 0..=7 * 24 * 3_600);
    DrainLimits {
        deadline: limit("drain.deadline_seconds", raw.deadline_seconds, 60),
        settle: limit("drain.settle_seconds", raw.settle_seconds, 3),
        unknown_grace: limit("drain.unknown_grace_seconds", raw.unknown_grace_seconds, 30),
    }
}

fn seconds(
    layers: &mut Layers,
    key: &str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Duration {
    Duration::from_secs(within(layers, key, value, default, range))
}

fn millis(
    layers: &mut Layers,
    key: &str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Duration {
    Duration::from_millis(within(layers, key, value, default, range))
}

fn within(
    layers: &mut Layers,
    key: &str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> u64 {
    let value = value.unwrap_or(default);
    if !range.contains(&value) {
        let (least, most) = range.into_inner();
        layers.reject(key, format!("is {value}: choose {least} to {most}"));
        return default;
    }
    value
}

/// `host:port` with a port above 0; an IPv6 host in brackets.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        }
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check_url(layers: &mut Layers, key: &str, text: &str, schemes: &[&str]) {
    let is_good = reqwest::Url::parse(text).is_ok_and(|url| {
        schemes.contains(&url.scheme()) && url.has_host() && url.query().is_none()
    });
    if !is_good {
        let schemes = schemes.join(":// or ");
        layers.reject(key, format!("is \"{text}\": give a URL that begins with {schemes}://"));
    }
}
