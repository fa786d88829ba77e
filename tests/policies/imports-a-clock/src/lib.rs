//! A policy that wants to know the time from its host.

use mrgc_policy_sdk::{Candidate, Policy, Request, Score};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package elsewhere:clock@1.0.0;
            interface wall { now-ms: func() -> u64; }
            world clock { import wall; }
        ",
    });
}

#[derive(Debug, Default, serde::Deserialize)]
pub struct Config {}

#[derive(Debug)]
pub struct Clocked;

mrgc_policy_sdk::export!(Clocked);

impl Policy for Clocked {
    type Config = Config;

    fn new(_: Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn score(&self, _: &Request, _: &Candidate) -> Score {
        Score::from((bindings::elsewhere::clock::wall::now_ms() % 100) as f32)
    }
}
