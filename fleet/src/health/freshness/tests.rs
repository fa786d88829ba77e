#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::{Desired, DesiredState, Lifecycle, Registration, Stamp, Timestamp};

const SECOND_MS: u64 = 1_000;
const STALE_AFTER_MS: u64 = 30 * SECOND_MS;

fn standing(generation: u64, sequence: u64, next_within_ms: Option<u32>) -> Arc<Standing> {
    let report = Report { next_within_ms, ..Report::new("i-1", "us", generation, sequence) };
    Standing::new(Registration::new("i-1", "us", "p", "a:1"), Some(report)).into()
}

fn reported(sequence: u64) -> Arc<Standing> {
    standing(1, sequence, None)
}

/// Looks, as every second, at what there is.
fn look(freshness: &mut Freshness, standing: &Arc<Standing>, now_ms: u64) -> bool {
    freshness.look(std::slice::from_ref(standing), SECOND_MS, now_ms);
    freshness.hear(standing.clone(), now_ms).1
}

/// Looks every second, and says after how many the instance is stale.
fn stale_after_s(freshness: &mut Freshness, standing: &Arc<Standing>, from_ms: u64) -> u64 {
    (0..1_000).find(|second| !look(freshness, standing, from_ms + second * SECOND_MS)).unwrap()
}

#[test]
fn an_instance_is_stale_once_its_sequence_stands_still() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    assert_eq!(stale_after_s(&mut freshness, &reported(1), 0), 30);
    assert_eq!(stale_after_s(&mut freshness, &reported(2), 60 * SECOND_MS), 30);
}

#[test]
fn one_that_promised_to_be_slow_has_that_time() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    assert_eq!(stale_after_s(&mut freshness, &standing(1, 1, Some(40_000)), 0), 45);
    assert_eq!(stale_after_s(&mut freshness, &standing(1, 2, Some(1_000)), 60 * SECOND_MS), 30);
}

#[test]
fn while_nothing_can_be_seen_nobody_grows_stale() {
    let (mut freshness, standing) = (Freshness::new(STALE_AFTER_MS), reported(1));
    assert!(look(&mut freshness, &standing, 0));
    // An hour's outage; then the instance has what was left of its time.
    assert_eq!(stale_after_s(&mut freshness, &standing, 3_600 * SECOND_MS), 28);
}

#[test]
fn what_a_configuration_lists_does_not_grow_stale() {
    let (mut freshness, standing) = (Freshness::new(u64::MAX), reported(1));
    assert!((0..1_000).all(|second| look(&mut freshness, &standing, second * SECOND_MS)));
}

/// From which second on an instance is stale for good whose last reports are read in a circle.
fn stale_after_s_of_replays() -> Option<u64> {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    let replayed = [standing(2, 9, None), standing(2, 8, None), standing(1, 70, None)];
    assert!(look(&mut freshness, &replayed[0], 0));
    let looks = (1..1_000).map(|second| {
        let standing = &replayed[second as usize % replayed.len()];
        (second, look(&mut freshness, standing, second * SECOND_MS))
    });
    let fresh_until =
        looks.filter(|(_, is_fresh)| *is_fresh).last().map_or(0, |(second, _)| second);
    (fresh_until < 999).then_some(fresh_until + 1)
}

#[test]
fn a_lower_sequence_or_generation_is_not_news() {
    assert_eq!(stale_after_s_of_replays(), Some(30));
}

#[cfg(feature = "planted")]
#[test]
fn if_a_lower_sequence_were_accepted_the_dead_would_live() {
    use crate::planted::{Fault, plant};

    let _planted = plant(Fault::LowerSequenceAccepted);
    assert_eq!(stale_after_s_of_replays(), None);
}

/// What is made of an instance that said it drains, when a replica that lags says that it did not.
fn lifecycle_after_a_replay() -> Lifecycle {
    let says = |sequence, lifecycle| {
        let report = Report { lifecycle, ..Report::new("i-1", "us", 1, sequence) };
        let registration =
            Registration { generation: 1, ..Registration::new("i-1", "us", "p", "a:1") };
        Arc::new(Standing::new(registration, Some(report)))
    };
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    freshness.hear(says(7, Lifecycle::Available), 0);
    freshness.hear(says(8, Lifecycle::Draining), SECOND_MS);
    freshness.hear(says(7, Lifecycle::Available), 2 * SECOND_MS).0.lifecycle()
}

#[test]
fn what_an_instance_said_last_stands_whatever_is_read_after_it() {
    assert_eq!(lifecycle_after_a_replay(), Lifecycle::Draining);
}

#[cfg(feature = "planted")]
#[test]
fn if_a_lower_sequence_were_accepted_a_drain_would_be_undone() {
    let _planted = crate::planted::plant(crate::planted::Fault::LowerSequenceAccepted);
    assert_eq!(lifecycle_after_a_replay(), Lifecycle::Available);
}

#[test]
fn what_is_wanted_of_an_instance_is_news_although_its_report_is_not() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    let (newest, lagging) = (reported(9), reported(8));
    freshness.hear(newest.clone(), 0);
    let desired = Some(Desired {
        instance: "i-1".into(),
        region: "us".into(),
        state: DesiredState::Quarantined,
        reason: None,
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: "us".into(),
        stamp: Stamp { epoch: 0, sequence: 1 },
    });
    let wanted = Arc::new(Standing { desired, ..Standing::clone(&lagging) });
    let (known, _) = freshness.hear(wanted.clone(), 0);
    assert_eq!((&known.report, &known.desired), (&newest.report, &wanted.desired));
    // The next look finds the same: nothing has changed, so no snapshot is made for it.
    assert!(Arc::ptr_eq(&freshness.hear(wanted, 0).0, &known));
    // And without the wish again.
    assert_eq!(*freshness.hear(lagging, 0).0, *newest);
}

/// As one that kept nothing on a disk, and was started again.
#[test]
fn a_store_that_begins_anew_is_believed_once_nothing_else_is_read() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    assert!(look(&mut freshness, &standing(5, 100, None), 0));
    let read_again = |second| standing(1, second, None);
    let at_s = (1..1_000).find(|second| {
        let read = read_again(*second);
        freshness.look(std::slice::from_ref(&read), SECOND_MS, second * SECOND_MS);
        Arc::ptr_eq(&freshness.hear(read.clone(), second * SECOND_MS).0, &read)
    });
    assert_eq!(at_s, Some(30));
    assert!((31..100).all(|second| look(&mut freshness, &read_again(second), second * SECOND_MS)));
}

#[test]
fn an_instance_that_reports_nothing_is_not_fresh() {
    let registration = Registration::new("i-1", "us", "p", "a:1");
    let silent: Arc<Standing> = Standing::new(registration, None).into();
    let (known, is_fresh) = Freshness::new(STALE_AFTER_MS).hear(silent.clone(), 0);
    assert!(!is_fresh && Arc::ptr_eq(&known, &silent));
}

#[test]
fn a_higher_generation_is_news_whatever_its_sequence() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    assert_eq!(stale_after_s(&mut freshness, &standing(1, 500, None), 0), 30);
    assert!(look(&mut freshness, &standing(2, 1, None), 31 * SECOND_MS));
}

#[test]
fn the_gone_are_forgotten() {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    for n in 0..1_000 {
        let id = format!("i-{n}");
        let registration = Registration::new(id.as_str(), "us", "p", "a:1");
        let report = Report::new(id.as_str(), "us", 1, 1);
        freshness.hear(Standing::new(registration, Some(report)).into(), 0);
    }
    freshness.look(&[reported(1)], SECOND_MS, 0);
    assert_eq!(freshness.heard.len(), 1);
}
