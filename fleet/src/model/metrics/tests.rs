#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, prelude::*};

use super::*;

fn minute(writer: &str, minute: u64, samples: &[Sample<'_>]) -> PoolMinute {
    let mut measured = Measured::default();
    for sample in samples {
        assert!(measured.record(sample), "{sample:?}");
    }
    PoolMinute {
        region: "us-east-1".into(),
        pool: "model-a".into(),
        writer: writer.to_owned(),
        minute: Timestamp(minute * 60_000),
        measured,
        expires_at: 0,
    }
}

fn merged(minutes: &[PoolMinute]) -> PoolMetrics {
    let mut metrics = PoolMetrics::default();
    minutes.iter().for_each(|minute| metrics.add(minute));
    metrics
}

#[test]
fn rates_add_up_over_writers_and_average_over_time() {
    let rate = Sample::RequestsPerSecond;
    let metrics = merged(&[
        minute("router-1", 1, &[rate(40.0), rate(50.0)]),
        minute("router-1", 2, &[rate(60.0)]),
        minute("router-2", 2, &[rate(5.0)]),
    ]);
    assert_eq!(metrics.requests_per_second(), Some(50.0 + 5.0));
}

#[test]
fn percentiles_are_of_all_writers_requests_and_no_mean_of_percentiles() {
    let slow: Vec<_> = (0..10).map(|_| Sample::InferenceLatency { ms: 1_000.0 }).collect();
    let fast: Vec<_> = (0..990).map(|_| Sample::InferenceLatency { ms: 100.0 }).collect();
    let metrics = merged(&[minute("a", 1, &slow), minute("b", 1, &fast)]);
    let found = metrics.latency_percentiles().unwrap();
    // The mean of the two writers' P50 would be 550.
    for (found, exact) in [(found.p50_ms, 100.0), (found.p95_ms, 100.0), (found.p99_ms, 100.0)] {
        assert!((found - exact).abs() <= exact * crate::histogram::RELATIVE_ERROR, "{found}");
    }
    assert_eq!(metrics.inference_latency().max_ms(), Some(1_000.0));
}

#[test]
fn what_was_not_measured_is_none() {
    let metrics = merged(&[minute("a", 1, &[Sample::Cleanup { passed: false }])]);
    assert_eq!(metrics.requests_per_second(), None);
    assert_eq!((metrics.queue_depth(), metrics.latency_percentiles()), (None, None));
    assert_eq!(metrics.cleanup(), Some(CleanupTally { passed: 0, failed: 1 }));
    assert_eq!(merged(&[]).cleanup(), None);

    let health = ClusterHealth::new(BTreeMap::from([(
        "us-east-1".into(),
        RegionLoad::new(["model-a".into()], &BTreeMap::new()),
    )]));
    assert_eq!(health.total.instances, 1);
    assert_eq!(health.total.requests_per_second, None);
    assert_eq!(health.total.average_queue_depth(), None);
}

#[test]
fn a_zero_that_was_measured_is_zero() {
    let idle = [Sample::RequestsPerSecond(0.0), Sample::QueueDepth(0)];
    let metrics = merged(&[minute("a", 1, &idle)]);
    assert_eq!(metrics.requests_per_second(), Some(0.0));
    assert_eq!(metrics.queue_depth().and_then(Gauge::mean), Some(0.0));
}

#[test]
fn what_is_no_measurement_changes_nothing() {
    let mut measured = Measured::default();
    for sample in [
        Sample::RequestsPerSecond(f64::NAN),
        Sample::RequestsPerSecond(-1.0),
        Sample::RequestsPerSecond(f64::INFINITY),
        Sample::RequestsPerSecond(1e16),
        Sample::InferenceLatency { ms: -1.0 },
        Sample::ModelLoad { seconds: f64::NAN },
        Sample::EnclaveOperation { name: "attest", ms: f64::INFINITY },
    ] {
        assert!(!measured.record(&sample), "{sample:?}");
    }
    assert_eq!(measured, Measured::default());
}

#[test]
fn operations_are_bounded_in_number_and_in_name() {
    let mut measured = Measured::default();
    for n in 0..100 {
        let name = format!("{n:03}-{}", "é".repeat(200));
        assert!(measured.record(&Sample::EnclaveOperation { name: &name, ms: 1.0 }));
    }
    assert_eq!(measured.enclave_operations.len(), MAX_OPERATIONS);
    assert!(measured.enclave_operations.keys().all(|name| name.len() <= MAX_OPERATION_BYTES));
    assert_eq!(measured.enclave_operations[OTHER].count(), 100 - (MAX_OPERATIONS as u64 - 1));
}

#[test]
fn the_cluster_adds_up_its_regions_and_pools() {
    let samples = [Sample::RequestsPerSecond(10.0), Sample::QueueDepth(4), Sample::QueueDepth(0)];
    let metrics = BTreeMap::from([
        (PoolId::from("a"), merged(&[minute("r", 1, &samples)])),
        (PoolId::from("gone"), merged(&[minute("r", 1, &[Sample::QueueDepth(8)])])),
    ]);
    let east = RegionLoad::new(["a".into(), "a".into(), "b".into()], &metrics);
    assert_eq!((east.total.instances, east.total.requests_per_second), (3, Some(10.0)));
    assert_eq!(east.total.average_queue_depth(), Some(4.0), "the mean of 4, 0 and 8");
    assert_eq!(east.pools[&PoolId::from("b")], Load { instances: 1, ..Load::default() });
    assert_eq!(east.pools[&PoolId::from("gone")].instances, 0);

    let west = RegionLoad::new([PoolId::from("a")], &BTreeMap::new());
    let regions = BTreeMap::from([("east".into(), east), ("west".into(), west)]);
    let health = ClusterHealth::new(regions);
    assert_eq!((health.total.instances, health.total.requests_per_second), (4, Some(10.0)));
}

fn some_measured() -> impl Strategy<Value = Measured> {
    let duration = || 0.001..1e6_f64;
    let latencies = vec(duration(), 0..40);
    let operations = vec((prop::sample::select(vec!["a", "b", "c"]), duration()), 0..40);
    (latencies, vec(duration(), 0..10), operations, any::<bool>()).prop_map(
        |(latencies, loads, operations, passed)| {
            let mut measured = Measured::default();
            measured.record(&Sample::RequestsPerSecond(7.0));
            measured.record(&Sample::Cleanup { passed });
            for ms in latencies {
                measured.record(&Sample::InferenceLatency { ms });
            }
            for seconds in loads {
                measured.record(&Sample::ModelLoad { seconds });
            }
            for (name, ms) in operations {
                measured.record(&Sample::EnclaveOperation { name, ms });
            }
            measured
        },
    )
}

proptest! {
    #[test]
    fn halves_merge_into_the_whole(whole in some_measured()) {
        let Some((first, rest)) = whole.halves() else {
            prop_assert!(whole.buckets() < 2);
            return Ok(());
        };
        prop_assert_eq!(first.buckets(), whole.buckets() / 2);
        let mut sum = first;
        sum.merge(&rest);
        prop_assert_eq!(sum, whole);
    }
}
