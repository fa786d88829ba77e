#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const SECOND_MS: u64 = 1_000;

fn refused() -> ProbeResult {
    ProbeResult::Failed("connection refused".to_owned())
}

fn ids(count: usize) -> Vec<InstanceId> {
    (0..count).map(|n| format!("i-{n:03}").as_str().into()).collect()
}

/// One instance whose first probe is at 0.
fn one(config: ProbeConfig) -> (Probes, InstanceId) {
    let (mut probes, id) = (Probes::new(config), InstanceId::from("i-1"));
    let early_ms = spread(id.as_str(), config.interval_ms);
    probes.keep([&id], 0);
    // As if it had been kept so much earlier.
    probes.schedule = [(0, id.clone())].into();
    let probed = probes.probed.get_mut(&id).unwrap();
    assert_eq!(probed.due_ms, early_ms);
    (probed.turn_ms, probed.due_ms) = (Some(0), 0);
    (probes, id)
}

/// Runs a second at a time; `result` gives how the probe that begins at a second ends in that moment.
/// Returns the changes with their seconds, and the seconds at which there were probes.
fn run(
    probes: &mut Probes,
    seconds: std::ops::Range<u64>,
    result: impl Fn(u64) -> (ProbeResult, bool),
) -> (Vec<(u64, Verdict)>, Vec<u64>) {
    let (mut changes, mut probed_at) = (Vec::new(), Vec::new());
    for second in seconds {
        loop {
            let due = probes.due(second * SECOND_MS);
            if due.is_empty() {
                break;
            }
            for id in due {
                probed_at.push(second);
                let (result, answered_since) = result(second);
                let change = probes.handle(&id, result, answered_since, second * SECOND_MS);
                changes.extend(change.map(|verdict| (second, verdict)));
            }
        }
    }
    (changes, probed_at)
}

#[test]
fn the_default_is_what_the_documentation_says_and_has_no_problems() {
    let ProbeConfig {
        interval_ms,
        timeout_ms,
        failure_threshold,
        recovery_passes,
        parallel,
        retries,
    } = ProbeConfig::default();
    assert_eq!((interval_ms, timeout_ms, failure_threshold), (30_000, 10_000, 3));
    assert_eq!((recovery_passes, parallel, retries), (2, 20, 0));
    assert_eq!(ProbeConfig::default().problems(), [""; 0]);
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let none = ProbeConfig {
        interval_ms: 0,
        timeout_ms: 0,
        failure_threshold: 0,
        recovery_passes: 0,
        parallel: 0,
        retries: 0,
    };
    assert_eq!(none.problems().len(), 4, "{:#?}", none.problems());
    let slow = ProbeConfig { retries: 3, ..ProbeConfig::default() };
    assert_eq!(slow.problems().len(), 1, "{:#?}", slow.problems());
    assert!(slow.problems()[0].contains("40000 ms"), "{:#?}", slow.problems());
}

/// When an instance whose probes all fail is unhealthy, in seconds, and when it was probed until then.
fn unhealthy_at_s() -> (u64, Vec<u64>) {
    let (mut probes, id) = one(ProbeConfig::default());
    assert_eq!(probes.verdict(&id), &Verdict::Unknown);
    let (changes, mut probed_at) = run(&mut probes, 0..300, |_| (refused(), false));
    let [(at_s, Verdict::Unhealthy { since_ms, reason })] = &changes[..] else {
        unreachable!("{changes:?}")
    };
    assert_eq!((*since_ms, &**reason), (at_s * SECOND_MS, "connection refused"));
    assert!(probes.verdict(&id).is_unhealthy());
    probed_at.retain(|at| at <= at_s);
    (*at_s, probed_at)
}

/// Scenario 1, steps 1 to 3.
#[test]
fn an_instance_that_fails_at_0_30_60_and_90_s_is_unhealthy_at_90_s_and_not_before() {
    assert_eq!(unhealthy_at_s(), (90, vec![0, 30, 60, 90]));
}

