#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;

fn of(values_ms: &[f64]) -> Histogram {
    let mut histogram = Histogram::default();
    for ms in values_ms {
        assert!(histogram.record(*ms), "{ms}");
    }
    histogram
}

fn merged(a: &Histogram, b: &Histogram) -> Histogram {
    let mut sum = a.clone();
    sum.merge(b);
    sum
}

/// Durations of every order of magnitude, to beyond the last bucket.
fn some_ms() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        (-4.0..9.0_f64).prop_map(|exponent| 10_f64.powf(exponent)),
        (0_u32..40).prop_map(|exponent| 2_f64.powi(exponent as i32) / MICROSECONDS_PER_MS),
    ]
}

proptest! {
    #[test]
    fn a_recorder_makes_the_histogram_of_what_it_counted(
        before in vec(0_u64..1 << 40, 0..20), us in vec(0_u64..1 << 40, 0..50),
    ) {
        let mut recorder = Recorder::default();
        let mut taken = [&before, &us].map(|durations| {
            durations.iter().for_each(|us| recorder.record_us(*us));
            (recorder.take(), durations)
        });
        for (histogram, durations) in &mut taken {
            let ms: Vec<_> = durations.iter().map(|us| in_ms(*us)).collect();
            prop_assert_eq!(&*histogram, &of(&ms));
        }
        prop_assert_eq!(recorder.take(), Histogram::default());
    }

    #[test]
    fn merging_is_recording_all_in_one(
        a in vec(some_ms(), 0..50), b in vec(some_ms(), 0..50), c in vec(some_ms(), 0..50),
    ) {
        let all = of(&[&a[..], &b[..], &c[..]].concat());
        let (a, b, c) = (of(&a), of(&b), of(&c));
        prop_assert_eq!(&merged(&merged(&a, &b), &c), &all);
        prop_assert_eq!(&merged(&a, &merged(&b, &c)), &all);
        prop_assert_eq!(merged(&b, &a), merged(&a, &b));
        prop_assert_eq!(all.count(), a.count() + b.count() + c.count());
    }

    #[test]
    fn a_quantile_is_near_the_exact_one(values in vec(some_ms(), 1..200), q in 0.0..=1.0_f64) {
        let histogram = of(&values);
        let mut sorted = values;
        sorted.sort_by(f64::total_cmp);
        let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
        let exact = sorted[rank - 1];
        let found = histogram.quantile(q).unwrap();
        // Whole microseconds: the value was rounded, and so is the middle of its bucket.
        let allowed = exact * RELATIVE_ERROR + 1.0 / MICROSECONDS_PER_MS;
        let error = (found - exact).abs();
        prop_assert!(exact >= MAX_MS || error <= allowed, "{found} for {exact}");
        prop_assert!((sorted[0] - 0.001..=sorted[sorted.len() - 1] + 0.001).contains(&found));
    }

    #[test]
    fn it_survives_being_stored(values in vec(some_ms(), 0..100)) {
        let histogram = of(&values);
        let text = serde_json::to_string(&histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), histogram);
    }

    #[test]
    fn what_is_split_merges_again(values in vec(some_ms(), 0..100), n in 0_usize..120) {
        let histogram = of(&values);
        let (first, rest) = histogram.split(n);
        prop_assert_eq!(first.buckets(), histogram.buckets().min(n));
        prop_assert_eq!(merged(&first, &rest), histogram.clone());
        prop_assert_eq!(merged(&rest, &first), histogram);
    }
}

#[test]
fn buckets_follow_one_another_without_a_gap() {
    let mut next = 0;
    for number in 0..MAX_BUCKETS as u16 {
        let (from, width) = bounds(number);
        assert_eq!(from, next, "bucket {number}");
        assert_eq!((index(from), index(from + width - 1)), (number, number));
        next = from + width;
    }
    assert_eq!(next, 1 << MAX_EXPONENT);
    assert_eq!(usize::from(index(u64::MAX)), MAX_BUCKETS - 1);
}

#[test]
fn one_value_is_every_quantile_exactly() {
    let histogram = of(&[150.0]);
    for q in [0.0, 0.5, 0.95, 1.0] {
        assert_eq!(histogram.quantile(q), Some(150.0));
    }
    assert_eq!((histogram.mean_ms(), histogram.count()), (Some(150.0), 1));
}

#[test]
fn nothing_recorded_is_none_and_not_zero() {
    let empty = Histogram::default();
    assert_eq!((empty.quantile(0.5), empty.mean_ms(), empty.max_ms()), (None, None, None));
    assert_eq!((empty.count(), empty.sum_ms()), (0, 0.0));
}

#[test]
fn what_is_no_duration_is_left_out() {
    let mut histogram = Histogram::default();
    for ms in [-0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(!histogram.record(ms), "{ms}");
    }
    assert!(histogram.is_empty());
}

#[test]
fn counts_and_sums_stop_at_their_limit() {
    let full = json!({"buckets": [5, u64::MAX], "sum_us": u64::MAX, "min_us": 5, "max_us": 5});
    let full: Histogram = serde_json::from_value(full).unwrap();
    let twice = merged(&merged(&full, &full), &of(&[1.0]));
    assert_eq!(twice.count(), u64::MAX);
    assert_eq!(twice.quantile(1.0), Some(0.005));
}

#[test]
fn the_stored_form_is_this() {
    let stored =
        json!({"buckets": [1, 2, 176, 1], "sum_us": 17_002, "min_us": 1, "max_us": 17_000});
    assert_eq!(serde_json::to_value(of(&[0.001, 17.0, 0.001])).unwrap(), stored);
}

#[test]
fn stored_buckets_that_are_none_are_refused() {
    let last = MAX_BUCKETS as u64;
    for (buckets, expected) in [
        (vec![1], InvalidHistogram::OddLength(1)),
        (vec![2, 1, 1, 1], InvalidHistogram::Index(1)),
        (vec![1, 1, 1, 1], InvalidHistogram::Index(1)),
        (vec![last, 1], InvalidHistogram::Index(last)),
        (vec![65_536, 1], InvalidHistogram::Index(65_536)),
        (vec![1, 0], InvalidHistogram::Empty(1)),
    ] {
        let text = json!({"buckets": buckets}).to_string();
        let error = serde_json::from_str::<Histogram>(&text).unwrap_err().to_string();
        assert!(error.starts_with(&expected.to_string()), "{error}");
    }
    let upside_down = json!({"buckets": [1, 1], "min_us": 2, "max_us": 1});
    assert!(serde_json::from_value::<Histogram>(upside_down).is_err());
}
