//! Completes the lifecycle action of an Auto Scaling group's hook once the instance is drained, so that the
//! group need not wait for the hook's timeout.
//!
//! One call of one service: signed by the SDK's own signer and sent by its own client, as the SDK for this
//! service would be larger than the agent.

use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::ProvideCredentials;
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
use http_body_util::{BodyExt, Limited};
use mrgc_fleet::model::Registration;
use tokio::time;

use crate::{
    backoff::Backoff,
    config,
    identity::{Imds, Told},
};

/// All attempts together. The hook's own timeout ends the wait after that.
const LIMIT: Duration = Duration::from_secs(60);

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const BACKOFF: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(10) };

const TLS: Provider = Provider::Rustls(CryptoMode::Ring);

const SERVICE: &str = "autoscaling";
const FORM: &str = "application/x-www-form-urlencoded";
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Enough of an answer to recognise the trouble.
const MAX_QUOTED_BYTES: usize = 300;

/// Where instances can read their own tags, their group's name is among them.
const GROUP_TAG: &str = "/latest/meta-data/tags/instance/aws:autoscaling:groupName";

/// What an instance needs to take its leave of its group.
#[derive(Debug)]
pub(crate) struct Farewell {
    id: String,
    aws_region: String,
    config: config::Notices,
    imds: Imds,
}

impl Farewell {
    /// The AWS region is the one that EC2 says or, failing that, that of the store or of the registration.
    pub(crate) fn new(
        config: &config::Config,
        told: &Told,
        registration: &Registration,
    ) -> reqwest::Result<Self> {
        let of_ec2 = told.as_ref().ok().and_then(|facts| facts.document.region.clone());
        let aws_region = of_ec2.or_else(|| config.store.aws_region.clone());
        Ok(Self {
            id: registration.id.to_string(),
            aws_region: aws_region.unwrap_or_else(|| registration.region.to_string()),
            config: config.notices.clone(),
            imds: Imds::new(&config.identity.endpoint)?,
        })
    }

    /// Completes the action, as often as it takes within a limit, and says in the log what came of it.
    pub(crate) async fn complete(mut self) {
        let Some(hook) = self.config.lifecycle_hook.clone() else {
            return tracing::info!("no notices.lifecycle_hook is configured: nothing to complete");
        };
        match time::timeout(LIMIT, self.attempts(&hook)).await {
            Ok(Ok(group)) => tracing::info!(hook, group, "lifecycle action completed"),
            Ok(Err(error)) => tracing::error!(hook, "lifecycle action not completed: {error:#}"),
            Err(_) => tracing::error!(hook, "lifecycle action not completed within {LIMIT:?}"),
        }
    }

    async fn attempts(&mut self, hook: &str) -> anyhow::Result<String> {
        let group = self.group().await?;
        let mut failures = 0;
        loop {
            let reason = match time::timeout(CALL_TIMEOUT, self.call(hook, &group)).await {
                Ok(Ok(Answer::Done)) => return Ok(group),
                Ok(Ok(Answer::Refused(reason))) => bail!(reason),
                Ok(Ok(Answer::Later(reason))) => reason,
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
            };
            failures += 1;
            tracing::warn!(reason, failures, "the lifecycle action is tried again");
            time::sleep(BACKOFF.wait(failures, fastrand::f64())).await;
        }
    }

    async fn group(&mut self) -> anyhow::Result<String> {
        if let Some(group) = &self.config.auto_scaling_group {
            return Ok(group.clone());
        }
        let page = self.imds.get(GROUP_TAG).await.context("the group's name is not known")?;
        page.map(|page| page.text.trim().to_owned()).ok_or_else(|| {
            anyhow!(
                "the group's name is not known: set notices.auto_scaling_group, or the instance's \
                 InstanceMetadataTags to enabled"
            )
        })
    }

