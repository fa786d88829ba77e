use super::*;

const PICKERS: [Picker; 3] = [Picker::Best, Picker::PowerOfTwo, Picker::NearBest];
const SEEDS: u64 = 10_000;

/// The order of attempts for totals of four candidates.
fn order(picker: Picker, totals: [f32; 4], seed: u64, attempts: usize) -> Vec<u32> {
    super::order(picker, &totals, seed, attempts).as_slice().to_vec()
}

/// How often each candidate goes first, over many seeds.
fn shares(picker: Picker, totals: [f32; 4]) -> [f64; 4] {
    let mut firsts = [0.0; 4];
    for seed in 0..SEEDS {
        firsts[order(picker, totals, seed, 2)[0] as usize] += 1.0 / SEEDS as f64;
    }
    firsts
}

fn assert_near(got: [f64; 4], expected: [f64; 4]) {
    let near = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.02);
    let never = got.iter().zip(expected).all(|(got, expected)| expected > 0.0 || *got == 0.0);
    assert!(near && never, "{got:?} is not {expected:?}");
}

#[test]
fn no_more_than_the_wanted_attempts() {
    let totals: Vec<f32> = (0..20u8).map(f32::from).collect();
    for picker in PICKERS {
        for (wanted, expected) in [(0, 0), (1, 1), (3, 3), (8, 8), (9, 8), (usize::MAX, 8)] {
            let got = super::order(picker, &totals, 1, wanted);
            assert_eq!(got.as_slice().len(), expected, "{picker:?}, {wanted} wanted");
        }
        assert_eq!(order(picker, [-1.0; 4], 1, 3), [0; 0], "{picker:?}");
    }
}

#[test]
fn ties_are_broken_by_the_seed_alone() {
    assert_near(shares(Picker::Best, [50.0; 4]), [0.25; 4]);
    assert_near(shares(Picker::Best, [50.0, 10.0, 50.0, -1.0]), [0.5, 0.0, 0.5, 0.0]);
    // Also the retries' order, and who is dropped.
    let mut orders: Vec<_> =
        (0..SEEDS).map(|seed| order(Picker::Best, [50.0; 4], seed, 3)).collect();
    orders.sort_unstable();
    orders.dedup();
    assert_eq!(orders.len(), 4 * 3 * 2);
    for (picker, seed) in PICKERS.into_iter().flat_map(|p| (0..100).map(move |seed| (p, seed))) {
        let again = || order(picker, [50.0; 4], seed, 3);
        assert_eq!(again(), again(), "{picker:?}, seed {seed}");
    }
}

#[test]
fn power_of_two_takes_the_better_of_any_two() {
    // Of six pairs, the best is in three and the worst is never the better.
    let sixths = |n: f64| n / 6.0;
    assert_near(
        shares(Picker::PowerOfTwo, [70.0, 90.0, 10.0, 80.0]),
        [1.0, 3.0, 0.0, 2.0].map(sixths),
    );
    assert_near(shares(Picker::PowerOfTwo, [50.0; 4]), [0.25; 4]);
    assert_near(
        shares(Picker::PowerOfTwo, [0.0, 0.0, 90.0, -1.0]),
        [1.0, 1.0, 4.0, 0.0].map(sixths),
    );
    assert_near(shares(Picker::PowerOfTwo, [-1.0, 10.0, -1.0, 90.0]), [0.0, 0.0, 0.0, 1.0]);
    assert_near(shares(Picker::PowerOfTwo, [-1.0, 10.0, -1.0, -1.0]), [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn near_best_picks_by_score_within_five_points() {
    let by_score = |near: [f64; 4]| near.map(|points| points / near.iter().sum::<f64>());
    for (totals, weights) in [
        ([90.0, 85.0, 84.9, 88.0], [91.0, 86.0, 0.0, 89.0]),
        ([4.0, 0.0, -1.0, 1.0], [5.0, 1.0, 0.0, 2.0]),
        ([0.0, 0.0, -1.0, -4.0], [1.0, 1.0, 0.0, 0.0]),
        ([50.0, 10.0, 20.0, 30.0], [1.0, 0.0, 0.0, 0.0]),
    ] {
        assert_near(shares(Picker::NearBest, totals), by_score(weights));
    }
}

#[test]
fn after_the_first_come_the_best_of_the_rest() {
    let totals = [86.0, 90.0, 88.0, 10.0];
    for picker in [Picker::PowerOfTwo, Picker::NearBest] {
        for seed in 0..100 {
            let got = order(picker, totals, seed, 3);
            let expected = match got[0] {
                0 => [0, 1, 2],
                1 => [1, 2, 0],
                2 => [2, 1, 0],
                other => unreachable!("{picker:?} picked {other}"),
            };
            assert_eq!(got, expected, "{picker:?}, seed {seed}");
        }
    }
}
