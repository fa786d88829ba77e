//! Who the client is: the SDK's chain, asked once for as long as its answer holds.

use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use tokio::sync::Mutex;

use crate::error::CallError;

/// New ones are asked for this long before the old ones end, as a request must not end with them.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);

/// Those that name no end are asked for again after this time: somebody may have changed a file.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Credentials that are asked for when they are needed, and kept.
#[derive(Debug)]
pub(crate) struct Cache {
    provider: SharedCredentialsProvider,
    /// With the moment at which they were got. Locked while they are asked for: others wait for the answer.
    kept: Mutex<Option<(Credentials, Instant)>>,
}

impl Cache {
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self { provider, kept: Mutex::new(None) }
    }

    pub(crate) async fn get(&self) -> Result<Credentials, CallError> {
        let mut kept = self.kept.lock().await;
        if let Some((credentials, since)) = &*kept
            && holds(credentials.expiry(), since.elapsed(), SystemTime::now())
        {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.provide_credentials().await;
        let credentials = credentials.map_err(|error| CallError::Credentials(chain(&error)))?;
        *kept = Some((credentials.clone(), Instant::now()));
        Ok(credentials)
    }

    /// The service called them expired, whatever they say of themselves.
    pub(crate) async fn forget(&self) {
        *self.kept.lock().await = None;
    }
}

fn holds(expiry: Option<SystemTime>, age: Duration, now: SystemTime) -> bool {
    match expiry {
        Some(expiry) => now + RENEWED_BEFORE < expiry,
        None => age < KEPT,
    }
}

/// The SDK's errors say what happened only in their sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_hold_until_shortly_before_their_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        for (expiry, age, expected) in [
            (Some(now + RENEWED_BEFORE + second), KEPT * 2, true),
            (Some(now + RENEWED_BEFORE), none, false),
            (Some(now - second), none, false),
            (None, KEPT - second, true),
            (None, KEPT, false),
        ] {
            assert_eq!(holds(expiry, age, now), expected, "{expiry:?} {age:?}");
        }
    }
}
