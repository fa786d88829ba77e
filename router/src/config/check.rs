//! From what is written to what holds together: every error at once.

use std::{collections::BTreeSet, ffi::OsString};

use mrgc_fleet::{model::Needs, routing::MAX_ATTEMPTS};
use mrgc_settings::{Layers, Problems};

use super::{Config, Role, Route};

pub(super) fn read(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Problems> {
    let mut layers = Layers::new("MRGC_ROUTER").file(name, text).environment(environment);
    let config: Config = layers.read();
    if config.roles.watch_fleet() {
        layers.require("region", config.region.as_ref());
        check_fleet(&mut layers, &config);
    }
    if config.roles.has(Role::Proxy) {
        check_routes(&mut layers, &config);
        check_tenants(&mut layers, &config);
    }
    check_roles(&mut layers, &config);
    check_numbers(&mut layers, &config);
    layers.finish(Some(config))
}

/// Those that only watch have nothing to watch without a store, and nobody to tell.
fn check_roles(layers: &mut Layers, config: &Config) {
    let has_store = config.store.is_some() || config.roles.has(Role::State);
    if config.roles.watch_fleet() && !config.roles.has(Role::Proxy) && !has_store {
        layers.reject("roles", "health and failover without proxy need a [store]");
    }
}

fn check_fleet(layers: &mut Layers, config: &Config) {
    let mut seen = BTreeSet::new();
    for (i, region) in config.regions.iter().enumerate() {
        for problem in region.problems() {
            layers.reject(&format!("regions[{i}]"), problem);
        }
        if !seen.insert(&region.id) {
            layers.reject(
                &format!("regions[{i}].region_id"),
                format!("`{}` is there twice", region.id),
            );
        }
    }
    let mut ids = BTreeSet::new();
    for (i, instance) in config.instances.iter().enumerate() {
        let key = |field: &str| format!("instances[{i}].{field}");
        if !ids.insert(&instance.id) {
            layers.reject(&key("id"), format!("`{}` is there twice", instance.id));
        }
        if !seen.contains(&instance.region) {
            layers.reject(&key("region"), format!("`{}` is not among `regions`", instance.region));
        }
        if instance.address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            layers.reject(&key("address"), format!("`{}` is not host:port", instance.address));
        }
    }
    let has_store = config.store.is_some() || config.roles.has(Role::State);
    if !has_store && !config.regions.iter().any(|r| Some(&r.id) == config.region.as_ref()) {
        layers.reject("region", "is not among `regions`: without a [store], list it there");
    }
    config.attestation.check(layers, has_store);
    if has_store && !config.instances.is_empty() {
        layers.reject("instances", "are for a router without state; agents register themselves");
    }
}

fn check_routes(layers: &mut Layers, config: &Config) {
    let mut names = BTreeSet::new();
    for (i, route) in config.routes.iter().enumerate() {
        let key = |field: &str| format!("routes[{i}].{field}");
        if !names.insert(&route.name) {
            layers.reject(&key("name"), format!("`{}` is there twice", route.name));
        }
        if route.attempts.is_some_and(|n| !(1..=MAX_ATTEMPTS).contains(&n)) {
            layers.reject(&key("attempts"), format!("must be within 1 and {MAX_ATTEMPTS}"));
        }
        check_policies(layers, i, route);
        check_needs(layers, &key("needs"), &route.needs);
    }
}

fn check_policies(layers: &mut Layers, i: usize, route: &Route) {
    for (j, policy) in route.policies.iter().enumerate() {
        let key = |field: &str| format!("routes[{i}].policies[{j}].{field}");
        if !(policy.weight.is_finite() && policy.weight >= 0.0) {
            layers.reject(&key("weight"), format!("{} is not 0 or more", policy.weight));
        }
        if !is_policy_name(&policy.name) {
            layers.reject(
                &key("name"),
                format!(
                    "`{}` is not a policy's name: lower-case letters, digits and `-`",
                    policy.name
                ),
            );
        }
    }
}

fn check_needs(layers: &mut Layers, key: &str, needs: &Needs) {
    if needs.contradictory {
        layers.reject(&format!("{key}.contradictory"), "is not a setting");
    }
}

/// Names go into paths and URLs.
pub fn is_policy_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn check_tenants(layers: &mut Layers, config: &Config) {
    for (i, tenant) in config.tenants.iter().enumerate() {
        let digest = &tenant.key_sha256;
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            layers.reject(
                &format!("tenants[{i}].key_sha256"),
                "is not 64 hexadecimal digits: make it with `printf %s KEY | sha256sum`",
            );
        }
        check_needs(layers, &format!("tenants[{i}].needs"), &tenant.needs);
    }
}

/// All that contradicts itself within a section, as one: of a key, one problem is told.
pub(super) fn check_section(layers: &mut Layers, key: &str, problems: &[String]) {
    if !problems.is_empty() {
        layers.reject(key, problems.join("; "));
    }
}

pub(super) fn check_seconds(layers: &mut Layers, key: &str, value: f64) {
    if !(value.is_finite() && (0.01..=86_400.0).contains(&value)) {
        layers.reject(key, format!("{value} is not within 0.01 and 86400"));
    }
}

fn check_numbers(layers: &mut Layers, config: &Config) {
    config.health_check.check(layers);
    config.ejection.check(layers);
    config.failover.check(layers, &config.health_check);
    super::aws::check(layers, config);
    let follow = &config.follow;
    for (key, value) in [
        ("follow.interval_seconds", follow.interval_seconds),
        ("follow.registrations_interval_seconds", follow.registrations_interval_seconds),
        ("metrics.flush_interval_seconds", config.metrics.flush_interval_seconds),
    ] {
        check_seconds(layers, key, value);
    }
    let limits = &config.limits;
    for (key, value, least, most) in [
        ("head_bytes", limits.head_bytes as u64, 8 << 10, 1 << 20),
        ("buffered_body_bytes", limits.buffered_body_bytes as u64, 1 << 10, 64 << 20),
        ("body_bytes", limits.body_bytes, limits.buffered_body_bytes as u64, 16 << 30),
        ("attempts", limits.attempts as u64, 1, MAX_ATTEMPTS as u64),
        ("connect_timeout_ms", limits.connect_timeout_ms, 1, 60_000),
        ("first_byte_timeout_ms", limits.first_byte_timeout_ms, 1, 3_600_000),
        ("idle_timeout_ms", limits.idle_timeout_ms, 1, 3_600_000),
        ("deadline_ms", limits.deadline_ms, 1, 3_600_000),
        ("connections", limits.connections as u64, 1, 1 << 20),
    ] {
        if !(least..=most).contains(&value) {
            layers.reject(
                &format!("limits.{key}"),
                format!("{value} is not within {least} and {most}"),
            );
        }
    }
    for (key, value) in [
        ("score_deadline_ms", config.policies.score_deadline_ms),
        ("observe_deadline_ms", config.policies.observe_deadline_ms),
    ] {
        if !(1..=10_000).contains(&value) {
            layers.reject(&format!("policies.{key}"), format!("{value} is not within 1 and 10000"));
        }
    }
    if config.peers.key.as_ref().is_some_and(|key| key.len() < 16) {
        layers.reject(
            "peers.key",
            "is shorter than 16 characters: make one with `openssl rand -hex 32`",
        );
    }
}
