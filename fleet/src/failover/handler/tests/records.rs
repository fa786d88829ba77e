//! What the lease holder says.

use super::*;

#[test]
fn the_routers_of_a_region_take_the_worse_of_their_own_and_the_holders_word() {
    let mut world = world();
    assert!(world.handler.record(word(Degraded, 0.7, stamp(3, 0)), 0));
    assert_eq!(world.now("eu"), (Degraded, 0.7));
    world.see("eu", healthy(2));
    world.look();
    assert_eq!(world.now("eu"), (FailoverActive, 0.05), "its own is worse");
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 1)), 0);
    assert_eq!(world.now("eu"), (FailoverActive, 0.0), "the holder's is");
}

/// Only the holder sees what is wrong. The other one hears of it every other second.
#[test]
fn a_follower_keeps_step_with_the_holder() {
    let (mut holder, mut follower) = (world(), world());
    holder.handler.lead(Some(3), 0);
    let mut states = vec![Normal];
    for sequence in 0..150 {
        match sequence {
            5 => holder.see("eu", healthy(1)),
            20 => holder.see("eu", healthy(10)),
            _ => {}
        }
        holder.pass(2 * SECOND_MS);
        follower.pass(2 * SECOND_MS);
        let said = holder.handler.status();
        let said = said.iter().find(|status| status.region == "eu".into()).unwrap();
        let record = RegionRecord::new(said, (&"us".into(), "router-1"), stamp(3, sequence), BEGIN);
        follower.handler.record(record, follower.now_ms);
        follower.look();
        assert_eq!(follower.now("eu"), holder.now("eu"), "after {} ms", holder.now_ms);
        if states.last() != Some(&follower.now("eu").0) {
            states.push(follower.now("eu").0);
        }
    }
    assert_eq!(states, [Normal, FailoverActive, Recovering, Normal]);
}

#[test]
fn whoever_lost_the_lease_is_not_held_to_its_own_words() {
    let mut world = world();
    world.handler.lead(Some(3), 0);
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 1)), 0);
    world.pass(SECOND_MS);
    world.handler.lead(None, world.now_ms);
    world.pass(SECOND_MS);
    assert_eq!(world.now("eu"), (Normal, 1.0));
    world.handler.record(word(FailoverActive, 0.0, stamp(4, 0)), world.now_ms);
    world.look();
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));
}

#[test]
fn a_word_that_holds_a_region_to_nothing_is_not_quoted() {
    let mut world = world();
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 0)), 0);
    world.pass(28 * SECOND_MS);
    world.handler.record(word(Normal, 1.0, stamp(3, 1)), world.now_ms);
    world.pass(4 * SECOND_MS);
    let statuses = world.handler.status();
    let eu = statuses.iter().find(|status| status.region == "eu".into()).unwrap();
    assert_eq!(eu.state, Recovering);
    assert_eq!(eu.reason.as_deref(), Some("10 of 10 instances take requests"));
}

#[test]
fn while_nobody_looks_a_word_runs_out_as_little_as_a_hold() {
    let mut world = world();
    world.handler.record(word(Normal, 1.0, stamp(3, 0)), 0);
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 1)), 0);
    world.pass(10 * SECOND_MS);
    world.handler.postpone(60 * SECOND_MS);
    world.now_ms += 60 * SECOND_MS;
    world.pass(4 * SECOND_MS);
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));
    world.pass(SECOND_MS);
    assert_eq!(world.now("eu"), (Recovering, 0.25));
    // One that has run out stays so.
    world.handler.postpone(60 * SECOND_MS);
    world.now_ms += 60 * SECOND_MS;
    world.look();
    assert_eq!(world.now("eu"), (Recovering, 0.25));
}

#[test]
fn an_operators_pin_counts_more_than_the_holders_word() {
    let mut world = world();
    world.order("eu", pinned(Normal));
    world.handler.record(word(Normal, 1.0, stamp(3, 0)), 0);
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 1)), 0);
    assert_eq!(world.now("eu"), (Normal, 1.0));
    world.order("eu", Wish::Automatic);
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));
}

#[test]
fn of_an_operators_failover_and_the_holders_word_the_worse_counts() {
    let mut world = world();
    world.handler.record(word(Normal, 1.0, stamp(3, 0)), 0);
    world.order("eu", fail_over(None, Strategy::Graceful));
    world.pass(1_250);
    world.handler.record(word(Degraded, 0.7, stamp(3, 1)), world.now_ms);
    assert_eq!(world.now("eu"), (FailoverActive, 0.5), "the operator's");
    world.handler.record(word(Degraded, 0.3, stamp(3, 2)), world.now_ms);
    assert_eq!(world.now("eu"), (Degraded, 0.3), "the holder's");
    world.pass(1_250);
    assert_eq!(world.now("eu"), (FailoverActive, 0.0), "the operator's again");
}