    async fn call(&self, hook: &str, group: &str) -> anyhow::Result<Answer> {
        let sdk = aws_config::defaults(BehaviorVersion::latest())
            .http_client(Builder::new().tls_provider(TLS).build_https())
            .region(Region::new(self.aws_region.clone()))
            .load()
            .await;
        let credentials = sdk.credentials_provider().context("there are no AWS credentials")?;
        let identity = credentials.provide_credentials().await?.into();
        let endpoint = self.config.auto_scaling_endpoint.clone();
        let endpoint = endpoint.unwrap_or_else(|| endpoint_in(&self.aws_region));
        let body = form(&[
            ("Action", "CompleteLifecycleAction"),
            ("Version", "2011-01-01"),
            ("AutoScalingGroupName", group),
            ("LifecycleHookName", hook),
            ("InstanceId", &self.id),
            ("LifecycleActionResult", "CONTINUE"),
        ])?;
        let request = signed(&identity, &self.aws_region, &endpoint, body)?;
        let connector = Connector::builder().tls_provider(TLS).build();
        let response = connector.call(request).await?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        Ok(answer(code, &String::from_utf8_lossy(&body)))
    }
}

/// What the service said.
enum Answer {
    Done,
    Refused(String),
    /// It throttles, or fails.
    Later(String),
}

/// An action that is completed already, or timed out, is none any more: then there is nothing left to do.
fn answer(code: u16, body: &str) -> Answer {
    let quoted = &body[..body.floor_char_boundary(MAX_QUOTED_BYTES)];
    match code {
        200..=299 => Answer::Done,
        400 if body.contains("No active Lifecycle Action found") => Answer::Done,
        400 if body.contains("<Code>Throttling") => Answer::Later(quoted.to_owned()),
        429 | 500..=599 => Answer::Later(format!("{code} {quoted}")),
        _ => Answer::Refused(format!("{code} {quoted}")),
    }
}

fn endpoint_in(aws_region: &str) -> String {
    let domain = if aws_region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{SERVICE}.{aws_region}.{domain}")
}

fn form(fields: &[(&str, &str)]) -> anyhow::Result<String> {
    let url = reqwest::Url::parse_with_params("http://form", fields)?;
    Ok(url.query().unwrap_or_default().to_owned())
}

fn signed(
    identity: &Identity,
    aws_region: &str,
    endpoint: &str,
    body: String,
) -> anyhow::Result<HttpRequest> {
    let url = format!("{}/", endpoint.trim_end_matches('/'));
    let headers = [("content-type", FORM)];
    let params = SigningParams::builder()
        .identity(identity)
        .region(aws_region)
        .name(SERVICE)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()?
        .into();
    let signable = SignableRequest::new(
        "POST",
        &url,
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    )?;
    let (instructions, _signature) = sign(signable, &params)?.into_parts();
    let (signatures, _no_query) = instructions.into_parts();
    let mut request = HttpRequest::new(body.into());
    request.set_method("POST")?;
    request.set_uri(url)?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value);
    }
    for header in signatures {
        request.headers_mut().insert(header.name(), header.value().to_owned());
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let throttled = "<Error><Code>Throttling</Code></Error>";
        let gone = "<Message>No active Lifecycle Action found with instance ID i-1</Message>";
        for (code, body, expected) in [
            (200, "", "done"),
            (400, gone, "done"),
            (400, throttled, "later"),
            (400, "<Code>ValidationError</Code>", "refused"),
            (403, "<Code>AccessDenied</Code>", "refused"),
            (429, "", "later"),
            (503, "", "later"),
        ] {
            let told = match answer(code, body) {
                Answer::Done => "done",
                Answer::Later(_) => "later",
                Answer::Refused(_) => "refused",
            };
            assert_eq!(told, expected, "{code} {body}");
        }
    }

    #[test]
    fn a_name_with_odd_characters_stays_one_field() {
        let form = form(&[("A", "x&y=z"), ("B", "é /")]).unwrap_or_default();
        assert_eq!(form, "A=x%26y%3Dz&B=%C3%A9+%2F");
    }
}