#[test]
fn without_a_threshold_the_first_failure_counts() {
    let config = ProbeConfig { failure_threshold: 0, ..ProbeConfig::default() };
    assert_eq!(config.problems(), [""; 0]);
    let (mut probes, _) = one(config);
    let (changes, _) = run(&mut probes, 0..100, |_| (refused(), false));
    let unhealthy = Verdict::Unhealthy { since_ms: 0, reason: "connection refused".to_owned() };
    assert_eq!(changes, [(0, unhealthy)]);
}

#[cfg(feature = "planted")]
#[test]
fn with_a_threshold_off_by_one_it_would_be_unhealthy_at_60_s() {
    let _planted = planted::plant(Fault::ThresholdOffByOne);
    assert_eq!(unhealthy_at_s().0, 60);
}

#[test]
fn a_pass_in_between_begins_the_count_anew() {
    for passes_at_s in [0, 30, 60, 90] {
        let (mut probes, id) = one(ProbeConfig::default());
        let result = |at| if at == passes_at_s { ProbeResult::Passed } else { refused() };
        let (changes, _) = run(&mut probes, 0..passes_at_s + 120, |at| (result(at), false));
        assert!(!probes.verdict(&id).is_unhealthy() || passes_at_s == 0, "{changes:?}");
        let (changes, _) = run(&mut probes, passes_at_s + 120..300, |at| (result(at), false));
        let at_s = changes.first().map(|(at_s, _)| *at_s);
        assert_eq!(at_s, Some(passes_at_s + 120), "{changes:?}");
    }
}

/// "Health check passes 2x: rejoins pool, < 60 s".
#[test]
fn one_that_passes_twice_is_healthy_again_within_60_s_of_its_recovery() {
    for recovers_at_s in 200..260 {
        let (mut probes, id) = one(ProbeConfig::default());
        let result = |at| if at < recovers_at_s { refused() } else { ProbeResult::Passed };
        let (changes, probed_at) = run(&mut probes, 0..400, |at| (result(at), false));
        let [_, (at_s, Verdict::Healthy)] = changes[..] else { unreachable!("{changes:?}") };
        let passes = probed_at.iter().filter(|at| (recovers_at_s..=at_s).contains(*at));
        assert_eq!(passes.count(), 2);
        assert!(at_s - recovers_at_s < 60, "{} s", at_s - recovers_at_s);
        assert_eq!(probes.verdict(&id), &Verdict::Healthy);
    }
}

#[test]
fn one_pass_between_failures_brings_nobody_back() {
    let (mut probes, id) = one(ProbeConfig::default());
    let result = |at| if at > 90 && at % 60 == 0 { ProbeResult::Passed } else { refused() };
    let (changes, probed_at) = run(&mut probes, 0..1_000, |at| (result(at), false));
    assert_eq!((changes.len(), probed_at.len()), (1, 34), "{changes:?}");
    assert!(probes.verdict(&id).is_unhealthy());
}

#[test]
fn an_instance_is_healthy_from_its_first_pass() {
    let (mut probes, _) = one(ProbeConfig::default());
    let (changes, _) = run(&mut probes, 0..200, |_| (ProbeResult::Passed, false));
    assert_eq!(changes, [(0, Verdict::Healthy)]);
}

#[test]
fn busy_is_not_dead_but_a_failure_is_one_however_busy() {
    for (result, answered_since, unhealthy) in [
        (ProbeResult::TimedOut, true, false),
        (ProbeResult::TimedOut, false, true),
        (refused(), true, true),
        (refused(), false, true),
    ] {
        let (mut probes, id) = one(ProbeConfig::default());
        run(&mut probes, 0..600, |_| (result.clone(), answered_since));
        let verdict = probes.verdict(&id);
        assert_eq!(verdict.is_unhealthy(), unhealthy, "{result:?}, {answered_since}: {verdict:?}");
    }
    // It condemns nobody, and it acquits nobody: three failures before it still count.
    let (mut probes, _) = one(ProbeConfig::default());
    let slow = |at| if at == 90 { (ProbeResult::TimedOut, true) } else { (refused(), false) };
    let (changes, _) = run(&mut probes, 0..200, slow);
    assert_eq!(changes.first().map(|(at_s, _)| *at_s), Some(120));
}

