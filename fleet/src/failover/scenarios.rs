//! What the fleet's operators ask of a failover, scenario by scenario, with its times.

use super::{
    RegionState::{Degraded, FailoverActive, Normal, Recovering},
    Strategy,
    testing::{CUT_OFF, SECOND_MS, World, fail_over, healthy},
};

const REGIONS: [&str; 3] = ["us-east", "eu-west", "apac-sg"];

fn is_near(got: Option<&f64>, expected: f64) -> bool {
    (got.copied().unwrap_or(0.0) - expected).abs() < 0.015
}

/// Whether the traffic of a region goes where it should, as shares of all.
fn assert_traffic(world: &World, from: &str, expected: &[(&str, f64)]) {
    let got = world.traffic(from, 0);
    let told: f64 = expected.iter().map(|(_, share)| share).sum();
    assert!((told - 1.0).abs() < 1e-9, "the shares of all come to {told}");
    for (to, share) in expected {
        assert!(is_near(got.get(*to), *share), "{got:?} of {from}, not {expected:?}");
    }
}

#[test]
fn single_instance_failure_moves_no_region() {
    let mut world = World::new(&REGIONS);
    world.see("us-east", healthy(9));
    world.pass(600 * SECOND_MS);
    assert_eq!(world.now("us-east"), (Normal, 1.0));
    assert_traffic(&world, "us-east", &[("us-east", 1.0)]);
    assert_eq!(world.events(), []);
}

/// Several instances fail, health drops below 30 %, traffic is redirected to healthy regions, and recovery
/// begins above 80 %.
#[test]
fn regional_failure() {
    let mut world = World::new(&REGIONS);
    world.pass(10 * SECOND_MS);

    world.see("us-east", healthy(7));
    world.look();
    assert_eq!(world.now("us-east"), (Degraded, 0.70), "at once");
    assert_traffic(&world, "us-east", &[("us-east", 0.70), ("eu-west", 0.15), ("apac-sg", 0.15)]);

    world.pass(5 * SECOND_MS);
    world.see("us-east", healthy(3));
    world.look();
    assert_eq!(world.now("us-east"), (Degraded, 0.05), "30 % is not below 30 %");
    world.see("us-east", healthy(2));
    world.look();
    assert_eq!(world.now("us-east"), (FailoverActive, 0.05), "at once");
    assert_traffic(&world, "us-east", &[("us-east", 0.05), ("eu-west", 0.475), ("apac-sg", 0.475)]);
    assert_traffic(&world, "eu-west", &[("eu-west", 1.0)]);

    // It gets better, and not good enough.
    world.see("us-east", healthy(7));
    world.pass(600 * SECOND_MS);
    assert_eq!(world.now("us-east"), (FailoverActive, 0.05));

    world.see("us-east", healthy(8));
    world.look();
    world.pass(29 * SECOND_MS);
    assert_eq!(world.now("us-east"), (FailoverActive, 0.05), "T+29 s");
    world.pass(SECOND_MS);
    assert_eq!(world.now("us-east"), (Recovering, 0.30), "T+30 s");
    assert_traffic(&world, "us-east", &[("us-east", 0.30), ("eu-west", 0.35), ("apac-sg", 0.35)]);
    for (share, at) in [(0.55, "T+60 s"), (0.80, "T+90 s")] {
        world.pass(30 * SECOND_MS);
        assert_eq!(world.now("us-east"), (Recovering, share), "{at}");
    }
    world.pass(30 * SECOND_MS);
    assert_eq!(world.now("us-east"), (Normal, 1.0), "T+120 s");
    assert_traffic(&world, "us-east", &[("us-east", 1.0)]);

    let events = world.events();
    assert_eq!(events.len(), 1, "one failover: {events:?}");
    assert_eq!(events[0].from, "us-east".into());
    assert_eq!(events[0].to, ["apac-sg".into(), "eu-west".into()]);
    assert_eq!(events[0].duration_ms, Some(0), "as soon as the evidence was there");
    assert_eq!(events[0].ended_at, Some(world.at()));
}

/// A region fails: its traffic goes to the next one at once, where 30 s are allowed; it is back in the pool
/// within 60 s of its second good check.
#[test]
fn single_region_outage() {
    for outage in [healthy(0), CUT_OFF] {
        let mut world = World::new(&REGIONS);
        world.see("us-east", outage);
        world.look();
        assert_eq!(world.now("us-east"), (FailoverActive, 0.0));
        let next = world.handler.preference();
        assert_eq!(next, ["apac-sg".into(), "eu-west".into()]);
        let got = world.traffic("us-east", 0);
        assert!(!got.contains_key("us-east") && !got.contains_key("503"), "{got:?}");

        world.pass(300 * SECOND_MS);
        world.see("us-east", healthy(10));
        world.look();
        world.pass(30 * SECOND_MS);
        assert_eq!(world.now("us-east"), (Recovering, 0.25), "T+30 s");
        let back = [("us-east", 0.25), ("eu-west", 0.375), ("apac-sg", 0.375)];
        assert_traffic(&world, "us-east", &back);
    }
}

