//! Failovers that holders of a lease leave to each other.

use super::*;

/// What is written once `stored` was read.
fn written(rig: &mut Rig, stored: &[FailoverEvent]) -> Vec<FailoverEvent> {
    rig.monitor.restore(stored.to_vec(), HOLDER.failover);
    let event = |action| if let Action::Event(event) = action { Some(event) } else { None };
    rig.actions().into_iter().filter_map(event).collect()
}

/// A failover of `eu`, stored as under way, and the router that saw it.
fn under_way() -> (Rig, FailoverEvent) {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    rig.pass(SECOND, &[], &[]);
    rig.pass(2 * SECOND, &["eu"], &[]);
    let event = written(&mut rig, &[]).swap_remove(0);
    assert_eq!(event.ended_at, None);
    (rig, event)
}

#[test]
fn a_failover_that_ended_before_the_lease_was_taken_is_written_as_ended() {
    let (mut rig, stored) = under_way();
    rig.pass(300 * SECOND, &[], &[]);
    let events = written(&mut rig, std::slice::from_ref(&stored));
    let [event] = &events[..] else { unreachable!("{events:?}") };
    assert_eq!((&event.id, event.ended_at.is_some()), (&stored.id, true));
}

#[test]
fn of_several_that_are_stored_as_under_way_the_latest_goes_on() {
    let (mut rig, event) = under_way();
    let at = |n: u64| FailoverEvent {
        id: format!("{n}"),
        at: Timestamp(event.at.0 - 10 * n),
        ..event.clone()
    };
    let ends = |events: Vec<FailoverEvent>| {
        events.into_iter().map(|event| (event.id, event.ended_at)).collect::<Vec<_>>()
    };
    let [first, second] = [at(1), at(2)];
    assert_eq!(
        ends(written(&mut rig, &[first, event.clone(), second])),
        [
            ("1".to_owned(), Some(event.at)),
            ("2".to_owned(), Some(event.at)),
            (event.id.clone(), None),
        ]
    );
    rig.pass(300 * SECOND, &[], &[]);
    let events = ends(written(&mut rig, std::slice::from_ref(&event)));
    assert!(matches!(&events[..], [(id, Some(_))] if *id == event.id), "{events:?}");
}
