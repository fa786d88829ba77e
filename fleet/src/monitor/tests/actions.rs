//! What a lease's holder does: nothing twice, nothing forgotten, and no more than fits.

use super::*;

const MINUTE: u64 = 60 * SECOND;

fn drained(rig: &mut Rig, ids: impl IntoIterator<Item = usize>) {
    for n in ids {
        rig.wish(&format!("us-{n}"), DesiredState::Draining, true);
    }
}

fn count(actions: &[Action], is_it: impl Fn(&Action) -> bool) -> usize {
    actions.iter().filter(|action| is_it(action)).count()
}

#[test]
fn what_has_no_room_comes_later_and_once() {
    let mut rig = Rig::new(&[("us", 40), ("eu", 20), ("ap", 20)]);
    rig.pass(60 * SECOND, &[], &[]);
    drained(&mut rig, 0..3);
    rig.monitor.restore(Vec::new(), HOLDER.failover);
    rig.pass(2 * SECOND, &["eu"], &[]);
    rig.monitor.impaired([("us-9".into(), "system status impaired".to_owned())].into());
    let mut actions = Vec::new();
    for room in [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1] {
        rig.now_ms += SECOND;
        rig.room = room;
        let issued = rig.actions();
        assert!(issued.len() <= room, "{issued:?}");
        actions.extend(issued);
    }
    rig.room = usize::MAX;
    actions.extend(rig.actions());
    assert_eq!(count(&actions, |a| matches!(a, Action::Release { .. })), 3, "{actions:#?}");
    assert_eq!(count(&actions, |a| matches!(a, Action::Replace { .. })), 1);
    assert_eq!(count(&actions, |a| matches!(a, Action::Scale(_))), 1);
    assert_eq!(count(&actions, |a| matches!(a, Action::Event(_))), 1);
    let recorded = |region: &'static str| move |a: &Action| matches!(a, Action::Record(record) if record.region.as_str() == region);
    for region in ["us", "eu", "ap"] {
        assert!(count(&actions, recorded(region)) >= 1, "{region}");
    }
    assert_eq!(rig.monitor.events_waiting(), 0);
}

#[test]
fn a_mass_recovery_holds_up_no_drain() {
    let mut rig = Rig::new(&[("us", 60), ("eu", 2)]);
    rig.pass(60 * SECOND, &[], &[]);
    drained(&mut rig, 0..50);
    rig.monitor.impaired([("us-59".into(), "system status impaired".to_owned())].into());
    rig.now_ms += SECOND;
    let remedies = rig.remedies();
    assert_eq!(remedies.iter().filter(|(what, _)| *what == "release").count(), 32);
    assert!(remedies.contains(&("replace", "us-59".to_owned())), "{remedies:?}");
    rig.now_ms += SECOND;
    assert_eq!(rig.remedies().len(), 18, "the others' turn");
}

/// The router that drained it may have died before it asked for another, or the store not have heard it.
#[test]
fn who_is_drained_and_fails_is_asked_for_again() {
    let mut rig = Rig::new(&[("us", 5)]);
    rig.pass(MINUTE, &[], &[]);
    drained(&mut rig, [0]);
    rig.pass(2 * MINUTE, &[], &["us-0"]);
    let replaced = [("replace", "us-0".to_owned())];
    assert_eq!(rig.remedies(), replaced, "whoever took the lease over asks at once");
    rig.pass(MINUTE - SECOND, &[], &["us-0"]);
    assert_eq!(rig.remedies(), []);
    rig.pass(SECOND, &[], &["us-0"]);
    assert_eq!(rig.remedies(), replaced);
    rig.pass(MINUTE + SECOND, &[], &[]);
    assert_eq!(rig.remedies(), [("release", "us-0".to_owned())]);
    // It was called off, but the drain stands: the store failed in between.
    rig.pass(2 * MINUTE, &[], &["us-0"]);
    assert_eq!(rig.remedies(), replaced);
}

