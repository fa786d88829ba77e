#![allow(clippy::panic)]

use proptest::prelude::*;

use super::*;

const LIMIT: u32 = 90;

fn normal(running: u32) -> Lane {
    Lane { slots: Some(100), running, healthy: 10, ..Lane::default() }
}

fn keeping(share: f32) -> Lane {
    Lane { share, ..normal(0) }
}

fn all_of(lanes: &[Lane]) -> Attempts {
    (0..lanes.len() as u32).collect()
}

/// A request whose first choice is the first lane, which is home.
fn steered(lanes: &[Lane], seed: u64) -> Steered {
    let mut lanes = lanes.to_vec();
    lanes[0].home = true;
    steer(&all_of(&lanes), &lanes, |_| 0, Limit::new(0.9, 0), seed)
}

/// How often, of many requests whose first choice is the first lane, each lane is the first to be tried.
fn firsts(lanes: &[Lane], requests: u64) -> Vec<f64> {
    let mut counts = vec![0u32; lanes.len()];
    for seed in 0..requests {
        if let Steered::Stay(order) | Steered::Moved(order) = steered(lanes, seed) {
            counts[order.as_slice()[0] as usize] += 1;
        }
    }
    counts.into_iter().map(|count| f64::from(count) / requests as f64).collect()
}

fn is_near(got: f64, expected: f64) -> bool {
    (got - expected).abs() < 0.01
}

#[test]
fn a_region_keeps_its_share_and_the_others_take_theirs_by_spare_capacity() {
    // 80 and 40 slots below the limit.
    let others = [normal(10), normal(50)];
    for share in [1.0, 0.7, 0.55, 0.25, 0.05, 0.0] {
        let lanes = [keeping(share), others[0], others[1]];
        let got = firsts(&lanes, 20_000);
        let (kept, moved) = (f64::from(share), 1.0 - f64::from(share));
        let expected = [kept, moved * 2.0 / 3.0, moved / 3.0];
        let is_right = got.iter().zip(expected).all(|(got, expected)| is_near(*got, expected));
        assert!(is_right, "{got:?}, not {expected:?}");
    }
}

#[test]
fn where_some_slots_are_unknown_healthy_instances_are_the_measure() {
    let unknown = Lane { slots: None, healthy: 30, ..normal(0) };
    let got = firsts(&[keeping(0.0), unknown, normal(20)], 20_000);
    assert!(is_near(got[1], 0.75) && is_near(got[2], 0.25), "{got:?}");
}

#[test]
fn the_order_of_those_who_stay_puts_weak_regions_last() {
    let lanes = [normal(0), keeping(0.7), normal(0), keeping(0.05), normal(0)];
    let Steered::Stay(order) = steered(&lanes, 1) else { panic!("it must stay") };
    assert_eq!(order.as_slice(), [0, 2, 4, 1, 3]);
}

#[test]
fn the_order_of_those_who_go_ends_with_weak_regions_and_their_own() {
    let lanes = [keeping(0.05), keeping(0.7), normal(0), normal(90)];
    for seed in 0..1_000 {
        match steered(&lanes, seed) {
            Steered::Moved(order) => assert_eq!(order.as_slice(), [2, 1, 0]),
            Steered::Stay(order) => assert_eq!(order.as_slice(), [0, 2, 3, 1]),
            Steered::Shed => panic!("there is room"),
        }
    }
}

#[test]
fn whom_an_operator_named_is_first_while_it_has_room() {
    let named = |lane: Lane| Lane { to: Some(2), ..lane };
    let ordered = named(Lane { closed: true, ..keeping(0.0) });
    for seed in 0..1_000 {
        let order = match steered(&[ordered, normal(0), normal(89)], seed) {
            Steered::Moved(order) => order,
            other => panic!("{other:?}"),
        };
        assert_eq!(order.as_slice(), [2, 1], "it has one slot left");
        let order = match steered(&[ordered, normal(0), normal(90)], seed) {
            Steered::Moved(order) => order,
            other => panic!("{other:?}"),
        };
        assert_eq!(order.as_slice(), [1], "it has none");
    }
    // Nor is it where the request may not go.
    let lanes = [ordered, normal(0), normal(0)];
    let allowed: Attempts = [0, 1].into_iter().collect();
    let got = steer(&allowed, &lanes, |_| 0, Limit::new(0.9, 0), 1);
    assert_eq!(got, Steered::Moved([1].into_iter().collect()));
}

