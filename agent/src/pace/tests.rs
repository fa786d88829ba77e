use mrgc_fleet::model::{EnclaveState, Health, Lifecycle};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn pace(mode: HeartbeatMode, interval_s: u32, max_interval_s: u32) -> Pace {
    Pace::new(Heartbeat {
        mode,
        interval: SECOND * interval_s,
        max_interval: SECOND * max_interval_s,
    })
}

fn written() -> Report {
    Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        enclave: EnclaveState::Running,
        models: vec!["llama".to_owned()],
        queue_depth: Some(10),
        running: Some(8),
        avg_latency_ms: Some(100.0),
        time_to_first_token_ms: Some(50.0),
        gpu_utilization: Some(0.5),
        ..Report::new("i-1", "us-east-1", 1, 1)
    }
}

type Change = fn(&mut Report);

#[test]
fn what_says_more_is_written_at_the_next_interval() {
    let pace = pace(HeartbeatMode::Adaptive, 10, 30);
    let cases: [(&str, bool, Change); 24] = [
        ("nothing changed", false, |_| ()),
        ("the clock and the sequence", false, |r| (r.at.0, r.sequence) = (9, 9)),
        ("the queue, by 1 of 10", false, |r| r.queue_depth = Some(11)),
        ("the queue, by a fifth", true, |r| r.queue_depth = Some(12)),
        ("the queue, down by a fifth", true, |r| r.queue_depth = Some(8)),
        ("the queue, empty", true, |r| r.queue_depth = Some(0)),
        ("the queue, unknown", true, |r| r.queue_depth = None),
        ("what runs", false, |r| r.running = Some(99)),
        ("latency, by 19.9 %", false, |r| r.avg_latency_ms = Some(119.9)),
        ("latency, by a fifth", true, |r| r.avg_latency_ms = Some(120.0)),
        ("latency, down by a fifth", true, |r| r.avg_latency_ms = Some(80.0)),
        ("latency, unknown", true, |r| r.avg_latency_ms = None),
        ("the first token, by a tenth", false, |r| r.time_to_first_token_ms = Some(55.0)),
        ("the first token, by a fifth", true, |r| r.time_to_first_token_ms = Some(60.0)),
        ("utilisation, by 0.19", false, |r| r.gpu_utilization = Some(0.69)),
        ("utilisation, by 0.2", true, |r| r.gpu_utilization = Some(0.7)),
        ("utilisation, down by 0.2", true, |r| r.gpu_utilization = Some(0.3)),
        ("memory", false, |r| r.gpu_memory_free_bytes = Some(1)),
        ("another model", true, |r| r.models = vec!["mixtral".to_owned()]),
        ("no model", true, |r| r.models.clear()),
        ("the enclave", true, |r| r.enclave = EnclaveState::Absent),
        ("the reason alone", false, |r| r.reason = Some("as before, in other words".to_owned())),
        ("health", true, |r| r.health = Health::Degraded),
        ("lifecycle", true, |r| r.lifecycle = Lifecycle::Draining),
    ];
    for (what, expected, change) in cases {
        let mut next = written();
        change(&mut next);
        assert_eq!(pace.is_due(&written(), &next, 10 * SECOND), expected, "{what}");
    }
}

#[test]
fn small_numbers_have_room() {
    for (was, is, expected) in
        [(0, 0, false), (0, 1, true), (1, 2, true), (4, 5, true), (6, 7, false), (6, 8, true)]
    {
        let report = |depth| Report { queue_depth: Some(depth), ..written() };
        assert_eq!(says_more(&report(was), &report(is)), expected, "{was} to {is}");
    }
    let idle = |latency| Report { avg_latency_ms: Some(latency), ..written() };
    assert!(!says_more(&idle(0.0), &idle(0.0)));
    assert!(says_more(&idle(0.0), &idle(1.0)));
}

