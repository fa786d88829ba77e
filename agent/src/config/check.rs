//! From what is written to what holds: each value within its bounds, each problem told.

use std::{ffi::OsString, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use mrgc_settings::{Layers, Problems, Written};

use super::{
    Config, ENVIRONMENT_PREFIX, Enclave, Gpu, Heartbeat, IdentitySource, Instance, inference, life,
    raw,
};
use crate::{enclave::Channel, lifecycle::DrainLimits};

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
    let written = layers.written();
    let settings: raw::Settings = layers.read();
    let config = check_all(&mut layers, settings, written);
    layers.finish(config)
}

/// `None` where something that the configuration cannot be without is missing or wrong. Every section is
/// looked at before that is said.
fn check_all(layers: &mut Layers, settings: raw::Settings, written: Written) -> Option<Config> {
    let identity = life::identity(layers, settings.identity);
    let instance = instance(layers, settings.instance, identity.source);
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
    let inference = inference::inference(layers, settings.inference);
    let gpu = gpu(layers, settings.gpu);
    let enclave = enclave(layers, settings.enclave);
    let heartbeat = heartbeat(layers, &settings.heartbeat);
    let drain = drain(layers, &settings.drain);
    let notices = life::notices(layers, settings.notices);
    let cleanup = life::cleanup(layers, settings.cleanup);
    let state_directory = settings.state_directory.map(|it| path(layers, "state_directory", it));
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
        identity,
        listen: listen?,
        inference,
        gpu,
        enclave,
        heartbeat,
        drain,
        notices,
        cleanup,
        state_directory,
        store: settings.store,
        log: settings.log,
        written,
    })
}

fn instance(layers: &mut Layers, raw: raw::Instance, source: IdentitySource) -> Option<Instance> {
    if source == IdentitySource::Config {
        for (key, value) in [
            ("instance.id", &raw.id),
            ("instance.region", &raw.region),
            ("instance.address", &raw.address),
        ] {
            layers.require(key, value.as_ref());
        }
    }
    let id = raw.id.and_then(|id| name(layers, "instance.id", id));
    let region = raw.region.and_then(|region| name(layers, "instance.region", region));
    let pool = name(layers, "instance.pool", raw.pool.unwrap_or_else(|| "default".to_owned()));
    if raw.port == Some(0) {
        layers.reject("instance.port", "is 0: give the inference server's port, or leave it out");
    }
    for (key, address) in
        [("instance.address", &raw.address), ("instance.health_address", &raw.health_address)]
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
        id: id.map(Into::into),
        region: region.map(Into::into),
        zone: raw.zone,
        subnet_id: raw.subnet_id,
        subnet_cidr: raw.subnet_cidr,
        ami_id: raw.ami_id,
        pool: pool?.into(),
        address: raw.address,
        port: raw.port,
        health_address: raw.health_address,
        provider: raw.provider,
        instance_type: raw.instance_type,
        slots: raw.slots,
        cost_per_hour: raw.cost_per_hour,
        frameworks: raw.frameworks,
        metadata: raw.metadata,
    })
}

/// Whether it can be part of keys in the store and of URLs.
pub(crate) fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.chars().all(is_plain)
}

fn name(layers: &mut Layers, key: &str, name: String) -> Option<String> {
    if !is_name(&name) {
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

fn gpu(layers: &mut Layers, raw: raw::Gpu) -> Gpu {
    if raw.library.as_deref() == Some("") {
        layers.reject("gpu.library", "is empty: give a path, or leave it out");
    }
    if raw.count == Some(0) {
        layers.reject("gpu.count", "is 0: give how many GPUs there must be, or leave it out");
    }
    let kernel_log = raw.kernel_log.unwrap_or_else(|| "/dev/kmsg".to_owned());
    let acknowledgement =
        raw.acknowledgement_file.unwrap_or_else(|| "/run/mrgc/gpu-acknowledged".to_owned());
    Gpu {
        library: raw.library,
        required: raw.required,
        interval: millis(layers, "gpu.interval_ms", raw.interval_ms, 5_000, 100..=300_000),
        deadline: millis(layers, "gpu.deadline_ms", raw.deadline_ms, 2_000, 10..=60_000),
        rare_every: u32::try_from(within(layers, "gpu.rare_every", raw.rare_every, 12, 1..=10_000))
            .unwrap_or(u32::MAX),
        count: raw.count,
        kernel_log: path(layers, "gpu.kernel_log", kernel_log),
        acknowledgement_file: path(layers, "gpu.acknowledgement_file", acknowledgement),
    }
}

fn path(layers: &mut Layers, key: &str, path: String) -> PathBuf {
    if !path.starts_with('/') {
        layers.reject(key, format!("is \"{path}\": give a path from the root"));
    }
    path.into()
}

fn enclave(layers: &mut Layers, raw: raw::Enclave) -> Enclave {
    if raw.nitro_cli.as_deref() == Some("") {
        layers.reject("enclave.nitro_cli", "is empty: give a name or a path, or leave it out");
    }
    let device = raw.device.unwrap_or_else(|| "/dev/nitro_enclaves".to_owned());
    let allocator =
        raw.allocator.unwrap_or_else(|| "/etc/nitro_enclaves/allocator.yaml".to_owned());
    Enclave {
        nitro_cli: raw.nitro_cli.unwrap_or_else(|| "nitro-cli".to_owned()),
        logs_directory: raw.logs_directory.map(|it| path(layers, "enclave.logs_directory", it)),
        device: path(layers, "enclave.device", device),
        allocator: path(layers, "enclave.allocator", allocator),
        channel: channel(layers, raw.port, raw.socket),
        required: raw.required,
        interval: millis(layers, "enclave.interval_ms", raw.interval_ms, 10_000, 100..=600_000),
        timeout: millis(layers, "enclave.timeout_ms", raw.timeout_ms, 5_000, 10..=60_000),
    }
}

/// The way to the enclave: a port of its vsock, or a socket of this machine.
fn channel(layers: &mut Layers, port: Option<u32>, socket: Option<String>) -> Option<Channel> {
    match (port, socket) {
        (None, None) => None,
        (Some(port), None) => Some(Channel::Vsock { port }),
        (None, Some(socket)) => {
            Some(Channel::Unix { path: path(layers, "enclave.socket", socket) })
        }
        (Some(_), Some(_)) => {
            layers.reject("enclave.socket", "is set beside enclave.port: choose one of them");
            None
        }
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

pub(super) fn seconds(
    layers: &mut Layers,
    key: &str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Duration {
    Duration::from_secs(within(layers, key, value, default, range))
}

pub(super) fn millis(
    layers: &mut Layers,
    key: &str,
    value: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
) -> Duration {
    Duration::from_millis(within(layers, key, value, default, range))
}

pub(super) fn within(
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

pub(super) fn check_url(layers: &mut Layers, key: &str, text: &str, schemes: &[&str]) {
    let is_good = reqwest::Url::parse(text).is_ok_and(|url| {
        schemes.contains(&url.scheme()) && url.has_host() && url.query().is_none()
    });
    if !is_good {
        let schemes = schemes.join(":// or ");
        layers.reject(key, format!("is \"{text}\": give a URL that begins with {schemes}://"));
    }
}