#[test]
fn a_failover_never_fills_a_region_beyond_the_limit() {
    let lanes = [keeping(0.0), normal(20), normal(60)];
    let mut in_flight = [0, 20, 60];
    let mut shed = 0;
    for seed in 0..500 {
        let count = |region: u32| in_flight[region as usize];
        match steer(&all_of(&lanes), &lanes, count, Limit::new(0.9, 0), seed) {
            Steered::Moved(order) => in_flight[order.as_slice()[0] as usize] += 1,
            Steered::Shed => shed += 1,
            Steered::Stay(_) => panic!("its first choice keeps nothing"),
        }
    }
    // It keeps nothing for itself, and the others took what fits.
    assert_eq!(in_flight, [0, LIMIT, LIMIT]);
    assert_eq!(shed, 500 - 70 - 30);
}

#[test]
fn what_is_shed_is_shed_by_priority() {
    // Of 100 slots, so many are taken, and from this priority on there is room.
    for (running, from) in [(45, -99), (60, -66), (67, -51), (89, -2), (90, 1), (94, 5), (99, 10)] {
        let lanes = [keeping(0.0), normal(running), normal(running)];
        for priority in -101..=11 {
            let got = steer(&all_of(&lanes), &lanes, |_| 0, Limit::new(0.9, priority), 3);
            let is_moved = matches!(got, Steered::Moved(_));
            assert_eq!(is_moved, priority >= from, "{running} taken, priority {priority}: {got:?}");
        }
    }
    let full = [keeping(0.0), normal(100), normal(100)];
    let got = steer(&all_of(&full), &full, |_| 0, Limit::new(0.9, 10), 3);
    assert_eq!(got, Steered::Shed, "beyond the last slot nobody goes");
}

#[test]
fn a_region_is_never_refused_its_own_share_for_room() {
    let full = Lane { running: 5_000, ..keeping(0.7) };
    let stays = (0..10_000).filter(|seed| matches!(steered(&[full], *seed), Steered::Stay(_)));
    assert!(is_near(stays.count() as f64 / 10_000.0, 0.7));
}

#[test]
fn what_can_go_nowhere_else_fills_its_own_region_to_the_last_slot() {
    for (running, expected) in [(99, true), (100, false)] {
        let weak = Lane { running, ..keeping(0.05) };
        let moved = (0..1_000).map(|seed| steered(&[weak, normal(90)], seed));
        let mut moved = moved.filter(|steered| !matches!(steered, Steered::Stay(_)));
        let to_itself = Steered::Moved([0].into_iter().collect());
        let expected = if expected { to_itself } else { Steered::Shed };
        assert!(moved.all(|steered| steered == expected), "{running} running");
    }
}

#[test]
fn a_first_choice_that_is_not_home_is_left_when_it_is_full() {
    let home = Lane { home: true, ..keeping(0.05) };
    let steered = |lanes: &[Lane], order: &[u32]| {
        let order: Attempts = order.iter().copied().collect();
        match steer(&order, lanes, |_| 0, Limit::new(0.9, 0), 7) {
            Steered::Moved(order) => Some(order.as_slice().to_vec()),
            Steered::Stay(_) | Steered::Shed => None,
        }
    };
    // All of home's instances are gone, say, so that it is no choice at all.
    assert_eq!(steered(&[home, normal(89), normal(0)], &[1, 2]), Some(vec![1, 2]));
    assert_eq!(steered(&[home, normal(90), normal(0)], &[1, 2]), Some(vec![2]));
    assert_eq!(steered(&[home, normal(90), normal(90)], &[1, 2]), None);
    // Or it is the second, and has room for its own to the last slot.
    let at = |running| Lane { running, ..home };
    assert_eq!(steered(&[at(99), normal(90), normal(90)], &[1, 0, 2]), Some(vec![0]));
    assert_eq!(steered(&[at(100), normal(90), normal(90)], &[1, 0, 2]), None);
}

#[test]
fn nothing_goes_to_a_closed_region_whatever_is_left() {
    let closed = Lane { closed: true, ..keeping(0.0) };
    assert_eq!(steered(&[closed], 1), Steered::Shed);
    assert_eq!(steered(&[closed, normal(90)], 1), Steered::Shed);
    assert_eq!(steered(&[closed, closed], 1), Steered::Shed);
    assert_eq!(steered(&[normal(0), closed], 1), Steered::Stay([0].into_iter().collect()));
    // While an operator's failover is under way, it keeps what it has left.
    let leaving = Lane { closed: true, ..keeping(0.5) };
    let got = firsts(&[leaving, normal(0)], 20_000);
    assert!(is_near(got[0], 0.5) && is_near(got[1], 0.5), "{got:?}");
}

