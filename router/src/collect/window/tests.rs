#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use mrgc_fleet::{
    histogram::Histogram,
    model::{Health, Lifecycle, Registration, Report, Standing, Timestamp},
    snapshot::{Builder, Member, Seen},
};

use super::*;

const HOME: &str = "us-east-1";

fn standing(id: &str, region: &str, pool: &str, change: impl FnOnce(&mut Report)) -> Standing {
    let registration = Registration::new(id, region, pool, "10.0.0.1:8000");
    let mut report = Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        ..Report::new(id, region, registration.generation, 1)
    };
    change(&mut report);
    Standing::new(registration, Some(report))
}

fn snapshot(standings: Vec<Standing>) -> Snapshot {
    let regions = [HOME, "eu-west-1"].map(|id| {
        let endpoint = format!("http://{id}:8000");
        serde_json::from_value(serde_json::json!({ "region_id": id, "endpoint": endpoint }))
            .unwrap()
    });
    let member = |standing| Member { standing: Arc::new(standing), seen: Seen::Well };
    let members = standings.into_iter().map(member).collect();
    Builder::new(HOME.into()).build(Timestamp(0), regions.into(), members, &BTreeMap::new())
}

fn served(pool: &str, answered: u64, latencies_ms: &[f64]) -> Served {
    let mut latency = Histogram::default();
    latencies_ms.iter().for_each(|ms| assert!(latency.record(*ms)));
    Served { pool: pool.into(), answered, latency }
}

fn rate(measured: &BTreeMap<PoolId, Measured>, pool: &str) -> Option<f64> {
    measured.get(&PoolId::from(pool))?.requests_per_second?.mean()
}

#[test]
fn batches_of_all_threads_add_up_to_a_rate_and_a_distribution() {
    let fleet = snapshot(vec![standing("i-1", HOME, "busy", |_| ())]);
    let mut window = Window::default();
    window.add(vec![served("busy", 3, &[10.0, 20.0])]);
    window.add(vec![served("busy", 2, &[40.0]), served("gone", 4, &[1.0])]);
    let measured = window.close(2.0, &fleet);
    assert_eq!((rate(&measured, "busy"), rate(&measured, "gone")), (Some(2.5), Some(2.0)));
    let latency = &measured[&PoolId::from("busy")].inference_latency;
    assert_eq!((latency.count(), latency.sum_ms()), (3, 70.0));

    let measured = window.close(1.0, &fleet);
    assert_eq!((rate(&measured, "busy"), rate(&measured, "gone")), (Some(0.0), None));
    assert!(measured[&PoolId::from("busy")].inference_latency.is_empty());
}

#[test]
fn queue_depths_are_those_of_this_regions_ready_instances_that_tell_theirs() {
    let fleet = snapshot(vec![
        standing("i-1", HOME, "busy", |report| report.queue_depth = Some(1)),
        standing("i-2", HOME, "busy", |report| report.queue_depth = Some(4)),
        standing("i-3", HOME, "busy", |_| ()),
        standing("i-4", HOME, "busy", |report| {
            report.queue_depth = Some(90);
            report.lifecycle = Lifecycle::Draining;
        }),
        standing("i-5", "eu-west-1", "busy", |report| report.queue_depth = Some(90)),
        standing("i-6", HOME, "silent", |_| ()),
        standing("i-7", "eu-west-1", "elsewhere", |report| report.queue_depth = Some(90)),
    ]);
    let mut window = Window::default();
    // Each window has those of the snapshot that stands.
    for _ in 0..2 {
        let measured = window.close(1.0, &fleet);
        let depth = measured[&PoolId::from("busy")].queue_depth.unwrap();
        assert_eq!((depth.samples, depth.sum, depth.max), (2, 5.0, 4.0));
        assert_eq!(measured[&PoolId::from("silent")].queue_depth, None);
        assert!(!measured.contains_key(&PoolId::from("elsewhere")));
    }
}

#[test]
fn a_load_time_counts_once_when_a_report_first_carries_it() {
    let loaded = |id: &str, region: &str, ms: Option<u64>| {
        standing(id, region, "busy", |report| report.model_load_ms = ms)
    };
    let mut loads = ModelLoads::default();
    let mut look = |standings| {
        let pools = loads.look(&snapshot(standings));
        pools.into_iter().map(|(_, ms)| ms).collect::<Vec<_>>()
    };
    let old = || loaded("i-old", HOME, Some(1_000));
    assert_eq!(look(vec![old()]), [0; 0], "of before this router's start");
    assert_eq!(look(vec![old(), loaded("i-new", HOME, None)]), [0; 0]);
    let far = || loaded("i-far", "eu-west-1", Some(3_000));
    let new = |ms| loaded("i-new", HOME, ms);
    assert_eq!(look(vec![old(), new(Some(2_000)), far()]), [2_000]);
    assert_eq!(look(vec![old(), new(Some(2_000)), far()]), [0; 0]);
    assert_eq!(look(vec![old(), new(None)]), [0; 0]);
    assert_eq!(look(vec![old(), new(Some(2_000))]), [0; 0], "its agent started anew");
    assert_eq!(look(vec![old(), new(Some(5_000))]), [5_000], "another model");
    assert_eq!(look(vec![old(), loaded("i-late", HOME, Some(4_000))]), [4_000]);
}
