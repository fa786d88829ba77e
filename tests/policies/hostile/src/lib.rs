//! A policy that behaves well but where its config says otherwise:
//!
//! ```json
//! {"export": "score", "what": "loop", "from_number": 100}
//! ```

use std::cell::RefCell;

use mrgc_policy_sdk::{
    __private::{Glue, Guest, describe},
    Candidate, Facts, Loads, Manifest, Policy, Request, Score, log,
};

#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Config {
    export: Option<Export>,
    what: Option<What>,
    /// In `score` and `explain`: requests with a lower number are answered well.
    from_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Export {
    Configure,
    Observe,
    Forget,
    Score,
    Explain,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Loop,
    Trap,
    /// Without end.
    Allocate,
    /// [`LINES`] lines of [`LINE_BYTES`].
    LogFlood,
    /// One line of [`HUGE_BYTES`].
    HugeLog,
    /// [`HUGE_BYTES`] of scores or of explanation.
    HugeAnswer,
    /// One score too many.
    WrongLength,
    Nan,
    Infinity,
    #[serde(rename = "above_100")]
    Above100,
}

const LINES: usize = 100;
const LINE_BYTES: usize = 4096;
const HUGE_BYTES: usize = 32 << 20;

thread_local! {
    static GLUE: Glue<WellBehaved> = const { Glue::new() };
    static CONFIG: RefCell<Config> = RefCell::default();
}

/// What there is when nothing is configured: fewer requests in flight score higher.
#[derive(Debug)]
pub struct WellBehaved;

impl Policy for WellBehaved {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        CONFIG.replace(config);
        Ok(Self)
    }

    fn score(&self, _: &Request, candidate: &Candidate) -> Score {
        Score::from(100.0 - candidate.in_flight as f32)
    }
}

#[derive(Debug)]
struct Hostile;

mrgc_policy_sdk::bindings::export_component!(Hostile);

impl Guest for Hostile {
    fn describe() -> Manifest {
        describe::<WellBehaved>("hostile", env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
    }

    fn configure(config: String) -> Result<(), String> {
        GLUE.with(|glue| glue.configure(&config))?;
        misbehave(Export::Configure, u64::MAX);
        Ok(())
    }

    fn observe(view: u32, fleet: Vec<Facts>) {
        misbehave(Export::Observe, u64::MAX);
        GLUE.with(|glue| glue.observe(view, fleet));
    }

    fn forget(view: u32) {
        misbehave(Export::Forget, u64::MAX);
        GLUE.with(|glue| glue.forget(view));
    }

    fn score(view: u32, request: Request, picks: Vec<u32>, loads: Loads) -> Vec<f32> {
        misbehave(Export::Score, request.number);
        let scores = GLUE.with(|glue| glue.score(view, &request, &picks, &loads));
        match plan(Export::Score, request.number) {
            Some(what) => spoilt(scores, what),
            None => scores,
        }
    }

    fn explain(
        view: u32,
        request: Request,
        picks: Vec<u32>,
        loads: Loads,
        candidate: u32,
    ) -> String {
        misbehave(Export::Explain, request.number);
        match plan(Export::Explain, request.number) {
            Some(What::HugeAnswer) => "a".repeat(HUGE_BYTES),
            _ => GLUE.with(|glue| glue.explain(view, &request, &picks, &loads, candidate)),
        }
    }
}

/// What is planned for a call, if anything.
fn plan(export: Export, number: u64) -> Option<What> {
    let config = CONFIG.with_borrow(|config| *config);
    (config.export == Some(export) && number >= config.from_number).then_some(config.what)?
}

#[allow(clippy::panic, reason = "it is what was asked for")]
fn misbehave(export: Export, number: u64) {
    match plan(export, number) {
        Some(What::Loop) => loop {
            std::hint::black_box(());
        },
        Some(What::Trap) => panic!("hostile on purpose in {export:?}"),
        Some(What::Allocate) => loop {
            std::mem::forget(std::hint::black_box(Vec::<u8>::with_capacity(8 << 20)));
        },
        Some(What::LogFlood) => (0..LINES).for_each(|_| log::info("é".repeat(LINE_BYTES / 2))),
        Some(What::HugeLog) => log::info("a".repeat(HUGE_BYTES)),
        _ => {}
    }
}

fn spoilt(mut scores: Vec<f32>, what: What) -> Vec<f32> {
    match (what, scores.last_mut()) {
        (What::WrongLength, _) => scores.push(1.0),
        (What::HugeAnswer, _) => scores.resize(HUGE_BYTES / size_of::<f32>(), 1.0),
        (What::Nan, Some(last)) => *last = f32::NAN,
        (What::Infinity, Some(last)) => *last = f32::INFINITY,
        (What::Above100, Some(last)) => *last = 250.0,
        _ => {}
    }
    scores
}
