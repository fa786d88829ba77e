#![allow(clippy::unwrap_used)]

use std::{future::Future, pin::pin, task::Context};

use super::*;

fn config() -> EjectionConfig {
    EjectionConfig { slow_start_ms: 0, ..EjectionConfig::default() }
}

fn pool(size: usize) -> (Vec<Arc<Slot>>, Signs) {
    let signs = Signs::default();
    let rules = Arc::new(Rules::new(config(), signs.clone()));
    ((0..size).map(|_| Arc::new(Slot::new(rules.clone()))).collect(), signs)
}

fn attempt(pool: &[Arc<Slot>], at: usize, outcome: Outcome, now_ms: u64) -> Change {
    pool[at].admit(false, now_ms).unwrap().conclude(outcome, pool, now_ms)
}

fn was_told(signs: &Signs) -> bool {
    let mut changed = pin!(signs.changed());
    changed.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
}

#[test]
fn soft_failures_in_a_row_eject_and_answers_between_them_forgive() {
    let (pool, signs) = pool(4);
    for round in 0..3 {
        for _ in 0..4 {
            assert_eq!(attempt(&pool, 0, Outcome::ServerError, 10), Change::None, "{round}");
        }
        assert_eq!(attempt(&pool, 0, Outcome::Answered, 10), Change::None);
        assert_eq!(pool[0].held.load(Relaxed), 0, "nothing is held against it any more");
    }
    assert!(!was_told(&signs));
    for _ in 0..4 {
        attempt(&pool, 0, Outcome::Broken, 10);
    }
    let cause = Outcome::TimedOut;
    assert_eq!(attempt(&pool, 0, cause, 10), Change::Ejected { until_ms: 2_010, cause });
    assert!(was_told(&signs));
    assert!(pool[0].live(2_009).masked && pool[0].is_ejected(2_009));
    assert!(pool[0].admit(false, 2_009).is_none());
    assert!(pool[0].admit(true, 2_009).is_some(), "as the last resort");
}

#[test]
fn half_of_a_pool_is_kept_whatever_fails_softly_and_nobody_who_cannot_be_reached() {
    let (pool, _) = pool(4);
    let mut ejected = 0;
    for _ in 0..20 {
        for at in 0..pool.len() {
            if pool[at].live(10).masked {
                continue;
            }
            let change = attempt(&pool, at, Outcome::ServerError, 10);
            ejected += usize::from(matches!(change, Change::Ejected { .. }));
        }
    }
    assert_eq!(ejected, 2);
    for at in 0..pool.len() {
        if !pool[at].live(10).masked {
            let change = attempt(&pool, at, Outcome::Unreachable, 10);
            assert!(matches!(change, Change::Ejected { .. }), "{change:?}");
        }
    }
    assert!(pool.iter().all(|slot| slot.live(10).masked));
}

#[test]
fn after_its_time_a_few_try_it_out_and_a_place_that_told_nothing_is_given_back() {
    let (pool, signs) = pool(2);
    attempt(&pool, 0, Outcome::Unreachable, 0);
    assert!(was_told(&signs));
    let trials: Vec<_> = (0..3).map(|_| pool[0].admit(false, 2_000).unwrap()).collect();
    assert!(trials.iter().all(Permit::is_trial));
    assert!(pool[0].admit(false, 2_000).is_none() && pool[0].live(2_000).masked);
    drop(trials);
    for n in 1..=3 {
        let change = attempt(&pool, 0, Outcome::Answered, 2_000);
        assert_eq!(change, if n < 3 { Change::None } else { Change::Rejoined });
    }
    assert!(was_told(&signs));
    assert!(!pool[0].live(2_000).masked && !pool[0].admit(false, 2_000).unwrap().is_trial());
}

#[test]
fn who_is_lost_is_masked_and_told_of_once() {
    let (pool, signs) = pool(1);
    let mut losses = signs.losses();
    for (is_lost, is_told) in [(false, false), (true, true), (true, false), (false, false)] {
        pool[0].set_lost(is_lost);
        assert_eq!(pool[0].live(0).masked, is_lost);
        assert_eq!(losses.has_changed().unwrap(), is_told);
        losses.mark_unchanged();
    }
}

#[test]
fn answers_of_any_kind_but_failures_show_that_it_lives() {
    let (pool, _) = pool(1);
    assert_eq!(pool[0].answered_ms(), 0);
    for (outcome, now_ms, expected) in [
        (Outcome::ServerError, 5, 0),
        (Outcome::Answered, 7, 7),
        (Outcome::Answered, 7 + ANSWERED_STEP_MS - 1, 7),
        (Outcome::Busy, 7 + ANSWERED_STEP_MS, 7 + ANSWERED_STEP_MS),
        (Outcome::TimedOut, 10_000, 7 + ANSWERED_STEP_MS),
    ] {
        attempt(&pool, 0, outcome, now_ms);
        assert_eq!(pool[0].answered_ms(), expected, "{outcome:?} at {now_ms}");
    }
}

#[test]
fn two_threads_take_the_last_room_once() {
    for _ in 0..50 {
        let (pool, _) = pool(2);
        std::thread::scope(|scope| {
            for at in 0..2 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..20 {
                        if let Some(permit) = pool[at].admit(false, 0) {
                            permit.conclude(Outcome::ServerError, pool, 0);
                        }
                    }
                });
            }
        });
        assert_eq!(pool.iter().filter(|slot| slot.is_ejected(0)).count(), 1);
    }
}
