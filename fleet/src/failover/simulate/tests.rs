use super::*;
use crate::{
    failover::{
        Strategy,
        testing::{CUT_OFF, World, fail_over, healthy},
    },
    testing::{region, registered, snapshot},
};

/// The only pool of a simulation, with its parts in percent.
fn simulate(world: &World, to: Option<&str>) -> (Option<u32>, Vec<(String, u32)>, Option<u32>) {
    let to = to.map(RegionId::from);
    let simulation = world.handler.simulate(&"us".into(), to.as_ref(), &world.snapshot());
    assert_eq!(simulation.region, "us".into());
    let [pool] = &simulation.pools[..] else { return (None, Vec::new(), None) };
    let percent = |target: &Target| (target.share * 100.0).round() as u32;
    let parts = pool.to.iter().map(|target| (target.region.to_string(), percent(target)));
    (pool.moved, parts.collect(), pool.shortfall)
}

fn world(us: u32, eu: u32, ap: u32) -> World {
    let mut world = World::new(&["us", "eu", "ap"]);
    for (region, running) in [("us", us), ("eu", eu), ("ap", ap)] {
        world.load(region, running);
    }
    world
}

fn parts(parts: &[(&str, u32)]) -> Vec<(String, u32)> {
    parts.iter().map(|(region, percent)| ((*region).to_owned(), *percent)).collect()
}

#[test]
fn what_would_move_goes_by_what_fits() {
    // Of 90 slots each that others may fill.
    for (us, eu, ap, expected, shortfall) in [
        (60, 30, 60, &[("ap", 33), ("eu", 67)][..], 0),
        (100, 40, 40, &[("ap", 50), ("eu", 50)], 0),
        (100, 50, 90, &[("ap", 0), ("eu", 40)], 60),
        (100, 90, 95, &[("ap", 0), ("eu", 0)], 100),
        (0, 30, 60, &[("ap", 33), ("eu", 67)], 0),
    ] {
        let got = simulate(&world(us, eu, ap), None);
        assert_eq!(got, (Some(us), parts(expected), Some(shortfall)), "{us}, {eu}, {ap}");
    }
}

#[test]
fn whom_the_operator_names_is_filled_first() {
    let got = simulate(&world(60, 60, 30), Some("eu"));
    assert_eq!(got, (Some(60), parts(&[("eu", 50), ("ap", 50)]), Some(0)));
}

#[test]
fn weak_regions_are_filled_last_and_closed_ones_never() {
    let mut world = world(100, 50, 30);
    world.see("ap", healthy(7));
    world.look();
    // 40 fit in `eu`, and of the 63 that `ap` has for others, 30 are used.
    let got = simulate(&world, None);
    assert_eq!(got, (Some(100), parts(&[("eu", 40), ("ap", 33)]), Some(27)));

    world.see("eu", CUT_OFF);
    world.look();
    let got = simulate(&world, Some("eu"));
    assert_eq!(got, (Some(100), parts(&[("ap", 33)]), Some(67)));

    world.see("eu", healthy(10));
    world.pass(300_000);
    world.order("eu", fail_over(None, Strategy::Graceful));
    let got = simulate(&world, Some("eu"));
    assert_eq!(got, (Some(100), parts(&[("ap", 33)]), Some(67)), "it is about to go");
}

#[test]
fn a_simulation_changes_nothing() {
    let world = world(60, 30, 60);
    let before = world.handler.status();
    simulate(&world, Some("eu"));
    assert_eq!(world.handler.status(), before);
    assert_eq!(world.handler.history(), []);
}

#[test]
fn it_comes_to_what_the_failover_then_does() {
    let mut world = world(60, 30, 60);
    let (_, expected, _) = simulate(&world, None);
    world.order("us", fail_over(None, Strategy::Immediate));
    let got = world.traffic("us", 0);
    for (region, percent) in expected {
        let share = got.get(&region).copied().unwrap_or(0.0) * 100.0;
        assert!((share - f64::from(percent)).abs() < 1.5, "{region}: {percent} %, {got:?}");
    }
}

#[test]
fn what_was_not_measured_is_not_known() {
    let world = World::new(&["us", "eu", "ap"]);
    let members = ["us-1", "eu-1", "eu-2", "ap-1"].map(|id| registered(id, &id[..2], |_| {}));
    let regions = ["us", "eu", "ap"].map(region);
    let snapshot = snapshot(regions.to_vec(), members.to_vec());
    let simulation = world.handler.simulate(&"us".into(), None, &snapshot);
    let pool = &simulation.pools[0];
    assert_eq!((pool.moved, pool.shortfall), (None, None));
    let told: Vec<_> = pool.to.iter().map(|to| (to.region.as_str(), to.spare)).collect();
    assert_eq!(told, [("ap", None), ("eu", None)]);
    assert!(pool.to[1].share > pool.to[0].share, "by healthy instances: {:?}", pool.to);
}
