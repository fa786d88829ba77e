//! What a policy costs in the sandbox: `score` calls of the stock `score` policy as WASM, against the
//! same code natively. `cargo xtask bench policy` builds the policy and runs this.
//!
//! The two sides take turns, and each call is timed on its own, less what reading the clock costs. The
//! native side gets its request by reference; the WASM side's is copied into the sandbox, as a router's is.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{hint::black_box, process::ExitCode, time::Instant};

use hdrhistogram::Histogram;
use mrgc_policy_host::{Engine, Instance, Limits, Loads, Policy};
use mrgc_policy_sdk::__private::Glue;
use mrgc_tests::policies::stock_component;
use mrgc_tests::policies::{Fleet, facts, owned, request, stock::score::RoutingScore};

const SIZES: [usize; 4] = [1, 10, 100, 1000];
const ROUNDS: u64 = 400;
const CALLS_PER_ROUND: u64 = 50;
const VIEW: u32 = 7;

/// A `score` call over 1,000 candidates takes at most this many times the native one.
const MAX_RATIO_AT_1000: f64 = 4.0;
/// A `score` call over 10 candidates takes less than this beyond the native one.
const MAX_MORE_AT_10_NS: f64 = 1000.0;

fn main() -> anyhow::Result<ExitCode> {
    let engine = Engine::new(Limits::default())?;
    let policy = Policy::load(&engine, &stock_component("score")?)?;
    let clock_ns = clock_ns();
    println!("score policy, ns per call, p50 (p99); {} calls each", ROUNDS * CALLS_PER_ROUND);
    println!("{:>16} {:>16} {:>16} {:>8} {:>10}", "candidates", "native", "WASM", "ratio", "more");
    let mut rows = Vec::new();
    for size in SIZES {
        for picked in [false, true] {
            rows.push(Row::measure(&policy, size, picked, clock_ns)?);
        }
    }
    for row in &rows {
        row.print();
    }
    Ok(verdict(&rows))
}

struct Row {
    size: usize,
    picked: bool,
    native: Histogram<u64>,
    wasm: Histogram<u64>,
}

impl Row {
    fn measure(policy: &Policy, size: usize, picked: bool, clock_ns: u64) -> anyhow::Result<Self> {
        let fleet = Fleet::new(size, 1);
        let candidates = fleet.candidates();
        let picks: Vec<u32> = if picked { (0..size as u32).collect() } else { Vec::new() };
        let mut sandbox = Sandbox::new(policy, &fleet, &picks)?;
        let native = Native::new(&fleet, &picks)?;
        sandbox.observe(&candidates)?;
        assert_eq!(sandbox.score(0)?, native.score(0), "both sides score alike");

        let mut row = Self { size, picked, native: histogram(), wasm: histogram() };
        for round in 0..ROUNDS {
            let numbers = round * CALLS_PER_ROUND..(round + 1) * CALLS_PER_ROUND;
            for number in numbers.clone() {
                let started = Instant::now();
                black_box(sandbox.score(number)?);
                row.wasm.saturating_record(since(started, clock_ns));
            }
            for number in numbers {
                let started = Instant::now();
                black_box(native.score(number));
                row.native.saturating_record(since(started, clock_ns));
            }
        }
        Ok(row)
    }

    fn print(&self) {
        let cell = |times: &Histogram<u64>| {
            format!("{} ({})", p50(times) as u64, times.value_at_quantile(0.99))
        };
        let label = format!("{}{}", self.size, if self.picked { " picked" } else { "" });
        println!(
            "{label:>16} {:>16} {:>16} {:>8.2} {:>10}",
            cell(&self.native),
            cell(&self.wasm),
            self.ratio(),
            self.more_ns()
        );
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
    fleet: &'a Fleet,
    picks: &'a [u32],
}

impl<'a> Sandbox<'a> {
    fn new(policy: &Policy, fleet: &'a Fleet, picks: &'a [u32]) -> anyhow::Result<Self> {
        Ok(Self { instance: Instance::new(policy, "{}")?, fleet, picks })
    }

    fn observe(&mut self, candidates: &[mrgc_policy_host::Candidate<'_>]) -> anyhow::Result<()> {
        Ok(self.instance.observe(VIEW, candidates)?)
    }

    fn score(&mut self, number: u64) -> anyhow::Result<Vec<f32>> {
        let loads = Loads {
            in_flight: &self.fleet.in_flight,
            in_flight_tokens: &self.fleet.in_flight_tokens,
        };
        Ok(self.instance.score(VIEW, black_box(&request(number)), self.picks, loads)?.points)
    }
}

struct Native<'a> {
    glue: Glue<RoutingScore>,
    request: mrgc_policy_sdk::Request,
    loads: mrgc_policy_sdk::Loads,
    picks: &'a [u32],
}

impl<'a> Native<'a> {
    fn new(fleet: &Fleet, picks: &'a [u32]) -> anyhow::Result<Self> {
        let glue = Glue::new();
        glue.configure("{}").map_err(anyhow::Error::msg)?;
        glue.observe(VIEW, fleet.candidates().iter().map(facts).collect());
        let loads = mrgc_policy_sdk::Loads {
            in_flight: fleet.in_flight.clone(),
            in_flight_tokens: fleet.in_flight_tokens.clone(),
        };
        Ok(Self { glue, request: owned(&request(0)), loads, picks })
    }

    fn score(&self, _number: u64) -> Vec<f32> {
        self.glue.score(VIEW, black_box(&self.request), self.picks, &self.loads)
    }
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

fn verdict(rows: &[Row]) -> ExitCode {
    let mut met = true;
    for row in rows {
        let goal = match row.size {
            1000 => format!("at most {MAX_RATIO_AT_1000} times the native call"),
            10 => format!("less than {MAX_MORE_AT_10_NS} ns more than the native call"),
            _ => continue,
        };
        let holds = match row.size {
            1000 => row.ratio() <= MAX_RATIO_AT_1000,
            _ => row.more_ns() < MAX_MORE_AT_10_NS,
        };
        met &= holds;
        let word = if holds { "met" } else { "MISSED" };
        println!(
            "{word}: {} candidates{}: {goal}",
            row.size,
            if row.picked { ", picked" } else { "" }
        );
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