#[test]
fn where_no_region_is_said_to_be_alive_what_is_said_is_set_aside() {
    let dead = Lane { healthy: 0, slots: None, ..keeping(0.0) };
    let closed = Lane { closed: true, ..dead };
    let order = |regions: &[u32]| regions.iter().copied().collect::<Attempts>();
    assert_eq!(steered(&[dead, dead], 1), Steered::Stay(order(&[0, 1])));
    assert_eq!(steered(&[closed, dead], 1), Steered::Stay(order(&[1])));
    // One that is alive and full is no reason to panic.
    assert_eq!(steered(&[dead, normal(90)], 1), Steered::Shed);
}

#[test]
fn a_region_without_a_lane_is_an_ordinary_one() {
    let order: Attempts = [7, 3].into_iter().collect();
    assert_eq!(steer(&order, &[], |_| 0, Limit::FULL, 9), Steered::Moved(order));
    assert_eq!(steer(&Attempts::default(), &[], |_| 0, Limit::FULL, 9), Steered::Shed);
}

fn some_lane() -> impl Strategy<Value = Lane> {
    let share = prop::sample::select(vec![0.0, 0.05, 0.3, 0.7, 1.0]);
    let slots = prop::option::of(prop::sample::select(vec![0, 1, 10, 100]));
    let closed = prop::bool::weighted(0.2);
    (share, slots, 0..120u32, 0..20u32, closed, prop::option::of(0..9u32)).prop_map(
        |(share, slots, running, healthy, closed, to)| Lane {
            share,
            slots,
            running,
            healthy,
            home: false,
            closed,
            to,
        },
    )
}

/// Lanes, of which the first is home or none is, and a request's order among them.
fn some_question() -> impl Strategy<Value = (Vec<Lane>, Vec<u32>)> {
    let lanes = (prop::collection::vec(some_lane(), 1..9), any::<bool>());
    lanes.prop_flat_map(|(mut lanes, has_home)| {
        lanes[0].home = has_home;
        let regions: Vec<u32> = (0..lanes.len() as u32).collect();
        let order = prop::sample::subsequence(regions, 1..=lanes.len()).prop_shuffle();
        (Just(lanes), order)
    })
}

proptest! {
    #[test]
    fn no_region_is_lost_doubled_or_made_up(
        (lanes, order) in some_question(),
        in_flight in prop::collection::vec(0..120u32, 9),
        priority in -120..20i32,
        seed in any::<u64>(),
    ) {
        let limit = Limit::new(0.9, priority);
        let attempts: Attempts = order.iter().copied().collect();
        let count = |region: u32| in_flight[region as usize];
        let lane = |region: &u32| lanes[*region as usize];
        let first = order[0];
        let is_able = |region: &u32| {
            let limit = if lane(region).home { Limit::FULL } else { limit };
            let has_room = lane(region).has_room(count(*region), limit);
            has_room && lane(region).share > 0.0 && !lane(region).closed
        };
        let is_open = |region: &u32| !lane(region).closed;
        let of = |wanted: &dyn Fn(&u32) -> bool| {
            order.iter().copied().filter(wanted).collect::<Vec<_>>()
        };
        let sorted = |attempts: Attempts| {
            let mut regions = attempts.as_slice().to_vec();
            regions.sort_unstable_by_key(|region| order.iter().position(|at| at == region));
            regions
        };
        // Kept, it goes to all that are open; moved, to all that are able.
        let kept = of(&|region| *region == first || is_open(region));
        match steer(&attempts, &lanes, count, limit, seed) {
            Steered::Stay(got) if got.as_slice()[0] == first && lane(&first).share > 0.0 => {
                prop_assert!(lane(&first).home);
                prop_assert_eq!(sorted(got), kept);
            }
            Steered::Stay(got) => {
                prop_assert!(of(&is_open).iter().all(|region| lane(region).share == 0.0));
                prop_assert_eq!(got.as_slice(), of(&is_open));
            }
            Steered::Moved(got) if got.as_slice()[0] == first && !lane(&first).home => {
                let limited = lane(&first).has_room(count(first), limit);
                prop_assert!(limited, "it would be filled beyond the limit");
                prop_assert!(sorted(got) == kept || sorted(got) == of(&is_able));
            }
            Steered::Moved(got) => prop_assert_eq!(sorted(got), of(&is_able)),
            Steered::Shed => prop_assert_eq!(of(&is_able), Vec::<u32>::new()),
        }
    }
}
