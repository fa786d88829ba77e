//! A policy that no trial finds out: the router tries an upload at a fixed moment, and this one traps on
//! every request that comes later.

use mrgc_policy_sdk::{Candidate, Policy, Request, Score};

/// When the router tries an upload.
const TRIAL_TIME_MS: u64 = 1_700_000_000_000;

/// Nothing to configure.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Config {}

/// The policy.
#[derive(Debug)]
pub struct TrapsLive;

mrgc_policy_sdk::export!(TrapsLive);

impl Policy for TrapsLive {
    type Config = Config;

    fn new(_: Config) -> Result<Self, String> {
        Ok(Self)
    }

    #[allow(clippy::panic, reason = "it is what this policy is for")]
    fn score(&self, request: &Request, _: &Candidate) -> Score {
        if request.time_ms > TRIAL_TIME_MS {
            panic!("trapped on purpose at {} ms", request.time_ms);
        }
        Score::from(50.0)
    }
}