#[test]
fn silence_does_not_last_longer_than_promised() {
    for (mode, interval_s, max_s, silent_s, expected, next_look_s) in [
        (HeartbeatMode::Fixed, 10, 30, 10, true, 10),
        (HeartbeatMode::Adaptive, 10, 30, 10, false, 10),
        (HeartbeatMode::Adaptive, 10, 30, 20, false, 10),
        (HeartbeatMode::Adaptive, 10, 30, 30, true, 0),
        (HeartbeatMode::Adaptive, 10, 35, 30, false, 5),
        (HeartbeatMode::Adaptive, 10, 35, 36, true, 0),
        (HeartbeatMode::Adaptive, 10, 10, 10, true, 0),
    ] {
        let pace = pace(mode, interval_s, max_s);
        let silent = SECOND * silent_s;
        let case = format!("{mode:?}, {interval_s} to {max_s} s, silent for {silent_s} s");
        assert_eq!(pace.is_due(&written(), &written(), silent), expected, "{case}");
        assert_eq!(pace.next_look(silent), SECOND * next_look_s, "{case}");
    }
    // A look that comes a moment late is not taken for a silence that is nearly over.
    let late = SECOND * 20 + SECOND / 100;
    assert!(!pace(HeartbeatMode::Adaptive, 10, 30).is_due(&written(), &written(), late));
}

#[test]
fn throttling_slows_by_doubling_and_successes_bring_it_back_by_steps() {
    let mut pace = pace(HeartbeatMode::Fixed, 10, 60);
    let interval_s = |pace: &Pace| pace.interval().as_secs();
    let mut throttled = vec![interval_s(&pace)];
    for _ in 0..4 {
        pace.throttled();
        throttled.push(interval_s(&pace));
        assert_eq!(pace.promise(), pace.interval());
    }
    assert_eq!(throttled, [10, 20, 40, 60, 60]);
    let mut back = Vec::new();
    for _ in 0..10 {
        pace.succeeded();
        back.push(interval_s(&pace));
    }
    assert_eq!(back, [60, 60, 40, 40, 40, 20, 20, 20, 10, 10]);
    pace.throttled();
    pace.succeeded();
    pace.succeeded();
    pace.throttled();
    pace.succeeded();
    assert_eq!(interval_s(&pace), 40, "successes count in a row");
}

#[test]
fn a_bound_that_is_the_interval_leaves_nothing_to_slow_down() {
    let mut pace = pace(HeartbeatMode::Adaptive, 10, 10);
    pace.throttled();
    assert_eq!((pace.interval(), pace.promise()), (10 * SECOND, 10 * SECOND));
}

#[test]
fn those_throttled_together_come_back_apart() {
    let mut pace = pace(HeartbeatMode::Fixed, 10, 60);
    pace.throttled();
    for (random, expected_s) in [(0.0, 10), (0.5, 15), (1.0, 20)] {
        assert_eq!(pace.wait_after_throttle(random), SECOND * expected_s);
    }
}

/// An hour of an instance under steady load: latency and utilisation waver by some percent, now and then a
/// request waits, once the load doubles for some minutes.
fn trace(seed: u64) -> impl Iterator<Item = Report> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..360).map(move |look| {
        let busy = (180..210).contains(&look);
        let waver = 1.0 + 0.06 * (2.0 * random.f64() - 1.0);
        let waiting = if busy { 4 } else { u32::from(random.f64() < 0.03) };
        Report {
            queue_depth: Some(waiting),
            running: Some(random.u32(8..24)),
            avg_latency_ms: Some(if busy { 300.0 } else { 150.0 } * waver),
            time_to_first_token_ms: Some(if busy { 90.0 } else { 40.0 } * waver),
            gpu_utilization: Some(if busy { 0.95 } else { 0.6 } + 0.05 * random.f64()),
            ..written()
        }
    })
}

#[test]
fn a_steady_instance_writes_at_most_half_as_often() {
    for seed in 0..20 {
        let count = |mode| {
            let pace = pace(mode, 10, 30);
            let mut held: Option<(usize, Report)> = None;
            let mut writes = 0;
            for (look, next) in trace(seed).enumerate() {
                let due = held.as_ref().is_none_or(|(at, written)| {
                    let silent = SECOND * 10 * u32::try_from(look - at).unwrap_or(u32::MAX);
                    assert!(silent <= 30 * SECOND, "seed {seed}: silent for {silent:?}");
                    pace.is_due(written, &next, silent)
                });
                if due {
                    writes += 1;
                    held = Some((look, next));
                }
            }
            writes
        };
        let (fixed, adaptive) = (count(HeartbeatMode::Fixed), count(HeartbeatMode::Adaptive));
        assert_eq!(fixed, 360);
        assert!(2 * adaptive <= fixed, "seed {seed}: {adaptive} of {fixed}");
    }
}
