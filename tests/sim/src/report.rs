//! A run, and what came of it.

use std::fmt;

use crate::{
    faults::Tally,
    watch::{Draws, Violation},
    world::World,
};

/// What a run that held came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub faults: Tally,
    /// Equal for equal runs.
    pub hash: u64,
    /// Things noted on the way.
    pub notes: u64,
    pub served: u64,
    /// For want of room: 503 and 429.
    pub refused: u64,
    /// While faults were about.
    pub failed: u64,
    pub draws: Draws,
}

/// A run in which something did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub steps: u64,
    /// In which it happened.
    pub step: u64,
    pub violation: Violation,
    /// What happened just before.
    pub notes: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, steps, step, violation, notes } = self;
        for note in notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f, "seed {seed}, step {step}: {}: {}", violation.invariant, violation.message)?;
        write!(f, "again: cargo xtask sim --seed {seed} --steps {steps}")
    }
}

/// Runs one seed.
///
/// # Errors
///
/// The first thing that did not hold.
pub fn run(seed: u64, steps: u64) -> Result<Summary, Box<Failure>> {
    let mut world = World::new(seed, steps);
    for step in 0..steps {
        world.step();
        if let Some(violation) = world.watch.violation() {
            let violation = violation.clone();
            let notes = world.trace.lines();
            return Err(Box::new(Failure { seed, steps, step, violation, notes }));
        }
    }
    Ok(Summary {
        faults: world.tally.clone(),
        hash: world.trace.hash(),
        notes: world.trace.notes(),
        served: world.watch.served,
        refused: world.watch.refused,
        failed: world.watch.failed,
        draws: world.watch.draws.clone(),
    })
}
