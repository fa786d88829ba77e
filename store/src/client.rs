//! Connecting to DynamoDB: configuration, credentials, deadlines.
//!
//! A call has one deadline, `timeout_ms`, in which the SDK makes up to three attempts; connections are
//! pooled and kept alive. What needs several calls (listing, an artifact) has a deadline for each.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region as AwsRegion, environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain, retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, SharedHttpClient},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use serde::{Deserialize, Serialize};

use crate::{error::StoreError, regions::ShardCache, schema};

/// Attempts at one call, the first included.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; the SDK's default of 1 s would eat the deadline.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
/// Of the deadline, what one attempt may take, so that a dead connection leaves time for another.
const ATTEMPT_SHARE: f64 = 0.5;
/// What a loopback endpoint is told where nobody said; emulators take any region.
const LOOPBACK_REGION: &str = "us-east-1";

/// Where the state is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// As in `http://127.0.0.1:8000`; `None` is AWS.
    pub endpoint: Option<String>,
    /// As in `us-east-1`; `None` asks the environment, then the instance.
    pub aws_region: Option<String>,
    /// Before each table's name, with a dash.
    pub table_prefix: String,
    /// Deadline of one call, its retries included.
    pub timeout_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            aws_region: None,
            table_prefix: "mrgc".to_owned(),
            timeout_ms: 2_000,
        }
    }
}

/// The fleet's shared state. Clones share one connection pool.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) table_prefix: String,
    /// For messages.
    pub(crate) endpoint: String,
    pub(crate) timeout_ms: u64,
    pub(crate) shards: ShardCache,
    pub(crate) counters: Counters,
}

/// What happened at the store's bounds since it was connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Items that could not be read and were skipped.
    pub corrupt_items: u64,
    /// Writes that the SDK repeated although the first had been done.
    pub repeated_writes: u64,
    /// Reports that were shortened to fit their budget.
    pub shortened_reports: u64,
    /// Reports above their budget even so.
    pub oversized_reports: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) corrupt_items: AtomicU64,
    pub(crate) repeated_writes: AtomicU64,
    pub(crate) shortened_reports: AtomicU64,
    pub(crate) oversized_reports: AtomicU64,
}

impl Store {
    /// Prepares the client; nothing is asked of the store yet.
    ///
    /// A loopback endpoint is given the credentials of the environment or, where there are none, made-up
    /// ones, which the embedded engine does not check. Anything else gets the SDK's usual chain.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        check(config).map_err(|reason| StoreError::NotConfigured { reason })?;
        let endpoint = config.endpoint.as_deref();
        let loopback = endpoint.is_some_and(is_loopback);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client(loopback, endpoint)?);
        if let Some(region) = &config.aws_region {
            loader = loader.region(AwsRegion::new(region.clone()));
        } else if loopback {
            loader = loader.region(AwsRegion::from_static(LOOPBACK_REGION));
        }
        if loopback {
            loader = loader.credentials_provider(loopback_credentials());
        }
        let shared = loader.load().await;
        let Some(region) = shared.region().map(ToString::to_string) else {
            let reason = "no AWS region: set `aws_region` or AWS_REGION".to_owned();
            return Err(StoreError::NotConfigured { reason });
        };

        let mut builder = aws_sdk_dynamodb::config::Builder::from(&shared)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(FIRST_BACKOFF),
            )
            .timeout_config(timeouts(Duration::from_millis(config.timeout_ms)));
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Ok(Self(Arc::new(Inner {
            client: Client::from_conf(builder.build()),
            table_prefix: config.table_prefix.clone(),
            endpoint: endpoint.map_or_else(|| format!("DynamoDB in {region}"), str::to_owned),
            timeout_ms: config.timeout_ms,
            shards: ShardCache::default(),
            counters: Counters::default(),
        })))
    }

    /// What happened at the store's bounds since it was connected.
    pub fn counts(&self) -> Counts {
        let counters = &self.0.counters;
        Counts {
            corrupt_items: counters.corrupt_items.load(Ordering::Relaxed),
            repeated_writes: counters.repeated_writes.load(Ordering::Relaxed),
            shortened_reports: counters.shortened_reports.load(Ordering::Relaxed),
            oversized_reports: counters.oversized_reports.load(Ordering::Relaxed),
        }
    }
}

fn check(config: &StoreConfig) -> Result<(), String> {
    schema::check_prefix(&config.table_prefix)?;
    if config.timeout_ms == 0 {
        return Err("`timeout_ms` is 0; it must be at least 1".to_owned());
    }
    match &config.endpoint {
        Some(endpoint) if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") => {
            Err(format!("`endpoint` is `{endpoint}`; it must be an http:// or https:// URL"))
        }
        _ => Ok(()),
    }
}

fn timeouts(deadline: Duration) -> TimeoutConfig {
    let attempt = deadline.mul_f64(ATTEMPT_SHARE);
    TimeoutConfig::builder()
        .operation_timeout(deadline)
        .operation_attempt_timeout(attempt)
        .connect_timeout(attempt)
        .build()
}

/// One client for TLS and plain endpoints. Where the endpoint needs no TLS and is on this machine, the
/// system's root certificates are not loaded: a small image may have none.
fn http_client(loopback: bool, endpoint: Option<&str>) -> Result<SharedHttpClient, StoreError> {
    let plain = endpoint.is_some_and(|e| e.starts_with("http://"));
    let trust = if loopback && plain { TrustStore::empty() } else { TrustStore::default() };
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|e| StoreError::NotConfigured { reason: format!("TLS: {e}") })?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https())
}

fn loopback_credentials() -> CredentialsProviderChain {
    let made_up = Credentials::new("mrgc", "mrgc", None, None, "loopback");
    CredentialsProviderChain::first_try(
        "environment",
        EnvironmentVariableCredentialsProvider::new(),
    )
    .or_else("loopback", made_up)
}

/// Whether an `http://` or `https://` endpoint is on this machine, by its text alone: a name other than
/// `localhost` is never taken for loopback, whatever it resolves to.
fn is_loopback(endpoint: &str) -> bool {
    let after_scheme = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = after_scheme.split('/').next().unwrap_or_default();
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    };
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:8000", true),
            ("http://127.0.0.1:8000/", true),
            ("http://127.9.9.9", true),
            ("http://localhost:8000", true),
            ("http://[::1]:8000", true),
            ("http://[::1]", true),
            ("https://dynamodb.us-east-1.amazonaws.com", false),
            ("http://10.0.0.1:8000", false),
            ("http://localhost.example.com", false),
            ("http://localhost@example.com", false),
            ("http://localhost:8000@example.com", false),
            ("http://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(endpoint), expected, "{endpoint}");
        }
    }
}