#[test]
fn a_probe_that_times_out_is_tried_again_at_once_before_it_counts() {
    let config = ProbeConfig { retries: 2, ..ProbeConfig::default() };
    let (mut probes, _) = one(config);
    let (changes, probed_at) = run(&mut probes, 0..100, |_| (ProbeResult::TimedOut, false));
    assert_eq!(probed_at, [0, 0, 0, 30, 30, 30, 60, 60, 60, 90, 90, 90]);
    let reason = "its probe timed out after 10000 ms".to_owned();
    assert_eq!(changes, [(90, Verdict::Unhealthy { since_ms: 90_000, reason })]);
    // One that is busy is not asked again, and neither is what was answered.
    let (mut probes, _) = one(config);
    let (_, probed_at) = run(&mut probes, 0..100, |_| (ProbeResult::TimedOut, true));
    assert_eq!(probed_at, [0, 30, 60, 90]);
    let (mut probes, _) = one(config);
    let (_, probed_at) = run(&mut probes, 0..100, |_| (refused(), false));
    assert_eq!(probed_at, [0, 30, 60, 90]);
}

#[test]
fn a_slow_probe_puts_nothing_off() {
    let (mut probes, id) = one(ProbeConfig::default());
    for round in 0..4 {
        let from_ms = round * 30_000;
        assert_eq!(probes.due(from_ms), std::slice::from_ref(&id));
        assert_eq!(probes.next_ms(), None);
        assert!(probes.due(from_ms + 9_999).is_empty());
        probes.handle(&id, ProbeResult::TimedOut, false, from_ms + 10_000);
        assert_eq!(probes.next_ms(), Some(from_ms + 30_000));
    }
    assert!(probes.verdict(&id).is_unhealthy());
}

#[test]
fn probes_are_spread_over_the_interval() {
    let (mut probes, ids) = (Probes::new(ProbeConfig::default()), ids(300));
    probes.keep(&ids, 0);
    for half_minute in 0..3 {
        // Each second tells of the one before.
        let seconds = half_minute * 30 + 1..half_minute * 30 + 31;
        let (_, probed_at) = run(&mut probes, seconds.clone(), |_| (ProbeResult::Passed, false));
        assert_eq!(probed_at.len(), 300);
        let most = seconds.map(|s| probed_at.iter().filter(|at| **at == s).count()).max();
        assert!(most < Some(25), "{most:?} in one second");
    }
}

/// "20 instances checked concurrently", "1-2 seconds for 50 instances" of up to 500 ms each.
#[test]
fn fifty_instances_that_are_all_due_take_at_most_two_seconds() {
    let (mut probes, ids) = (Probes::new(ProbeConfig::default()), ids(50));
    probes.keep(&ids, 0);
    // Held up until every one is due.
    let from_ms = 30_000;
    let mut probed = BTreeSet::new();
    for now_ms in (from_ms..from_ms + 1_500).step_by(500) {
        let due = probes.due(now_ms);
        assert!(due.len() <= 20 && probes.due(now_ms).is_empty());
        for id in &due {
            probes.handle(id, ProbeResult::Passed, false, now_ms + 500);
        }
        probed.extend(due);
    }
    assert_eq!(probed.len(), 50);
}

#[test]
fn after_a_long_hold_up_nobody_is_probed_for_the_time_that_is_gone() {
    let (mut probes, _) = one(ProbeConfig::default());
    let hour_s = 3_600;
    run(&mut probes, 0..1, |_| (refused(), false));
    let (_, probed_at) = run(&mut probes, hour_s..hour_s + 61, |_| (refused(), false));
    assert_eq!(probed_at, [hour_s, hour_s + 30, hour_s + 60]);
}

