use super::*;
use crate::failover::{
    Evidence, RegionState, Strategy,
    testing::{CUT_OFF, World, fail_over, healthy},
};

/// What is said to an order for `us`, in a world where `eu` and `ap` are so.
fn check(wish: Wish, eu: Evidence, ap: Evidence) -> Result<(), Refused> {
    let mut world = World::new(&["us", "eu", "ap"]);
    let mut order = world.order("us", Wish::Automatic);
    world.see("eu", eu);
    world.see("ap", ap);
    world.look();
    order.wish = wish;
    world.handler.check(&order)
}

#[test]
fn a_failover_wants_a_target_that_is_healthy_enough() {
    let to = |to| fail_over(to, Strategy::Graceful);
    let unhealthy =
        |to: &str, healthy| Refused::Unhealthy { to: to.into(), healthy, all: 10, minimum: 0.5 };
    let no_target = || Refused::NoTarget { from: "us".into(), minimum: 0.5 };
    for (wish, eu, ap, expected) in [
        (to(Some("eu")), healthy(10), healthy(0), Ok(())),
        (to(Some("eu")), healthy(5), healthy(0), Ok(())),
        (to(Some("eu")), healthy(4), healthy(10), Err(unhealthy("eu", 4))),
        (to(Some("eu")), CUT_OFF, healthy(10), Err(Refused::Closed("eu".into()))),
        (to(Some("us")), healthy(10), healthy(10), Err(Refused::ToItself("us".into()))),
        (to(Some("mars")), healthy(10), healthy(10), Err(Refused::Unknown("mars".into()))),
        (to(None), healthy(5), healthy(0), Ok(())),
        (to(None), healthy(4), healthy(4), Err(no_target())),
        (to(None), CUT_OFF, healthy(0), Err(no_target())),
        (Wish::Automatic, healthy(0), healthy(0), Ok(())),
        (Wish::Pinned { state: RegionState::Normal }, healthy(0), healthy(0), Ok(())),
    ] {
        assert_eq!(check(wish.clone(), eu, ap), expected, "{wish:?}, {eu:?}, {ap:?}");
    }
}

#[test]
fn the_last_region_but_one_is_not_failed_over_to_one_that_is() {
    let mut world = World::new(&["us", "eu"]);
    world.order("eu", fail_over(None, Strategy::Immediate));
    let mut order = world.order("us", Wish::Automatic);
    order.wish = fail_over(Some("eu"), Strategy::Immediate);
    assert_eq!(world.handler.check(&order), Err(Refused::Closed("eu".into())));
    order.wish = fail_over(None, Strategy::Immediate);
    let refused = world.handler.check(&order);
    assert!(matches!(refused, Err(Refused::NoTarget { .. })), "{refused:?}");
}

#[test]
fn an_unknown_region_takes_no_order() {
    let mut world = World::new(&["us", "eu"]);
    let mut order = world.order("us", Wish::Automatic);
    order.region = "mars".into();
    assert_eq!(world.handler.check(&order), Err(Refused::Unknown("mars".into())));
}

#[test]
fn only_what_may_turn_out_well_may_be_forced() {
    for (refused, expected) in [
        (Refused::Unknown("us".into()), false),
        (Refused::ToItself("us".into()), false),
        (Refused::Closed("us".into()), false),
        (Refused::NoTarget { from: "us".into(), minimum: 0.5 }, true),
        (Refused::Unhealthy { to: "us".into(), healthy: 1, all: 10, minimum: 0.5 }, true),
    ] {
        assert_eq!(refused.may_be_forced(), expected, "{refused}");
    }
}
