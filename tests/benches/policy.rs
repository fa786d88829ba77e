//! What a policy costs in the sandbox: `score` calls of the stock `score` policy as WASM, against the
//! same code natively. `cargo xtask bench policy` builds the policy and runs this.
//!
//! The two sides take turns, and each call is timed on its own, less what reading the clock costs. The
//! native side gets its request by reference; the WASM side's is copied into the sandbox, as a router's is.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{fmt, hint::black_box, process::ExitCode, time::Instant};

use hdrhistogram::Histogram;
use mrgc_policy_host::{Engine, Instance, Limits, Loads, Policy, Request};
use mrgc_policy_sdk::{self as sdk, __private::Glue};
use mrgc_tests::policies::{
    Fleet, facts, full_request, owned, request, stock::score::RoutingScore, stock_component,
};

const ROUNDS: u64 = 400;
const CALLS_PER_ROUND: u64 = 50;
const VIEW: u32 = 7;

const SCENARIOS: [Scenario; 8] = [
    Scenario::plain(1),
    Scenario::plain(10),
    Scenario { picked: true, ..Scenario::plain(10) },
    Scenario { full: true, ..Scenario::plain(10) },
    Scenario::plain(100),
    Scenario::plain(1000),
    Scenario { picked: true, ..Scenario::plain(1000) },
    Scenario { full: true, ..Scenario::plain(1000) },
];

/// A `score` call over 1,000 candidates takes at most this many times the native one.
const MAX_RATIO_AT_1000: f64 = 4.0;
/// A `score` call over 10 candidates takes less than this beyond the native one.
const MAX_MORE_AT_10_NS: f64 = 1000.0;

fn main() -> anyhow::Result<ExitCode> {
    let engine = Engine::new(Limits::default())?;
    let policy = Policy::load(&engine, &stock_component("score")?)?;
    let clock_ns = clock_ns();
    println!("score calls, ns at p50 (p99) of {}", ROUNDS * CALLS_PER_ROUND);
    println!("{:<24} {:>16} {:>16} {:>6} {:>6}", "candidates", "native", "WASM", "ratio", "more");
    let mut all_met = true;
    for scenario in SCENARIOS {
        let times = Times::measure(&policy, scenario, clock_ns)?;
        let verdict = match scenario.size {
            10 => Some(times.more_ns() < MAX_MORE_AT_10_NS),
            1000 => Some(times.ratio() <= MAX_RATIO_AT_1000),
            _ => None,
        };
        all_met &= verdict != Some(false);
        println!(
            "{:<24} {:>16} {:>16} {:>6.2} {:>6} {}",
            scenario.to_string(),
            Cell(&times.native).to_string(),
            Cell(&times.wasm).to_string(),
            times.ratio(),
            times.more_ns(),
            verdict.map_or("", |met| if met { "met" } else { "MISSED" })
        );
    }
    println!(
        "goals: over 10 candidates less than {MAX_MORE_AT_10_NS} ns more; \
         over 1000 at most {MAX_RATIO_AT_1000} times as long"
    );
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Clone, Copy)]
struct Scenario {
    size: usize,
    /// Each candidate is picked by its index; otherwise the whole view is scored.
    picked: bool,
    /// The request carries all that one may carry.
    full: bool,
}

impl Scenario {
    const fn plain(size: usize) -> Self {
        Self { size, picked: false, full: false }
    }

    fn request(self, number: u64) -> Request<'static> {
        if self.full { full_request(number) } else { request(number) }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let picked = if self.picked { ", picked" } else { "" };
        let full = if self.full { ", full request" } else { "" };
        write!(f, "{}{picked}{full}", self.size)
    }
}

struct Times {
    native: Histogram<u64>,
    wasm: Histogram<u64>,
}

impl Times {
    fn measure(policy: &Policy, scenario: Scenario, clock_ns: u64) -> anyhow::Result<Self> {
        let fleet = Fleet::new(scenario.size, 1);
        let mut sandbox = Sandbox::new(policy, scenario, &fleet)?;
        let native = Native::new(scenario, &fleet)?;
        assert_eq!(sandbox.score(0)?, native.score(), "both sides score alike");

        let mut times = Self { native: histogram(), wasm: histogram() };
        for round in 0..ROUNDS {
            for call in 0..CALLS_PER_ROUND {
                let started = Instant::now();
                black_box(sandbox.score(round * CALLS_PER_ROUND + call)?);
                times.wasm.saturating_record(since(started, clock_ns));
            }
            for _ in 0..CALLS_PER_ROUND {
                let started = Instant::now();
                black_box(native.score());
                times.native.saturating_record(since(started, clock_ns));
            }
        }
        Ok(times)
    }

    fn ratio(&self) -> f64 {
        p50(&self.wasm) / p50(&self.native)
    }

    fn more_ns(&self) -> f64 {
        p50(&self.wasm) - p50(&self.native)
    }
}

struct Sandbox<'a> {
    instance: Instance,
    scenario: Scenario,
    fleet: &'a Fleet,
    picks: Vec<u32>,
}

impl<'a> Sandbox<'a> {
    fn new(policy: &Policy, scenario: Scenario, fleet: &'a Fleet) -> anyhow::Result<Self> {
        let mut instance = Instance::new(policy, "{}")?;
        instance.observe(VIEW, &fleet.candidates())?;
        Ok(Self { instance, scenario, fleet, picks: picks(scenario) })
    }

    fn score(&mut self, number: u64) -> anyhow::Result<Vec<f32>> {
        let request = self.scenario.request(number);
        let loads = Loads {
            in_flight: &self.fleet.in_flight,
            in_flight_tokens: &self.fleet.in_flight_tokens,
        };
        Ok(self.instance.score(VIEW, black_box(&request), &self.picks, loads)?.points)
    }
}

struct Native {
    glue: Glue<RoutingScore>,
    request: sdk::Request,
    picks: Vec<u32>,
    loads: sdk::Loads,
}

impl Native {
    fn new(scenario: Scenario, fleet: &Fleet) -> anyhow::Result<Self> {
        let glue = Glue::new();
        glue.configure("{}").map_err(anyhow::Error::msg)?;
        glue.observe(VIEW, fleet.candidates().iter().map(facts).collect());
        let loads = sdk::Loads {
            in_flight: fleet.in_flight.clone(),
            in_flight_tokens: fleet.in_flight_tokens.clone(),
        };
        Ok(Self { glue, request: owned(&scenario.request(0)), picks: picks(scenario), loads })
    }

    fn score(&self) -> Vec<f32> {
        self.glue.score(VIEW, black_box(&self.request), &self.picks, &self.loads)
    }
}

fn picks(scenario: Scenario) -> Vec<u32> {
    if scenario.picked { (0..scenario.size as u32).collect() } else { Vec::new() }
}

/// What timing nothing gives.
fn clock_ns() -> u64 {
    let mut times = histogram();
    for _ in 0..100_000 {
        times.saturating_record(since(Instant::now(), 0));
    }
    times.value_at_quantile(0.5)
}

fn since(started: Instant, clock_ns: u64) -> u64 {
    (started.elapsed().as_nanos() as u64).saturating_sub(clock_ns)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(1_000_000_000, 3).expect("1 s in ns and 3 digits are valid bounds")
}

fn p50(times: &Histogram<u64>) -> f64 {
    times.value_at_quantile(0.5).max(1) as f64
}

/// A column of the table.
struct Cell<'a>(&'a Histogram<u64>);

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", p50(self.0), self.0.value_at_quantile(0.99))
    }
}