#[test]
fn the_gone_are_not_probed_and_what_is_under_way_for_them_counts_until_it_ends() {
    let config = ProbeConfig { parallel: 1, ..ProbeConfig::default() };
    let (mut probes, ids) = (Probes::new(config), ids(2));
    probes.keep(&ids, 0);
    let first = probes.due(60_000).remove(0);
    let other = ids.iter().find(|id| **id != first).unwrap();
    assert!(probes.due(60_000).is_empty());
    assert_eq!(probes.next_ms(), None);
    probes.keep([other], 60_000);
    assert_eq!((probes.next_ms(), probes.due(60_000)), (None, vec![]));
    assert_eq!(probes.handle(&first, refused(), false, 60_000), None);
    assert!(probes.next_ms().is_some_and(|at_ms| at_ms <= 60_000));
    assert_eq!(probes.due(60_000), std::slice::from_ref(other));
    assert_eq!(probes.handle(&first, refused(), false, 60_000), None, "it ended before");
    assert!(probes.due(60_000).is_empty());
    probes.handle(other, ProbeResult::Passed, false, 60_000);
    probes.keep([], 60_000);
    assert_eq!((probes.next_ms(), probes.due(600_000).len()), (None, 0));
    assert_eq!(probes.verdict(other), &Verdict::Unknown);
}

#[test]
fn one_that_goes_and_comes_back_is_not_probed_twice_at_once() {
    let (mut probes, id) = one(ProbeConfig::default());
    assert_eq!(probes.due(0), std::slice::from_ref(&id));
    probes.keep([], 1_000);
    probes.keep([&id], 2_000);
    assert!(probes.due(300_000).is_empty());
    probes.handle(&id, ProbeResult::Passed, false, 300_000);
    assert_eq!(probes.due(300_000), std::slice::from_ref(&id));
}

#[derive(Clone, Debug)]
enum Step {
    Keep(Vec<bool>),
    Due,
    /// The one at this place among those under way ends.
    End(usize, Option<bool>),
    Wait(u64),
}

fn some_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop::collection::vec(prop::bool::weighted(0.8), 8).prop_map(Step::Keep),
        4 => Just(Step::Due),
        4 => (any::<usize>(), any::<Option<bool>>()).prop_map(|(i, result)| Step::End(i, result)),
        3 => (0..20_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whoever comes and goes and however probes end: no more than so many at once, nobody twice at once,
    /// and nobody is forgotten.
    #[test]
    fn probes_are_bounded_and_nobody_is_lost(steps in prop::collection::vec(some_step(), 1..200)) {
        let config = ProbeConfig { parallel: 3, retries: 1, ..ProbeConfig::default() };
        let (mut probes, all) = (Probes::new(config), ids(8));
        let (mut kept, mut under_way, mut now_ms) = (Vec::new(), Vec::<InstanceId>::new(), 0);
        for step in steps {
            match step {
                Step::Keep(who) => {
                    kept = all.iter().zip(who).filter(|(_, is_kept)| *is_kept).map(|(id, _)| id).collect();
                    probes.keep(kept.iter().copied(), now_ms);
                }
                Step::Due => {
                    for id in probes.due(now_ms) {
                        prop_assert!(kept.contains(&&id) && !under_way.contains(&id));
                        under_way.push(id);
                    }
                }
                Step::End(which, result) if !under_way.is_empty() => {
                    let id = under_way.swap_remove(which % under_way.len());
                    let result = match result {
                        None => ProbeResult::TimedOut,
                        Some(true) => ProbeResult::Passed,
                        Some(false) => refused(),
                    };
                    probes.handle(&id, result, false, now_ms);
                }
                Step::End(..) => {}
                Step::Wait(ms) => now_ms += ms,
            }
            prop_assert!(under_way.len() <= 3);
            let probed = under_way.iter().filter(|id| kept.contains(id)).count();
            prop_assert_eq!(probes.schedule.len() + probed, kept.len());
        }
        for id in under_way {
            probes.handle(&id, ProbeResult::Passed, false, now_ms);
        }
        let from_s = now_ms / SECOND_MS + 1;
        let (_, probed_at) = run(&mut probes, from_s..from_s + 31, |_| (ProbeResult::Passed, false));
        prop_assert!(probed_at.len() >= kept.len(), "{probed_at:?} of {kept:?}");
    }
}
