//! What live requests say of the candidates.

use super::*;

/// Of so many decisions, how many each candidate of [`four`] is first in.
fn firsts(live: impl Fn(u32) -> Live + Copy, decisions: u64) -> [u32; 4] {
    let (view, request, mut scratch) = (four(), Request::default(), Scratch::default());
    let mut firsts = [0; 4];
    for seed in 0..decisions {
        let question = Question { seed, ..question(&view, &request, &[]) };
        let order = decide(&mut scratch, &question, live, |_, _, _| None::<[f32; 0]>).unwrap();
        firsts[order.as_slice()[0] as usize] += 1;
    }
    firsts
}

#[test]
fn one_that_came_back_is_part_of_its_share_of_the_decisions() {
    for (share, least, most) in
        [(1.0, 2_300, 2_700), (0.5, 1_100, 1_400), (0.1, 200, 300), (0.0, 0, 0)]
    {
        let live = |i| Live { share: if i == 2 { share } else { 1.0 }, ..Live::default() };
        let firsts = firsts(live, 10_000);
        assert!((least..=most).contains(&firsts[2]), "{share}: {firsts:?}");
        // The others take the rest alike.
        let rest = [firsts[0], firsts[1], firsts[3]];
        assert!(rest.iter().all(|n| n.abs_diff((10_000 - firsts[2]) / 3) < 250), "{firsts:?}");
    }
}

#[test]
fn where_all_came_back_a_moment_ago_they_take_everything() {
    let live = |_| Live { share: 0.001, ..Live::default() };
    let firsts = firsts(live, 10_000);
    assert!(firsts.iter().all(|n| (2_300..2_700).contains(n)), "{firsts:?}");
}

#[test]
fn the_loads_of_those_that_wait_are_left_out_with_them() {
    let (view, request) = (four(), Request::default());
    let question = question(&view, &request, &[Weight { weight: 1.0, required: true }]);
    let live = |i: u32| Live {
        in_flight: i * 10,
        in_flight_tokens: u64::from(i) * 1_000,
        share: if i.is_multiple_of(2) { 0.0 } else { 1.0 },
        ..Live::default()
    };
    let score = |_: usize, picks: &[u32], loads: Loads<'_>| {
        assert_eq!((picks, loads.in_flight), (&[1, 3][..], &[10, 30][..]));
        assert_eq!(loads.in_flight_tokens, [1_000, 3_000]);
        Some([1.0, 2.0])
    };
    let order = decide(&mut Scratch::default(), &question, live, score).unwrap();
    assert_eq!(order.as_slice(), [3, 1]);
}

/// Where nobody is eligible, evidence is set aside, and nothing else.
#[test]
fn in_a_panic_the_masked_and_the_last_resorts_are_taken_but_nobody_that_may_not_be() {
    let one = |ready, last_resort| Candidate { ready, last_resort, ..candidate("i") };
    let gdpr = Request {
        needs: Needs { frameworks: names(&["gdpr"]), ..Needs::default() },
        ..Request::default()
    };
    for (what, candidate, masked, usual, in_a_panic) in [
        ("ready", one(true, false), false, true, true),
        ("ejected", one(true, false), true, false, true),
        ("stale or failing", one(false, true), false, false, true),
        ("both", one(false, true), true, false, true),
        ("draining, quarantined or unhealthy", one(false, false), false, false, false),
    ] {
        let view = view(vec![candidate]);
        let live = |_| Live { masked, ..Live::default() };
        for (panic, expected) in [(false, usual), (true, in_a_panic)] {
            let decides = |request: &Request| {
                let question = Question { panic, ..question(&view, request, &[]) };
                decide(&mut Scratch::default(), &question, live, |_, _, _| None::<[f32; 0]>)
            };
            assert_eq!(decides(&Request::default()).is_ok(), expected, "{what}, {panic}");
            let forbidden = if expected { NoRoute::NonePermitted } else { NoRoute::NoneReady };
            assert_eq!(decides(&gdpr), Err(forbidden), "{what}, {panic}");
        }
    }
}
