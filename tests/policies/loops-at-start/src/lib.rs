//! A policy that loops while it is instantiated, before any call.

use mrgc_policy_sdk::{Candidate, Policy, Request, Score};

/// The component's start function: what a module exports under this name runs at instantiation.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    loop {
        std::hint::black_box(());
    }
}

#[derive(Debug, Default, serde::Deserialize)]
pub struct Config {}

#[derive(Debug)]
pub struct NeverStarts;

mrgc_policy_sdk::export!(NeverStarts);

impl Policy for NeverStarts {
    type Config = Config;

    fn new(_: Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn score(&self, _: &Request, _: &Candidate) -> Score {
        Score::from(50.0)
    }
}
