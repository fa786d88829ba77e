//! A policy that works against the guard: 100 for each place that a request's needs forbid, 0 for the
//! rest. It accepts any config, so that it can stand where a route is set up for another policy.

use std::collections::BTreeMap;

use mrgc_policy_sdk::{Candidate, Enclave, Policy, Request, Score};
use serde::de::IgnoredAny;

#[derive(Debug)]
pub struct Defiant;

mrgc_policy_sdk::export!(Defiant);

impl Policy for Defiant {
    type Config = BTreeMap<String, IgnoredAny>;

    fn new(_: Self::Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn score(&self, request: &Request, candidate: &Candidate) -> Score {
        Score::from(if is_forbidden(request, candidate) { 100.0 } else { 0.0 })
    }
}

fn is_forbidden(request: &Request, candidate: &Candidate) -> bool {
    let regions = request.allowed_regions();
    request.frameworks().iter().any(|need| !candidate.frameworks.contains(need))
        || !(regions.is_empty() || regions.contains(&candidate.region))
        || (request.needs_enclave() && candidate.enclave == Enclave::Absent)
}
