//! A few seeds, as any test run can afford; `cargo xtask test` and `cargo xtask sim` run many.
#![allow(clippy::panic, clippy::unwrap_used)]

const STEPS: u64 = 2_000;

#[test]
fn a_few_seeds_hold() {
    for seed in 0..4 {
        if let Err(failure) = mrgc_sim::run(seed, STEPS) {
            panic!("{failure}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_does_not() {
    let run = |seed| mrgc_sim::run(seed, 600).unwrap();
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first, again);
    assert_ne!(first.hash, other.hash);
    assert!(first.notes > 1_000 && first.served > 100, "{first:?}");
}

#[test]
fn a_long_run_in_which_the_slow_clocks_may_be_slow_holds() {
    if let Err(failure) = mrgc_sim::run(1, 7_000) {
        panic!("{failure}");
    }
}
