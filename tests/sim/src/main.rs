//! The simulation as a program: see `mrgc-sim --help`, and `cargo xtask sim`, which builds it to be fast.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use mrgc_sim::{Draws, Failure, Fault, STEP_MS, Summary, Tally};

const EXAMPLES: &str = "\
Examples:
  mrgc-sim                           500 seeds of 2,000 steps
  mrgc-sim --seeds 20000 --jobs 2    the long run
  mrgc-sim --seed 17                 one seed; the same events each time
  mrgc-sim --seed 17 --steps 6000    the slow clocks at their default pace";

/// Routers, agents and a store through thousands of disasters, on a virtual clock
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Run only this seed, and print what it came to
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// Begin with this seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Steps of each run, of 100 ms each
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Threads, each with a seed of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// What all threads share.
struct Progress {
    next: AtomicU64,
    has_failed: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    served: u64,
    refused: u64,
    failed: u64,
    notes: u64,
    faults: Tally,
    draws: Draws,
    failure: Option<Box<Failure>>,
}

/// From so many seeds on every fault must have been injected.
const WHOLE: u64 = 100;

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (first, seeds) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.first, arguments.seeds),
    };
    let end = first.saturating_add(seeds);
    let started = Instant::now();
    let progress = Progress {
        next: AtomicU64::new(first),
        has_failed: AtomicBool::new(false),
        sum: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| work(&progress, end, arguments.steps));
        }
        watch(&progress, seeds, started);
    });
    let sum = progress.sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    // With standard output closed there is nobody left to tell.
    let is_whole = seeds >= WHOLE;
    let told = conclude(&sum, arguments.steps, started.elapsed(), is_whole);
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Runs seeds until there are no more, or one has failed.
fn work(progress: &Progress, end: u64, steps: u64) {
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || progress.has_failed.load(Ordering::Relaxed) {
            return;
        }
        let outcome = mrgc_sim::run(seed, steps);
        progress.has_failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
        progress.sum.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
    }
}

impl Sum {
    fn add(&mut self, outcome: Result<Summary, Box<Failure>>) {
        match outcome {
            Ok(summary) => {
                self.runs += 1;
                self.served += summary.served;
                self.refused += summary.refused;
                self.failed += summary.failed;
                self.notes += summary.notes;
                self.faults.merge(&summary.faults);
                self.draws.merge(&summary.draws);
            }
            Err(failure) => self.failure = self.failure.take().or(Some(failure)),
        }
    }
}

/// Says now and then how far it is.
fn watch(progress: &Progress, seeds: u64, started: Instant) {
    let mut told = Instant::now();
    loop {
        thread::sleep(Duration::from_millis(20));
        let is_over = progress.has_failed.load(Ordering::Relaxed);
        let runs = progress.sum.lock().unwrap_or_else(PoisonError::into_inner).runs;
        if is_over || runs >= seeds {
            return;
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let passed = started.elapsed().as_secs_f64();
            let left = passed / runs.max(1) as f64 * (seeds - runs) as f64;
            let _ = writeln!(io::stderr(), "{runs} of {seeds} seeds hold, about {left:.0} s to go");
        }
    }
}

/// Tells what came of it, and whether it held.
fn conclude(sum: &Sum, steps: u64, passed: Duration, is_whole: bool) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    if let Some(failure) = &sum.failure {
        writeln!(out, "{failure}")?;
        return Ok(false);
    }
    writeln!(out, "{:<24} {:>14}", "fault", "injected")?;
    for fault in Fault::ALL {
        writeln!(out, "{fault:<24} {:>14}", sum.faults.count(*fault))?;
    }
    let hours = (sum.runs * steps * STEP_MS) as f64 / 3_600_000.0;
    writeln!(
        out,
        "{} seeds of {steps} steps hold: {hours:.1} hours of {} requests ({} refused, {} failed while \
         faults were about) in {:.1} s",
        sum.runs,
        sum.served + sum.refused + sum.failed,
        sum.refused,
        sum.failed,
        passed.as_secs_f64(),
    )?;
    if !sum.draws.holds() {
        writeln!(out, "requests do not go as the shares say: {}", sum.draws)?;
        return Ok(false);
    }
    let missing: Vec<_> = sum.faults.missing().map(Fault::as_str).collect();
    if is_whole && !missing.is_empty() {
        writeln!(out, "never injected, so nothing is known of them: {}", missing.join(", "))?;
        return Ok(false);
    }
    Ok(true)
}
