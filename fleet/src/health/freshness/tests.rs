#![allow(clippy::unwrap_used)]

use super::*;
use crate::model::Registration;

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
    freshness.is_fresh(standing, now_ms)
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

/// After how many seconds an instance is stale whose last reports are read in a circle.
fn stale_after_s_of_replays() -> Option<u64> {
    let mut freshness = Freshness::new(STALE_AFTER_MS);
    let replayed = [standing(2, 9, None), standing(2, 8, None), standing(1, 70, None)];
    assert!(look(&mut freshness, &replayed[0], 0));
    (1..1_000).find(|second| {
        let standing = &replayed[*second as usize % replayed.len()];
        !look(&mut freshness, standing, second * SECOND_MS)
    })
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
        freshness.is_fresh(&Standing::new(registration, Some(report)), 0);
    }
    freshness.look(&[reported(1)], SECOND_MS, 0);
    assert_eq!(freshness.heard.len(), 1);
}
