#![allow(clippy::unwrap_used)]

use mrgc_fleet::{
    histogram::MAX_BUCKETS,
    model::{Measured, Sample},
};

use super::*;

fn minute(measured: Measured) -> PoolMinute {
    PoolMinute {
        region: "ap-southeast-2".into(),
        pool: "llama-3.1-70b-instruct".into(),
        writer: "router-2.ap-southeast-2".to_owned(),
        minute: Timestamp(1_760_000_040_000),
        measured,
        expires_at: 1_760_172_840,
    }
}

fn stored(measured: Measured) -> Vec<Item> {
    items_of(minute(measured), "0123456789abcdef", &mut 7)
}

/// `buckets` durations, each in a bucket of its own, a thousand times.
fn durations(buckets: usize) -> impl Iterator<Item = f64> {
    let per_octave = (0..).flat_map(|octave| {
        (16..32).map(move |sub_bucket| f64::from(sub_bucket) * 2_f64.powi(octave) / 1_000.0)
    });
    per_octave.take(buckets).flat_map(|ms| std::iter::repeat_n(ms, 1_000))
}

/// What the module says of sizes, as DynamoDB counts them.
#[test]
fn an_ordinary_minute_is_one_write_unit() {
    let mut measured = Measured::default();
    measured.record(&Sample::RequestsPerSecond(45.2));
    for depth in 0..20 {
        measured.record(&Sample::QueueDepth(depth));
    }
    let bare = item::size_bytes(&stored(measured.clone())[0]);
    for ms in durations(60) {
        measured.record(&Sample::InferenceLatency { ms });
    }
    let items = stored(measured);
    let full = item::size_bytes(&items[0]);
    assert_eq!((items.len(), bare, full), (1, 269, 751));
}

#[test]
fn a_minute_above_the_budget_becomes_several_items_that_add_up() {
    let mut measured = Measured::default();
    measured.record(&Sample::RequestsPerSecond(45.2));
    for ms in durations(MAX_BUCKETS) {
        measured.record(&Sample::InferenceLatency { ms });
        measured.record(&Sample::ModelLoad { seconds: ms / 1_000.0 });
    }
    for n in 0..40 {
        let name = format!("operation-{n}-{}", "x".repeat(100));
        for ms in [0.1, 1.0, 10.0] {
            measured.record(&Sample::EnclaveOperation { name: &name, ms });
        }
    }
    let items = stored(measured.clone());
    assert!(items.len() > 2, "{}", items.len());
    let mut keys: Vec<Key> = Vec::new();
    let mut sum = Measured::default();
    for item in items {
        let size = item::size_bytes(&item);
        assert!(size <= METRICS_BUDGET_BYTES, "{size}");
        keys.push(item::key_of(&item));
        sum.merge(&item::decode::<PoolMinute>(item).unwrap().measured);
    }
    assert_eq!(sum, measured);
    assert!(keys.iter().all(|key| key.pk == keys[0].pk));
    let mut sort_keys: Vec<&str> = keys.iter().map(|key| key.sk.as_str()).collect();
    assert_eq!(sort_keys[0], "2025-10-09T08:54Z#router-2.ap-southeast-2#0123456789abcdef#7");
    sort_keys.sort_unstable();
    sort_keys.dedup();
    assert_eq!(sort_keys.len(), keys.len());
}

#[test]
fn a_window_ends_with_the_present_minute() {
    let now = Timestamp(1_760_000_041_500);
    for (minutes, from) in [
        (0, "2025-10-09T08:54Z"),
        (1, "2025-10-09T08:54Z"),
        (5, "2025-10-09T08:50Z"),
        (u32::MAX, "2025-10-07T08:55Z"),
    ] {
        let range = window(now, minutes);
        assert_eq!((range.from.as_str(), range.to.as_str()), (from, "2025-10-09T08:54Z~"));
    }
}
