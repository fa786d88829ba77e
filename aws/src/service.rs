//! One service of AWS that speaks the Query protocol: fields in, an answer's text out.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use aws_smithy_http_client::{
    Builder, Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::HttpConnector, identity::Identity, orchestrator::HttpRequest,
};
use form_urlencoded::Serializer;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    credentials::{Cache, chain},
    error::CallError,
};

/// One attempt at a call, credentials included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two attempts: full jitter below a bound that doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// An answer for 100 instances has some 100 KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const TLS: Provider = Provider::Rustls(CryptoMode::Ring);
const FORM: &str = "application/x-www-form-urlencoded";

/// An AWS region, and who calls there. Clones share their credentials.
#[derive(Clone, Debug)]
pub struct Session {
    aws_region: String,
    credentials: Arc<Cache>,
}

impl Session {
    /// With the credentials of the SDK's chain: environment, profile, web identity, container, instance.
    pub async fn new(aws_region: &str) -> Result<Self, CallError> {
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .http_client(Builder::new().tls_provider(TLS).build_https())
            .region(Region::new(aws_region.to_owned()))
            .load()
            .await;
        let none = || CallError::Credentials("the SDK has no chain of providers".to_owned());
        Ok(Self::new_as(aws_region, sdk.credentials_provider().ok_or_else(none)?))
    }

    /// As somebody else than the environment says.
    pub fn new_as(aws_region: &str, credentials: SharedCredentialsProvider) -> Self {
        let credentials = Arc::new(Cache::new(credentials));
        Self { aws_region: aws_region.to_owned(), credentials }
    }
}

/// What is fixed of a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    /// In its host's name and in signatures.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// A service in a session's region.
#[derive(Debug)]
pub(crate) struct Service {
    api: Api,
    session: Session,
    url: String,
    connector: Connector,
    /// All attempts at a call together.
    patience: Duration,
}

impl Service {
    /// `endpoint`: a URL in place of the service's own.
    pub(crate) fn new(
        api: Api,
        session: &Session,
        endpoint: Option<&str>,
        patience: Duration,
    ) -> Self {
        let own = || endpoint_in(api.name, &session.aws_region);
        let endpoint = endpoint.map_or_else(own, str::to_owned);
        // The system's root certificates are not needed for plain HTTP: a small image may have none.
        let connector = match endpoint.starts_with("http://") {
            true => Connector::builder().build_http(),
            false => Connector::builder().tls_provider(TLS).build(),
        };
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        Self { api, session: session.clone(), url, connector, patience }
    }

    /// The text of the answer, as soon as an attempt succeeds.
    pub(crate) async fn call(
        &self,
        action: &str,
        fields: &[(&str, &str)],
    ) -> Result<String, CallError> {
        let body = self.form(action, fields);
        let end = Instant::now() + self.patience;
        let mut failures = 0;
        loop {
            let limit = ATTEMPT_TIMEOUT.min(end.saturating_duration_since(Instant::now()));
            let attempt = timeout(limit, self.attempt(&body)).await;
            let error = match attempt.unwrap_or(Err(CallError::TimedOut(limit))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_expiry() {
                self.session.credentials.forget().await;
            }
            failures += 1;
            let pause = wait(failures, fastrand::f64());
            if !error.is_retryable() || Instant::now() + pause >= end {
                return Err(error);
            }
            tracing::debug!(%error, service = self.api.name, action, failures, "tried again");
            sleep(pause).await;
        }
    }

    fn form(&self, action: &str, fields: &[(&str, &str)]) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", action).append_pair("Version", self.api.version);
        form.extend_pairs(fields).finish()
    }

    async fn attempt(&self, body: &str) -> Result<String, CallError> {
        let credentials = self.session.credentials.get().await?;
        let request = self.signed(credentials, body)?;
        let broken = |error: &dyn std::error::Error| CallError::Broken(chain(error));
        let response = self.connector.call(request).await.map_err(|error| broken(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => CallError::Garbled(format!("more than {MAX_ANSWER_BYTES} bytes")),
            false => broken(error.as_ref()),
        })?;
        let body = body.to_bytes();
        let body = String::from_utf8_lossy(&body);
        match status {
            200..=299 => Ok(body.into_owned()),
            _ => Err(CallError::from_answer(status, &body)),
        }
    }

    fn signed(&self, credentials: Credentials, body: &str) -> Result<HttpRequest, CallError> {
        let wrong = |error: &dyn std::error::Error| CallError::Request(chain(error));
        let identity = Identity::from(credentials);
        let headers = [("content-type", FORM)];
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.session.aws_region)
            .name(self.api.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| wrong(&error))?
            .into();
        let signable = SignableRequest::new(
            "POST",
            &self.url,
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signable = signable.map_err(|error| wrong(&error))?;
        let signed = sign(signable, &params).map_err(|error| wrong(&error))?;
        let (signatures, _no_query) = signed.into_parts().0.into_parts();
        let mut request = HttpRequest::new(body.into());
        request.set_method("POST").map_err(|error| wrong(&error))?;
        request.set_uri(self.url.as_str()).map_err(|error| wrong(&error))?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        for header in signatures {
            request.headers_mut().insert(header.name(), header.value().to_owned());
        }
        Ok(request)
    }
}

fn endpoint_in(service: &str, aws_region: &str) -> String {
    let domain = if aws_region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{aws_region}.{domain}")
}

/// `random` is uniform over 0 to 1.
fn wait(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        for (failures, random, expected_ms) in
            [(1, 1.0, 500), (1, 0.0, 0), (2, 0.5, 500), (5, 1.0, 8_000), (u32::MAX, 1.0, 10_000)]
        {
            assert_eq!(wait(failures, random).as_millis(), expected_ms, "after {failures}");
        }
    }

    #[test]
    fn a_region_has_its_partitions_domain() {
        assert_eq!(endpoint_in("ec2", "us-east-1"), "https://ec2.us-east-1.amazonaws.com");
        assert_eq!(endpoint_in("ec2", "cn-north-1"), "https://ec2.cn-north-1.amazonaws.com.cn");
    }
}
