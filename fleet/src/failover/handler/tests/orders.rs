//! What operators want.

use super::*;

#[test]
fn a_graceful_failover_falls_in_a_line_and_asks_to_be_called() {
    let mut world = world();
    world.order("eu", fail_over(None, Strategy::Graceful));
    let mut shares = Vec::new();
    for _ in 0..25 {
        world.now_ms = world.handler.next_ms(world.now_ms);
        world.look();
        shares.push(world.now("eu").1);
    }
    assert_eq!(world.now_ms, 2_500);
    assert!(world.handler.next_ms(world.now_ms) >= 60_000, "it is over");
    assert!(shares.windows(2).all(|pair| pair[1] < pair[0]), "{shares:?}");
    assert_eq!((shares[0], shares[24]), (0.96, 0.0));
}

#[test]
fn a_failover_in_midcourse_is_hurried_or_called_off() {
    let mut world = world();
    world.order("eu", fail_over(None, Strategy::Graceful));
    world.pass(1_250);
    assert_eq!(world.now("eu"), (FailoverActive, 0.5));
    world.order("eu", fail_over(None, Strategy::Immediate));
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));

    let mut world = self::world();
    world.order("eu", fail_over(None, Strategy::Graceful));
    world.pass(1_250);
    world.order("eu", Wish::Automatic);
    assert_eq!(world.now("eu"), (Recovering, 0.75));
    world.pass(30 * SECOND_MS);
    assert_eq!(world.now("eu"), (Normal, 1.0));
}

#[test]
fn a_recovery_by_hand_waits_for_the_evidence() {
    let mut world = world();
    world.order("eu", fail_over(None, Strategy::Immediate));
    world.see("eu", healthy(2));
    world.pass(60 * SECOND_MS);
    world.order("eu", Wish::Automatic);
    assert_eq!(world.now("eu"), (FailoverActive, 0.05), "what the evidence leaves it");
    world.see("eu", healthy(10));
    world.look();
    world.pass(29 * SECOND_MS);
    assert_eq!(world.now("eu"), (FailoverActive, 0.05));
    world.pass(SECOND_MS);
    assert_eq!(world.now("eu"), (Recovering, 0.30));
}

#[test]
fn impatient_operators_move_a_step_up_and_no_more() {
    let mut world = world();
    for _ in 0..20 {
        world.order("eu", fail_over(None, Strategy::Immediate));
        assert_eq!(world.now("eu"), (FailoverActive, 0.0));
        world.pass(SECOND_MS);
        world.order("eu", Wish::Automatic);
        assert!(world.now("eu").1 <= 0.25);
        world.pass(SECOND_MS);
    }
}

#[test]
fn opposite_commands_come_to_the_same_in_any_order() {
    let order = |wish, writer: &str| RegionOrder {
        region: "eu".into(),
        wish,
        reason: None,
        operator: Some(writer.to_owned()),
        at: BEGIN,
        writer_region: writer.into(),
        stamp: stamp(0, 5),
    };
    let orders = [
        order(Wish::Automatic, "us"),
        order(pinned(Normal), "eu"),
        order(fail_over(None, Strategy::Immediate), "ap"),
    ];
    for places in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut world = world();
        for place in places {
            world.handler.order(orders[place].clone(), world.now_ms);
            world.look();
        }
        assert_eq!(world.now("eu"), (FailoverActive, 0.0), "{places:?}");
        assert_eq!(world.handler.ordered(&"eu".into()), Some(&orders[2]));
    }
}

#[test]
fn an_order_that_is_read_again_and_again_is_one() {
    let mut world = world();
    let order = world.order("eu", fail_over(None, Strategy::Graceful));
    for _ in 0..25 {
        world.pass(100);
        world.handler.order(order.clone(), world.now_ms);
    }
    world.look();
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));
    assert_eq!(world.events().len(), 1);
}

#[test]
fn an_order_from_before_the_start_is_in_force_at_once() {
    let order = world().order("eu", fail_over(Some("ap"), Strategy::Graceful));
    let mut handler = Handler::new("us".into(), Thresholds::default(), BEGIN);
    handler.order(order, 0);
    handler.tick(0, BEGIN);
    assert_eq!(handler.share(&"eu".into()), 0.0);
}

#[test]
fn a_pin_holds_whatever_the_evidence_says() {
    for (state, share) in
        [(Normal, 1.0), (Degraded, 0.7), (FailoverActive, 0.05), (Recovering, 0.25)]
    {
        let mut world = world();
        world.order("eu", pinned(state));
        for evidence in [healthy(10), healthy(4), healthy(0), healthy(10)] {
            world.see("eu", evidence);
            world.pass(45 * SECOND_MS);
            assert_eq!(world.now("eu"), (state, share), "{evidence:?}");
        }
        // Nothing can be sent where nobody answers.
        world.see("eu", CUT_OFF);
        world.look();
        assert_eq!(world.now("eu"), (FailoverActive, 0.0));
        world.see("eu", healthy(0));
        world.look();
        assert_eq!(world.now("eu"), (state, share));
    }
}

#[test]
fn a_pin_that_is_lifted_leaves_the_region_to_its_evidence() {
    let mut world = world();
    world.order("eu", pinned(Normal));
    world.see("eu", healthy(2));
    world.pass(60 * SECOND_MS);
    world.order("eu", Wish::Automatic);
    assert_eq!(world.now("eu"), (FailoverActive, 0.05), "worse at once");

    let mut world = self::world();
    world.order("eu", pinned(FailoverActive));
    world.pass(60 * SECOND_MS);
    world.order("eu", Wish::Automatic);
    assert_eq!(world.now("eu"), (Recovering, 0.30), "and back by steps");
    world.pass(90 * SECOND_MS);
    assert_eq!(world.now("eu"), (Normal, 1.0));
}
