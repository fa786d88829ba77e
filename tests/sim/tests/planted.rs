//! Faults planted in the core on purpose: the simulation must find each, and nothing where there is none.
//! Run by `cargo xtask test`, which turns the feature on; no build has it.
#![cfg(feature = "planted")]
#![allow(clippy::panic)]

use mrgc_fleet::planted::{Fault, plant};

const STEPS: u64 = 2_000;
/// Within so many seeds a fault must be found.
const SEEDS: u64 = 400;

fn finds(fault: Fault, invariants: &[&str]) {
    let planted = plant(fault);
    let found = (0..SEEDS).find_map(|seed| mrgc_sim::run(seed, STEPS).err());
    drop(planted);
    let Some(failure) = found else { panic!("{fault:?} passes {SEEDS} seeds unnoticed") };
    let invariant = failure.violation.invariant;
    assert!(
        invariants.contains(&invariant),
        "{fault:?} was found by another invariant:\n{failure}"
    );
    // It is the fault that was found: without it the same seed holds.
    if let Err(failure) = mrgc_sim::run(failure.seed, STEPS) {
        panic!("fails without {fault:?}, too:\n{failure}");
    }
}

#[test]
fn the_guard_skipped_on_a_retry() {
    finds(Fault::GuardSkippedOnRetry, &["no request where it must not go"]);
}

#[test]
fn a_threshold_off_by_one() {
    let verdict = "a verdict after just as many failed probes as configured";
    finds(Fault::ThresholdOffByOne, &[verdict]);
}

#[test]
fn no_hysteresis() {
    finds(Fault::NoHysteresis, &["a state holds before it improves"]);
}

#[test]
fn no_cap_on_ejection() {
    finds(Fault::NoEjectionCap, &["no more of a pool ejected than its share"]);
}

#[test]
fn a_stale_lease_accepted() {
    finds(Fault::StaleLeaseAccepted, &["no word of a superseded lease holder"]);
}

#[test]
fn a_lower_sequence_accepted() {
    finds(Fault::LowerSequenceAccepted, &["an instance's reports never go back"]);
}

#[test]
fn a_retry_on_an_instance_already_tried() {
    finds(Fault::RetryOnTried, &["no instance twice for one request"]);
}
