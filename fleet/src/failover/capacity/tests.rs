use super::*;

fn lane(slots: Option<u32>, running: u32) -> Lane {
    Lane { slots, running, ..Lane::default() }
}

#[test]
fn the_limit_rises_with_priority() {
    for (priority, of_1000) in [
        (i32::MIN, 450),
        (-101, 450),
        (-100, 450),
        (-99, 455),
        (-50, 675),
        (-10, 855),
        (-1, 896),
        (0, 900),
        (1, 910),
        (5, 950),
        (9, 990),
        (10, 1000),
        (11, 1000),
        (100, 1000),
        (i32::MAX, 1000),
    ] {
        assert_eq!(Limit::new(0.9, priority).of(1_000), of_1000, "priority {priority}");
    }
    assert_eq!(Limit::FULL.of(100), 100);
}

#[test]
fn a_limit_in_slots_is_rounded_up_and_never_more_than_there_are() {
    for (share, slots, expected) in [
        (0.9, 0, 0),
        (0.9, 1, 1),
        (0.9, 10, 9),
        (0.9, 11, 10),
        (0.7, 10, 7),
        (0.07, 100, 7),
        (0.1, 1, 1),
        (1.0, u32::MAX, u32::MAX),
    ] {
        assert_eq!(Limit::new(share, 0).of(slots), expected, "{share} of {slots}");
    }
}

#[test]
fn room_ends_at_the_limit_by_the_higher_of_two_counts() {
    let limit = Limit::new(0.9, 0);
    for (running, in_flight, spare) in
        [(0, 0, 9), (8, 0, 1), (0, 8, 1), (9, 0, 0), (0, 9, 0), (3, 7, 2), (50, 0, 0)]
    {
        let lane = lane(Some(10), running);
        assert_eq!(lane.spare(in_flight, limit), Some(spare), "{running}, {in_flight}");
        assert_eq!(lane.has_room(in_flight, limit), spare > 0, "{running}, {in_flight}");
    }
}

#[test]
fn unknown_slots_are_room_and_none_at_all_are_not() {
    let limit = Limit::new(0.9, 0);
    assert_eq!(lane(None, 5_000).spare(9_000, limit), None);
    assert!(lane(None, 5_000).has_room(9_000, limit));
    assert!(!lane(Some(0), 0).has_room(0, limit));
}

#[test]
fn it_is_normal_unless_some_region_gives_traffic_away() {
    let steering =
        |all: Vec<Lane>| Steering::new([(PoolId::from("chat"), all)].into_iter().collect(), 0.9);
    assert!(Steering::default().is_normal());
    assert!(steering(vec![lane(Some(10), 10), lane(None, 0)]).is_normal());
    assert!(!steering(vec![Lane { share: 0.7, ..Lane::default() }]).is_normal());
    assert!(!steering(vec![Lane { closed: true, ..Lane::default() }]).is_normal());
}

#[test]
fn home_admits_what_was_moved_here_while_it_has_room() {
    let pool = PoolId::from("chat");
    let steering = |home: Lane| {
        let lanes = vec![lane(Some(10), 10), Lane { home: true, ..home }];
        Steering::new([(pool.clone(), lanes)].into_iter().collect(), 0.9)
    };
    for (home, in_flight, priority, admits) in [
        (lane(Some(10), 0), 8, 0, true),
        (lane(Some(10), 0), 9, 0, false),
        (lane(Some(10), 9), 0, 0, false),
        (lane(Some(10), 0), 4, -100, true),
        (lane(Some(10), 0), 5, -100, false),
        (lane(Some(10), 5), 0, -50, true),
        (lane(Some(10), 7), 0, -50, false),
        (lane(Some(10), 9), 9, 10, true),
        (lane(Some(10), 10), 9, 10, false),
        (lane(None, 0), 5_000, 0, true),
        (Lane { closed: true, ..lane(Some(10), 0) }, 0, 10, false),
    ] {
        let got = steering(home).admits(&pool, in_flight, priority);
        assert_eq!(got, admits, "{home:?}, {in_flight}, {priority}");
    }
    assert!(steering(lane(Some(0), 0)).admits(&"other".into(), 9, 0), "nothing is known of it");
}