/// Three machines of thirteen are gone for good, and nobody tells.
#[test]
fn the_missing_keep_no_region_degraded_and_nobody_from_being_drained() {
    let mut rig = Rig::new(&[("us", 13)]);
    rig.pass(MINUTE, &[], &[]);
    rig.silent = vec!["us-0", "us-1", "us-2"];
    drained(&mut rig, 0..3);
    let (dead, fourth) = (["us-0", "us-1", "us-2"], ["us-0", "us-1", "us-2", "us-3"]);
    rig.pass(29 * MINUTE, &[], &dead);
    rig.remedies();
    assert_eq!(rig.state("us").0, RegionState::Degraded, "10 of 13");
    rig.pass(5 * MINUTE, &[], &dead);
    assert_eq!(rig.state("us"), (RegionState::Normal, 1.0), "10 of 10");
    rig.pass(2 * MINUTE, &[], &fourth);
    assert_eq!(rig.remedies(), [("replace", "us-3".to_owned())]);

    // One that comes back after all is let in as ever.
    rig.silent = vec!["us-1", "us-2"];
    rig.pass(2 * MINUTE, &[], &["us-1", "us-2"]);
    assert!(rig.remedies().contains(&("release", "us-0".to_owned())));
}

/// Nobody decided that these go: they have failed, however long ago.
#[test]
fn the_silent_that_nobody_drained_count() {
    let mut rig = Rig::new(&[("us", 10)]);
    rig.pass(MINUTE, &[], &[]);
    rig.silent = vec!["us-0", "us-1", "us-2", "us-3"];
    rig.pass(40 * MINUTE, &[], &[]);
    assert_eq!(rig.state("us").0, RegionState::Degraded, "6 of 10");
}

#[test]
fn who_is_gone_by_the_clouds_word_and_silent_is_forgotten() {
    let is_forgotten = |gone, drain: Option<bool>, silent_ms: u64| {
        let mut rig = Rig::new(&[("us", 5)]);
        rig.pass(MINUTE, &[], &[]);
        if let Some(automatic) = drain {
            rig.wish("us-0", DesiredState::Draining, automatic);
        }
        rig.silent = if silent_ms > 0 { vec!["us-0"] } else { vec![] };
        rig.pass(silent_ms, &[], &[]);
        rig.monitor.gone([("us-0".into(), gone), ("another".into(), gone)].into());
        rig.pass(SECOND, &[], &[]);
        rig.remedies().contains(&("forget", "us-0".to_owned()))
    };
    for (gone, drain, silent_ms, expected) in [
        (Gone::Terminated, Some(true), MINUTE, true),
        (Gone::Terminated, None, MINUTE, true),
        (Gone::Terminated, Some(true), 0, false),
        (Gone::Terminated, Some(false), MINUTE, false),
        (Gone::Unknown, Some(true), MINUTE, false),
        (Gone::Unknown, Some(true), 31 * MINUTE, true),
    ] {
        let forgotten = is_forgotten(gone, drain, silent_ms);
        assert_eq!(forgotten, expected, "{gone:?}, {drain:?}, {silent_ms}");
    }
}

#[test]
fn while_the_clouds_word_is_awaited_nobody_is_released_and_who_fails_is_drained() {
    let mut rig = Rig::new(&[("us", 5)]);
    rig.pass(MINUTE, &[], &[]);
    drained(&mut rig, [0]);
    rig.monitor.hold_releases(true);
    rig.pass(2 * MINUTE, &[], &["us-1"]);
    assert_eq!(rig.remedies(), [("replace", "us-1".to_owned())]);
    rig.monitor.hold_releases(false);
    rig.pass(2 * SECOND, &[], &["us-1"]);
    assert!(rig.remedies().contains(&("release", "us-0".to_owned())));
}

#[test]
fn a_history_of_an_earlier_epoch_comes_too_late() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    let later = Epochs { failover: Some(2), ..HOLDER };
    rig.monitor.restore(Vec::new(), later.failover);
    rig.monitor.restore(Vec::new(), HOLDER.failover);
    rig.pass(SECOND, &[], &[]);
    rig.pass(2 * SECOND, &["eu"], &[]);
    let actions = rig.monitor.actions(later, rig.room, rig.now_ms, Timestamp(rig.now_ms));
    assert_eq!(count(&actions, |a| matches!(a, Action::Event(_))), 1, "{actions:?}");
}

#[test]
fn no_more_failovers_wait_than_are_kept() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2), ("ap", 2)]);
    rig.pass(SECOND, &[], &[]);
    rig.pass(2 * SECOND, &["eu", "ap"], &[]);
    let [event, _] = &rig.monitor.handler().history()[..] else { unreachable!("two regions") };
    let past = (0..MAX_EVENTS as u64).map(|n| FailoverEvent {
        id: format!("{n:04}"),
        from: "us".into(),
        at: Timestamp(n),
        ended_at: Some(Timestamp(n)),
        ..event.clone()
    });
    rig.monitor.restore(past.collect(), None);
    rig.monitor.restore(Vec::new(), HOLDER.failover);
    assert_eq!(rig.monitor.events_waiting(), MAX_EVENTS);
}