/// Two of three fail, and the third takes all, up to what it can carry. When that is used up, too, requests
/// are refused at once.
#[test]
fn multi_region_outage() {
    let mut world = World::new(&REGIONS);
    world.see("us-east", CUT_OFF);
    world.see("eu-west", healthy(0));
    world.look();
    assert_traffic(&world, "us-east", &[("apac-sg", 1.0)]);
    assert_traffic(&world, "eu-west", &[("apac-sg", 1.0)]);

    // 90 of its 100 slots are for others' ordinary requests.
    world.load("apac-sg", 89);
    assert_traffic(&world, "us-east", &[("apac-sg", 1.0)]);
    world.load("apac-sg", 90);
    assert_traffic(&world, "us-east", &[("503", 1.0)]);
    assert!(is_near(world.traffic("us-east", 10).get("apac-sg"), 1.0), "the urgent ones last");
    world.load("apac-sg", 100);
    assert!(is_near(world.traffic("us-east", 10).get("503"), 1.0));
    assert_traffic(&world, "apac-sg", &[("apac-sg", 1.0)]);

    world.see("apac-sg", CUT_OFF);
    world.look();
    for from in REGIONS {
        assert_traffic(&world, from, &[("503", 1.0)]);
    }
    assert_eq!(world.handler.preference(), []);
}

/// A part fails, and a part of the traffic goes, at once.
#[test]
fn partial_degradation() {
    let mut world = World::new(&REGIONS);
    for (of_10, kept) in [(7, 0.70), (5, 0.70), (4, 0.375)] {
        world.see("us-east", healthy(of_10));
        world.look();
        assert_eq!(world.now("us-east"), (Degraded, kept), "{of_10} of 10");
        let moved = (1.0 - kept) / 2.0;
        let expected = [("us-east", kept), ("eu-west", moved), ("apac-sg", moved)];
        assert_traffic(&world, "us-east", &expected);
    }
    world.see("us-east", healthy(10));
    world.look();
    world.pass(30 * SECOND_MS);
    assert_eq!(world.now("us-east"), (Recovering, 0.625));
    world.pass(60 * SECOND_MS);
    assert_eq!(world.now("us-east"), (Normal, 1.0));
    assert_eq!(world.events(), [], "a degradation is no failover");
}

/// Traffic goes by what the others can carry, not by how many they are.
#[test]
fn a_failover_does_not_knock_over_the_next_region() {
    let mut world = World::new(&REGIONS);
    world.load("eu-west", 70);
    world.load("apac-sg", 10);
    world.see("us-east", healthy(1));
    world.look();
    let expected = [("us-east", 0.05), ("eu-west", 0.95 * 0.2), ("apac-sg", 0.95 * 0.8)];
    assert_traffic(&world, "us-east", &expected);
    // With its last instance gone it is no choice any more; the next one is filled up to the limit.
    world.see("us-east", healthy(0));
    world.look();
    world.load("eu-west", 89);
    assert_traffic(&world, "us-east", &[("eu-west", 1.0)]);
    world.load("eu-west", 90);
    assert_traffic(&world, "us-east", &[("apac-sg", 1.0)]);
    // A weak region takes others' requests when no strong one can.
    world.see("us-east", healthy(1));
    world.see("eu-west", healthy(7));
    world.load("eu-west", 10);
    world.look();
    assert_traffic(&world, "us-east", &[("us-east", 0.0), ("apac-sg", 1.0)]);
    world.load("apac-sg", 90);
    assert_traffic(&world, "us-east", &[("us-east", 0.0), ("eu-west", 1.0)]);
}

/// By hand and in time: graceful in 2 to 3 s, immediate at once, back by steps.
#[test]
fn manual_failover() {
    let mut world = World::new(&REGIONS);
    world.order("us-east", fail_over(Some("apac-sg"), Strategy::Graceful));
    assert_eq!(world.now("us-east"), (FailoverActive, 1.0), "it has only begun");
    world.pass(1_250);
    assert_traffic(&world, "us-east", &[("us-east", 0.5), ("apac-sg", 0.5)]);
    world.pass(1_250);
    assert_traffic(&world, "us-east", &[("apac-sg", 1.0)]);
    assert_eq!(world.events()[0].duration_ms, Some(2_500));

    world.order("us-east", super::Wish::Automatic);
    assert_eq!(world.now("us-east"), (Recovering, 0.25), "its evidence was good all along");
    world.pass(90 * SECOND_MS);
    assert_eq!(world.now("us-east"), (Normal, 1.0));

    world.order("us-east", fail_over(None, Strategy::Immediate));
    assert_eq!(world.now("us-east"), (FailoverActive, 0.0));
    assert_eq!(world.events()[1].duration_ms, Some(0));
    assert_traffic(&world, "us-east", &[("eu-west", 0.5), ("apac-sg", 0.5)]);
}
