//! The failovers that are told of.

use super::*;

#[test]
fn a_failover_counts_from_its_first_sign() {
    let mut world = world();
    world.now_ms = 5_000;
    let (eu, dead) = (RegionId::from("eu"), CUT_OFF);
    for (signs_ms, expected_ms, late) in [(4_300, 700, 0), (3_000, 2_000, 1)] {
        let mut handler = Handler::new("us".into(), Thresholds::default(), BEGIN);
        handler.evidence(&eu, healthy(10), 0, 0);
        handler.tick(0, BEGIN);
        handler.evidence(&eu, dead, signs_ms, 5_000);
        let outputs = handler.tick(5_000, BEGIN);
        let [Output::Changed { transition, .. }, Output::Event { phase: Phase::Began, event }] =
            &outputs[..]
        else {
            unreachable!("{outputs:?}")
        };
        assert_eq!((transition.from, transition.to), (Normal, FailoverActive));
        assert_eq!(event.duration_ms, Some(expected_ms));
        assert_eq!(event.reason.as_deref(), Some("its routers do not answer"));
        let summary = handler.summary();
        assert_eq!(summary.average_duration_ms, Some(expected_ms as f64));
        assert_eq!((summary.total_failovers, summary.late_failovers), (1, late));
    }
}

#[test]
fn a_failover_by_hand_tells_who_and_why_and_where_to() {
    let mut world = world();
    world.order("eu", fail_over(Some("ap"), Strategy::Graceful));
    let begun = world.events().remove(0);
    assert_eq!((begun.duration_ms, begun.ended_at), (None, None));
    world.pass(3_000);
    let moved = world.events().remove(0);
    assert_eq!(moved.duration_ms, Some(3_000), "as seen by one who looks each second");
    world.order("eu", Wish::Automatic);
    world.pass(90 * SECOND_MS);
    let [ended] = &world.events()[..] else { unreachable!("{:?}", world.events()) };
    assert_eq!((ended.cause, ended.strategy), (Cause::Manual, Strategy::Graceful));
    assert_eq!(ended.operator.as_deref(), Some("alice"));
    assert_eq!(ended.reason.as_deref(), Some("maintenance"));
    assert_eq!(ended.to, ["ap".into(), "us".into()]);
    assert_eq!(ended.ended_at, Some(world.at()));
    assert_eq!(world.handler.history(), world.events());
    let phase = |output: &Output| match output {
        Output::Event { phase, .. } => Some(*phase),
        Output::Changed { .. } => None,
    };
    let phases: Vec<_> = world.outputs.iter().filter_map(phase).collect();
    assert_eq!(phases, [Phase::Began, Phase::Moved, Phase::Ended]);
}

#[test]
fn a_relapse_is_the_same_failover_and_an_operators_is_another() {
    let mut world = world();
    world.see("eu", healthy(1));
    world.look();
    world.see("eu", healthy(10));
    world.pass(45 * SECOND_MS);
    world.see("eu", healthy(1));
    world.pass(10 * SECOND_MS);
    assert_eq!(world.events().len(), 1);

    world.order("eu", fail_over(Some("ap"), Strategy::Immediate));
    let events = world.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].ended_at, Some(world.at()), "the operator's takes its place");
    assert_eq!(events[1].cause, Cause::Manual);
    world.pass(SECOND_MS);
    world.order("eu", fail_over(Some("us"), Strategy::Immediate));
    assert_eq!(world.events().len(), 3, "to another region is another one");
    // The operator lets go of a region that is still down: it is still that failover.
    world.order("eu", Wish::Automatic);
    world.pass(60 * SECOND_MS);
    assert_eq!(world.events().len(), 3);
    assert_eq!(world.now("eu"), (FailoverActive, 0.05));
}

#[test]
fn a_failover_on_another_routers_word_begins_with_the_word() {
    let mut world = world();
    world.pass(100 * SECOND_MS);
    world.handler.record(word(FailoverActive, 0.05, stamp(3, 0)), world.now_ms);
    world.look();
    let [event] = &world.events()[..] else { unreachable!("{:?}", world.events()) };
    assert_eq!(event.duration_ms, Some(0));
    assert_eq!(event.reason.as_deref(), Some("as router-1 has it"));
}

#[test]
fn a_pin_is_no_failover() {
    let mut world = world();
    world.order("eu", pinned(FailoverActive));
    world.pass(60 * SECOND_MS);
    assert_eq!(world.events(), []);
}

#[test]
fn a_region_that_is_taken_off_the_list_is_forgotten() {
    let mut world = World::new(&["us", "eu"]);
    world.see("eu", healthy(0));
    world.look();
    world.handler.keep([&"us".into()]);
    let outputs = world.handler.tick(SECOND_MS, BEGIN);
    let [Output::Event { phase: Phase::Ended, event }] = &outputs[..] else {
        unreachable!("{outputs:?}")
    };
    assert_eq!(event.ended_at, Some(BEGIN));
    assert_eq!(world.handler.status().len(), 1);
    assert_eq!(world.now("eu"), (Normal, 1.0));
}

#[test]
fn one_who_takes_over_the_writing_goes_on_with_what_is_written() {
    let mut world = world();
    world.see("eu", healthy(0));
    world.look();
    let own = world.events().remove(0);
    let written = FailoverEvent { id: "an earlier one".to_owned(), ..own };
    world.handler.restore(vec![written.clone()]);
    world.see("eu", healthy(10));
    world.pass(200 * SECOND_MS);
    let ended = world.events().pop().unwrap();
    assert_eq!((ended.id, ended.ended_at.is_some()), (written.id, true));
    assert_eq!(world.handler.summary().total_failovers, 1);
}