#[test]
fn a_stale_word_is_refused() {
    let mut world = world();
    assert!(world.handler.record(word(Normal, 1.0, stamp(4, 2)), 0));
    for stale in [stamp(4, 2), stamp(4, 1), stamp(3, 900)] {
        assert!(!world.handler.record(word(FailoverActive, 0.0, stale), 0), "{stale}");
        assert_eq!(world.now("eu"), (Normal, 1.0), "{stale}");
    }
}

#[test]
fn a_holder_that_was_paused_for_a_minute_is_heard_no_more() {
    let mut world = world();
    world.handler.record(word(FailoverActive, 0.05, stamp(3, 0)), 0);
    // While it is paused, another takes the lease over and finds the region healthy.
    world.handler.record(word(Normal, 1.0, stamp(4, 0)), 20 * SECOND_MS);
    world.now_ms = 60 * SECOND_MS;
    assert!(!world.handler.record(word(FailoverActive, 0.05, stamp(3, 1)), world.now_ms));
    world.pass(120 * SECOND_MS);
    assert_eq!(world.now("eu"), (Normal, 1.0));
}

#[test]
fn a_paused_holder_follows_the_one_that_came_after_it() {
    let mut world = world();
    world.handler.lead(Some(3), 0);
    assert!(world.handler.record(word(Degraded, 0.7, stamp(3, 9)), 0));
    assert_eq!(world.now("eu"), (Normal, 1.0), "its own epoch's word is its own");
    assert!(world.handler.record(word(Degraded, 0.7, stamp(4, 0)), 0));
    assert_eq!(world.now("eu"), (Degraded, 0.7), "though it still believes in its lease");
}

#[test]
fn a_word_that_stands_still_ends_and_traffic_returns_by_steps() {
    let mut world = world();
    world.handler.record(word(Normal, 1.0, stamp(3, 0)), 0);
    world.handler.record(word(FailoverActive, 0.05, stamp(3, 1)), 0);
    // Read again and again, and never changed.
    while world.now_ms < RECORD_TTL_MS - SECOND_MS {
        world.pass(SECOND_MS);
        let record = word(FailoverActive, 0.05, stamp(3, 1));
        assert!(!world.handler.record(record, world.now_ms));
        assert_eq!(world.now("eu"), (FailoverActive, 0.05), "{} ms", world.now_ms);
    }
    world.pass(SECOND_MS);
    assert_eq!(world.now("eu"), (Recovering, 0.30));
    world.pass(90 * SECOND_MS);
    assert_eq!(world.now("eu"), (Normal, 1.0));
}

#[test]
fn a_holder_that_dies_costs_nothing_where_the_evidence_is_the_same() {
    let mut world = world();
    world.see("eu", healthy(0));
    world.look();
    world.handler.record(word(FailoverActive, 0.0, stamp(3, 0)), 0);
    world.pass(600 * SECOND_MS);
    assert_eq!(world.now("eu"), (FailoverActive, 0.0));
    assert_eq!(world.events().len(), 1);
}

#[test]
fn a_restart_takes_up_where_the_region_was() {
    for (state, share, next) in
        [(FailoverActive, 0.05, 0.30), (Recovering, 0.55, 0.80), (Degraded, 0.7, 0.95)]
    {
        let mut world = world();
        world.handler.record(word(state, share, stamp(3, 8)), 0);
        world.look();
        assert_eq!(world.now("eu"), (state, share));
        // It holds the lease now, so that the word before does not bind it.
        world.handler.lead(Some(4), 0);
        world.look();
        world.pass(29 * SECOND_MS);
        assert_eq!(world.now("eu"), (state, share), "not from scratch");
        world.pass(SECOND_MS);
        assert_eq!(world.now("eu"), (Recovering, next));
    }
}

/// The order is over, its record is not yet: else a region that is degraded later fails over by it.
#[test]
fn a_restart_takes_no_order_for_evidence() {
    let mut world = world();
    let ordered = RegionRecord { ordered: true, ..word(FailoverActive, 0.6, stamp(3, 8)) };
    world.handler.record(ordered, 0);
    world.look();
    assert_eq!(world.now("eu"), (FailoverActive, 0.6));
    world.handler.record(word(Recovering, 0.25, stamp(4, 0)), 0);
    world.see("eu", healthy(7));
    world.look();
    assert_eq!(world.now("eu"), (Recovering, 0.25));
}

#[test]
fn other_regions_holders_judge_for_themselves() {
    let mut world = world();
    let other =
        RegionRecord { writer_region: "ap".into(), ..word(FailoverActive, 0.0, stamp(9, 9)) };
    assert!(!world.handler.record(other, 0));
    assert_eq!(world.now("eu"), (Normal, 1.0));
}
