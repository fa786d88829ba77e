//! A policy that accepts no config, whatever it is.

use mrgc_policy_sdk::{Candidate, Policy, Request, Score};

#[derive(Debug, Default, serde::Deserialize)]
pub struct Config {}

#[derive(Debug)]
pub struct NeverContent;

mrgc_policy_sdk::export!(NeverContent);

impl Policy for NeverContent {
    type Config = Config;

    fn new(_: Config) -> Result<Self, String> {
        Err("no config is good enough".into())
    }

    fn score(&self, _: &Request, _: &Candidate) -> Score {
        Score::from(50.0)
    }
}
