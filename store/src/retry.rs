//! How one call is repeated, and what is counted of its attempts, which the SDK does not show.
//!
//! A call is tried up to three times within its deadline. Transient faults (nothing answers, a broken
//! connection, a 5xx), throttling and expired credentials are tried again; what the service refuses is
//! not. The wait before attempt n + 1 is uniform between 0 and 25 ms · 2^(n-1): exponential backoff with
//! full jitter.
//!
//! **Why the SDK's standard mode and not the adaptive one.** The adaptive mode adds a rate limiter to the
//! same backoff. It begins with the first throttled answer, lets through at least 0.5 requests a second,
//! is shared by all of a client's calls whatever their table and partition, and makes a call wait before
//! its first attempt, within the call's deadline. One hot partition would then hold up the reads of every
//! other table, and what is in truth throttling would come out as a timeout. An agent with one write
//! every few seconds is below the limiter's floor in any case. So a throttled call fails as
//! [`StoreError::Throttled`](crate::StoreError::Throttled), and who made it slows down: the agent's
//! heartbeats do.
//!
//! **The retry quota** is the SDK's, of a bucket that each store has for itself: 500 tokens, of which a
//! retry takes 5, or 10 after a timeout. It refills by one with each call that succeeds at once, and by 10
//! a second here, so that the quota which an outage used up is back within a minute.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::config::{
    Builder, ConfigBag, Intercept, RuntimeComponents,
    interceptors::{
        BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef, InterceptorContext,
    },
    retry::{ClassifyRetry, RetryAction, RetryConfig, RetryPartition, TokenBucket},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{orchestrator::HttpResponse, retries::RequestAttempts},
};
use serde::Deserialize;

use crate::{
    counts::{Counters, add},
    credentials::Identities,
    error,
};

/// Attempts at one call, the first included.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; the SDK's default of 1 s would eat the deadline.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
const QUOTA_TOKENS: usize = 500;
const QUOTA_REFILL_PER_SECOND: f32 = 10.0;

/// Gives a client its retries, their counting, and credentials that are renewed when they expired.
pub(crate) fn configure(builder: Builder, counters: &Arc<Counters>) -> Builder {
    let quota =
        TokenBucket::builder().capacity(QUOTA_TOKENS).refill_rate(QUOTA_REFILL_PER_SECOND).build();
    let retry = RetryConfig::standard().with_max_attempts(ATTEMPTS);
    let identities = Identities::default();
    builder
        .retry_config(retry.with_initial_backoff(FIRST_BACKOFF))
        .retry_partition(RetryPartition::custom("mrgc").token_bucket(quota).build())
        .retry_classifier(ExpiredCredentials)
        .identity_cache(identities.clone())
        .interceptor(Attempts { counters: Arc::clone(counters), identities })
}

/// Sees each attempt: counts it, and has expired credentials renewed before the next.
#[derive(Debug)]
struct Attempts {
    counters: Arc<Counters>,
    identities: Identities,
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "mrgc attempts"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if config.load::<RequestAttempts>().is_some_and(|n| n.attempts() > 1) {
            add(&self.counters.retried);
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(code) = context.response().and_then(error_code) else { return Ok(()) };
        if error::is_throttling(&code) {
            add(&self.counters.throttled);
        } else if is_expired(&code) && self.identities.renew(Instant::now()) {
            add(&self.counters.renewed_credentials);
        }
        Ok(())
    }
}

/// The SDK takes expired credentials for a refusal like any other.
#[derive(Debug)]
struct ExpiredCredentials;

impl ClassifyRetry for ExpiredCredentials {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().and_then(error_code) {
            Some(code) if is_expired(&code) => RetryAction::client_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "mrgc expired credentials"
    }
}

fn is_expired(code: &str) -> bool {
    matches!(code, "ExpiredToken" | "ExpiredTokenException")
}

/// What an answer that is an error calls itself, as in `ThrottlingException`.
fn error_code(response: &HttpResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "__type")]
        kind: String,
    }

    if response.status().is_success() {
        return None;
    }
    let body: Body = serde_json::from_slice(response.body().bytes()?).ok()?;
    let code = body.kind.rsplit('#').next().unwrap_or_default();
    Some(code.split(':').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_answer_says_what_it_is() {
        for (status, body, expected) in [
            (
                400,
                r#"{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException"}"#,
                Some("ThrottlingException"),
            ),
            (
                400,
                r#"{"__type":"ExpiredTokenException:http://x","message":"m"}"#,
                Some("ExpiredTokenException"),
            ),
            (200, r#"{"__type":"ThrottlingException"}"#, None),
            (400, "<html>", None),
            (400, "{}", None),
        ] {
            let status = u16::try_from(status).unwrap().try_into().unwrap();
            let response = HttpResponse::new(status, body.as_bytes().to_vec().into());
            assert_eq!(error_code(&response).as_deref(), expected, "{status} {body}");
        }
    }
}
