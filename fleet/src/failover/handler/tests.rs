#![allow(clippy::unwrap_used)]

mod course;
mod events;
mod orders;
mod records;

use RegionState::{Degraded, FailoverActive, Normal, Recovering};

use super::*;
use crate::{
    failover::{
        RECORD_TTL_MS,
        testing::{BEGIN, CUT_OFF, SECOND_MS, World, fail_over, healthy},
    },
    model::Stamp,
};

fn world() -> World {
    World::new(&["us", "eu", "ap"])
}

fn stamp(epoch: u64, sequence: u64) -> Stamp {
    Stamp { epoch, sequence }
}

/// What the lease holder of `us` says of `eu`.
fn word(state: RegionState, share: f64, stamp: Stamp) -> RegionRecord {
    RegionRecord {
        region: "eu".into(),
        state,
        share,
        healthy: 2,
        all: 10,
        reason: None,
        ordered: false,
        since: BEGIN,
        at: BEGIN,
        writer_region: "us".into(),
        by: "router-1".to_owned(),
        stamp,
    }
}

fn pinned(state: RegionState) -> Wish {
    Wish::Pinned { state }
}

#[test]
fn the_preference_is_by_state_then_home_then_health() {
    let mut world = World::new(&["us", "ap", "eu", "sa", "af"]);
    let preference = |world: &World| {
        let names: Vec<_> = world.handler.preference().iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    assert_eq!(preference(&world), "us af ap eu sa");
    world.see("af", healthy(8));
    world.see("us", healthy(7));
    world.see("ap", healthy(2));
    world.see("sa", healthy(0));
    world.look();
    assert_eq!(preference(&world), "eu af us ap");
    world.order("eu", fail_over(None, Strategy::Graceful));
    assert_eq!(preference(&world), "af us ap", "though it still has most of its own");
    assert_eq!(world.handler.summary().current_state, Degraded);
}

#[test]
fn a_status_tells_all_that_is_known() {
    let mut world = world();
    world.pass(5_000);
    world.see("eu", healthy(2));
    world.look();
    let order = world.order("ap", pinned(Degraded));
    let status = world.handler.status();
    assert_eq!(status.len(), 3);
    let (ap, eu) = (&status[0], &status[1]);
    assert_eq!((eu.state, eu.share, eu.since), (FailoverActive, 0.05, world.at()));
    assert_eq!(eu.evidence, Some(healthy(2)));
    assert_eq!(eu.reason.as_deref(), Some("2 of 10 instances take requests"));
    assert_eq!(eu.order, None);
    assert_eq!(ap.reason.as_deref(), Some("pinned by alice: maintenance"));
    assert_eq!(ap.order.as_ref(), Some(&order));
    world.order("ap", Wish::Automatic);
    assert_eq!(world.handler.status()[0].order, None);
}

/// At night, what one wants to know is what is true by now, and when it is over.
#[test]
fn a_status_tells_the_evidence_of_now_and_the_next_step() {
    let mut world = world();
    let told = |world: &World| {
        let status = world.handler.status().swap_remove(1);
        let next = status.next.map(|next| (next.at.0 - world.at().0, next.share));
        (status.reason.unwrap_or_default(), next)
    };
    let of_ten = |healthy: u32| format!("{healthy} of 10 instances take requests");
    assert_eq!(told(&world), (of_ten(10), None));
    world.see("eu", healthy(2));
    world.pass(5_000);
    assert_eq!(told(&world), (of_ten(2), None));
    world.see("eu", healthy(9));
    world.look();
    assert_eq!(told(&world), (of_ten(9), Some((30_000, 0.30))));
    world.pass(18_000);
    assert_eq!(told(&world), (of_ten(9), Some((12_000, 0.30))));
    world.pass(12_000);
    assert_eq!(told(&world), (of_ten(9), Some((30_000, 0.55))), "{:?}", world.now("eu"));
    // It recovers, and evidence is not as good as that takes.
    world.see("eu", Evidence { reachable: false, ..healthy(9) });
    world.look();
    assert_eq!(told(&world), ("its routers do not answer".to_owned(), None));
    world.see("eu", healthy(9));
    world.look();
    world.order("eu", fail_over(None, Strategy::Immediate));
    assert_eq!(told(&world).1, None, "an operator holds it down");
    world.order("eu", pinned(Recovering));
    assert_eq!(told(&world), ("pinned by alice: maintenance".to_owned(), None));
}

/// It hears of the holder's steps, and knows when they come.
#[test]
fn who_follows_the_holder_tells_the_next_step_as_well() {
    let mut world = world();
    world.see("eu", healthy(2));
    world.look();
    world.handler.record(word(FailoverActive, 0.05, stamp(3, 0)), 0);
    world.see("eu", healthy(10));
    world.pass(SECOND_MS);
    let eu = world.handler.status().swap_remove(1);
    assert_eq!(eu.next.map(|next| next.share), Some(0.30), "{eu:?}");
}

#[test]
fn changes_of_one_moment_are_told_as_one() {
    let mut world = world();
    let mut order = world.order("eu", Wish::Automatic);
    let mut tell = |wishes: [Wish; 2]| {
        for wish in wishes {
            order.stamp.sequence += 1;
            order.wish = wish;
            world.handler.order(order.clone(), world.now_ms);
        }
        world.handler.tick(world.now_ms, world.at())
    };
    let outputs = tell([pinned(Degraded), pinned(FailoverActive)]);
    let [Output::Changed { transition, .. }] = &outputs[..] else { unreachable!("{outputs:?}") };
    assert_eq!((transition.from, transition.share_before), (Normal, 1.0));
    assert_eq!((transition.to, transition.share), (FailoverActive, 0.05));
    assert_eq!(tell([pinned(Normal), pinned(FailoverActive)]), [], "all is as it was");
}

#[test]
fn it_asks_to_be_called_for_the_next_hold_step_and_evaluation() {
    let mut world = world();
    assert_eq!(world.handler.next_ms(0), 60_000, "each minute, at least");
    world.see("eu", healthy(0));
    world.look();
    world.see("eu", healthy(10));
    world.look();
    let mut course = Vec::new();
    for _ in 0..4 {
        world.now_ms = world.handler.next_ms(world.now_ms);
        world.look();
        course.push((world.now_ms, world.now("eu").1));
    }
    assert_eq!(course, [(30_000, 0.25), (60_000, 0.5), (90_000, 0.75), (120_000, 1.0)]);
}
