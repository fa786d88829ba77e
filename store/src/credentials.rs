//! Who the client is: where credentials come from, and what happens when they end.
//!
//! The SDK's chain (environment, profile, web identity, container, instance) hands out credentials that
//! end, and the SDK asks for new ones shortly before. Where the service calls them expired before that,
//! by a clock that is wrong or a role's session that was cut, the SDK would go on with them until the end
//! it knows of. So an answer that says so empties the cache, and the call is tried again (see `retry`).

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use aws_config::{
    environment::EnvironmentVariableCredentialsProvider,
    meta::credentials::CredentialsProviderChain,
};
use aws_sdk_dynamodb::config::{
    ConfigBag, Credentials, IdentityCache, ResolveCachedIdentity, RuntimeComponents,
    SharedIdentityCache,
};
use aws_smithy_runtime_api::client::identity::{IdentityFuture, SharedIdentityResolver};

/// Credentials that were renewed are not renewed again within this time, whoever calls them expired:
/// calls that ran at the same moment speak of the old ones.
const RENEWAL_GAP: Duration = Duration::from_secs(1);

/// Those of the environment or, where there are none, made-up ones.
pub(crate) fn loopback() -> CredentialsProviderChain {
    let made_up = Credentials::new("mrgc", "mrgc", None, None, "loopback");
    CredentialsProviderChain::first_try(
        "environment",
        EnvironmentVariableCredentialsProvider::new(),
    )
    .or_else("loopback", made_up)
}

/// The SDK's cache of credentials, which asks for new ones shortly before the old ones end, and which can
/// be emptied when the service says that they ended earlier.
#[derive(Clone, Default)]
pub(crate) struct Identities(Arc<RwLock<Cache>>);

struct Cache {
    cache: SharedIdentityCache,
    renewed: Option<Instant>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { cache: IdentityCache::lazy().build(), renewed: None }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

impl Identities {
    /// Forgets what is cached; false where that was done a moment ago.
    pub(crate) fn renew(&self, now: Instant) -> bool {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.renewed.is_some_and(|at| now.saturating_duration_since(at) < RENEWAL_GAP) {
            return false;
        }
        *held = Cache { renewed: Some(now), ..Cache::default() };
        true
    }
}

impl ResolveCachedIdentity for Identities {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        config: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        let cache = self.0.read().unwrap_or_else(PoisonError::into_inner).cache.clone();
        IdentityFuture::new(async move {
            cache.resolve_cached_identity(resolver, components, config).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_once_for_calls_that_ran_together() {
        let identities = Identities::default();
        let start = Instant::now();
        for (after_ms, expected) in [(0, true), (5, false), (999, false), (1_000, true)] {
            let now = start + Duration::from_millis(after_ms);
            assert_eq!(identities.renew(now), expected, "after {after_ms} ms");
        }
    }
}
