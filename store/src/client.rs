//! Connecting to DynamoDB: configuration, endpoints, deadlines.
//!
//! A call has one deadline, `timeout_ms`, in which up to three attempts are made (`retry`) and, if it
//! reads, replicas are asked (`reads`); connections are pooled and kept alive. What needs several calls
//! (listing, an artifact) has a deadline for each.

use std::{error::Error, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region as AwsRegion, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client,
    config::{Builder, ProvideCredentials, SharedCredentialsProvider, SharedHttpClient},
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

use crate::{
    config::{Replica, StoreConfig, is_loopback},
    corrupt::CorruptItems,
    counts::{Counters, Counts},
    credentials,
    error::{Call, StoreError},
    reads::{Endpoint, Replicas},
    regions::ShardCache,
    retry,
};

/// Of the deadline, what one attempt may take, so that a dead connection leaves time for another.
const ATTEMPT_SHARE: f64 = 0.5;
/// What a loopback endpoint is told where nobody said; emulators take any region.
const LOOPBACK_REGION: &str = "us-east-1";

/// The fleet's shared state. Clones share one connection pool.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) table_prefix: String,
    aws_region: String,
    /// For messages.
    pub(crate) endpoint: String,
    pub(crate) timeout_ms: u64,
    pub(crate) replicas: Replicas,
    pub(crate) shards: ShardCache,
    pub(crate) corrupt: CorruptItems,
    pub(crate) counters: Arc<Counters>,
}

impl Store {
    /// Prepares the client; nothing is asked of the store yet.
    ///
    /// A loopback endpoint is given the credentials of the environment or, where there are none, made-up
    /// ones, which the embedded engine does not check. Anything else gets the SDK's usual chain.
    pub async fn connect(config: &StoreConfig) -> Result<Self, StoreError> {
        let loopback = config.endpoint.as_deref().is_some_and(is_loopback);
        let credentials = loopback.then(|| SharedCredentialsProvider::new(credentials::loopback()));
        Self::connect_with(config, credentials).await
    }

    /// Like [`Store::connect`], as somebody else than the environment says. The provider is asked again
    /// shortly before what it gave expires, and once the service calls that expired.
    pub async fn connect_as(
        config: &StoreConfig,
        credentials: impl ProvideCredentials + 'static,
    ) -> Result<Self, StoreError> {
        Self::connect_with(config, Some(SharedCredentialsProvider::new(credentials))).await
    }

    async fn connect_with(
        config: &StoreConfig,
        credentials: Option<SharedCredentialsProvider>,
    ) -> Result<Self, StoreError> {
        config.check().map_err(|reason| StoreError::NotConfigured { reason })?;
        let endpoint = config.endpoint.as_deref();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client(config.needs_no_tls())?);
        if let Some(region) = &config.aws_region {
            loader = loader.region(AwsRegion::new(region.clone()));
        } else if endpoint.is_some_and(is_loopback) {
            loader = loader.region(AwsRegion::from_static(LOOPBACK_REGION));
        }
        if let Some(credentials) = credentials {
            loader = loader.credentials_provider(credentials);
        }
        let shared = loader.load().await;
        let Some(region) = shared.region().map(ToString::to_string) else {
            let reason = "no AWS region: set `aws_region` or AWS_REGION".to_owned();
            return Err(StoreError::NotConfigured { reason });
        };

        let counters = Arc::new(Counters::default());
        let deadline = Duration::from_millis(config.timeout_ms);
        let mut builder = Builder::from(&shared).timeout_config(timeouts(deadline));
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        let builder = retry::configure(builder, &counters);
        let replicas = config.replicas.iter().map(|replica| replica_of(&builder, replica));
        Ok(Self(Arc::new(Inner {
            replicas: Replicas::new(replicas.collect()),
            client: Client::from_conf(builder.build()),
            table_prefix: config.table_prefix.clone(),
            aws_region: region.clone(),
            endpoint: endpoint.map_or_else(|| in_aws(&region), str::to_owned),
            timeout_ms: config.timeout_ms,
            shards: ShardCache::default(),
            corrupt: CorruptItems::default(),
            counters,
        })))
    }

    /// The AWS region whose replica of the tables is written, as in `us-east-1`.
    pub fn aws_region(&self) -> &str {
        &self.0.aws_region
    }

    /// What happened at the store's bounds since it was connected.
    pub fn counts(&self) -> Counts {
        self.0.counters.read()
    }

    /// A call of the primary that failed, counted.
    pub(crate) fn failed<E>(&self, call: Call, error: SdkError<E>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let error = StoreError::from_sdk(call, &self.0.endpoint, self.0.timeout_ms, error);
        self.0.counters.count_failure(&error);
        error
    }
}

/// The same client for another region.
fn replica_of(primary: &Builder, replica: &Replica) -> Endpoint {
    let Replica { aws_region, endpoint } = replica;
    let mut builder = primary.clone().region(AwsRegion::new(aws_region.clone()));
    builder.set_endpoint_url(endpoint.clone());
    let name = endpoint.clone().unwrap_or_else(|| in_aws(aws_region));
    Endpoint { client: Client::from_conf(builder.build()), name }
}

fn in_aws(region: &str) -> String {
    format!("DynamoDB in {region}")
}

fn timeouts(deadline: Duration) -> TimeoutConfig {
    let attempt = deadline.mul_f64(ATTEMPT_SHARE);
    TimeoutConfig::builder()
        .operation_timeout(deadline)
        .operation_attempt_timeout(attempt)
        .connect_timeout(attempt)
        .build()
}

/// One client for TLS and plain endpoints. Where nothing needs TLS, the system's root certificates are not
/// loaded: a small image may have none.
fn http_client(needs_no_tls: bool) -> Result<SharedHttpClient, StoreError> {
    let trust = if needs_no_tls { TrustStore::empty() } else { TrustStore::default() };
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|e| StoreError::NotConfigured { reason: format!("TLS: {e}") })?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(tls)
        .build_https())
}
