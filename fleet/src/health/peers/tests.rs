#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const CONFIG: PeerConfig = PeerConfig { interval_ms: 200, misses: 3 };

fn eu() -> RegionId {
    "eu".into()
}

/// A router that pings one other region, and looks whenever it said that something would be due.
struct Rig {
    peers: Peers,
    now_ms: u64,
    /// Answers under way: when they come, to which ping, after how long.
    coming: Vec<(u64, u64, f64)>,
    /// When the region was ejected and came back.
    changes: Vec<(u64, PeerChange)>,
    most_outstanding: usize,
}

/// What becomes of a ping.
#[derive(Clone, Copy)]
enum Fate {
    AnsweredAfter(u64),
    Refused,
    Lost,
}

impl Rig {
    fn new() -> Self {
        let mut peers = Peers::new(CONFIG);
        peers.keep([&eu()], 0);
        Self { peers, now_ms: 0, coming: Vec::new(), changes: Vec::new(), most_outstanding: 0 }
    }

    fn run(&mut self, until_ms: u64, fate: impl Fn(u64) -> Fate) {
        while self.now_ms < until_ms {
            let now_ms = self.now_ms;
            let arrived = self.coming.extract_if(.., |(at_ms, ..)| *at_ms <= now_ms);
            for (_, number, rtt_ms) in arrived.collect::<Vec<_>>() {
                let change = self.peers.pong(&eu(), number, rtt_ms);
                self.changes.extend(change.map(|change| (now_ms, change)));
            }
            for _ in self.peers.tick(now_ms) {
                self.changes.push((now_ms, PeerChange::Ejected));
            }
            for (region, number) in self.peers.due(now_ms) {
                match fate(now_ms) {
                    Fate::AnsweredAfter(ms) => self.coming.push((now_ms + ms, number, ms as f64)),
                    Fate::Refused => {
                        let change = self.peers.miss(&region, number);
                        self.changes.extend(change.map(|change| (now_ms, change)));
                    }
                    Fate::Lost => {}
                }
            }
            let outstanding = self.peers.peers[&eu()].outstanding.len();
            self.most_outstanding = self.most_outstanding.max(outstanding);
            let next_ms = self.peers.next_ms().unwrap();
            assert!(next_ms > now_ms);
            let arrives_ms = self.coming.iter().map(|(at_ms, ..)| *at_ms).min();
            self.now_ms = arrives_ms.map_or(next_ms, |at_ms| at_ms.min(next_ms)).min(until_ms);
        }
    }
}

#[test]
fn the_default_is_what_the_documentation_says_and_zeros_are_problems() {
    assert_eq!(PeerConfig::default(), CONFIG);
    assert_eq!(CONFIG.problems(), [""; 0]);
    assert_eq!(PeerConfig { interval_ms: 0, misses: 0 }.problems().len(), 2);
}

/// The times that sub-second failover rests on: whenever in the interval it happens.
#[test]
fn a_region_that_vanishes_is_out_within_800_ms_and_a_round_trip() {
    for rtt_ms in [1, 40, 150] {
        for gone_at_ms in 10_000..10_200 {
            let mut rig = Rig::new();
            // A ping that is under way in that moment is lost as well.
            let fate = |at_ms| match at_ms + rtt_ms < gone_at_ms {
                true => Fate::AnsweredAfter(rtt_ms),
                false => Fate::Lost,
            };
            rig.run(12_000, fate);
            let [(at_ms, PeerChange::Ejected)] = rig.changes[..] else {
                unreachable!("{:?}", rig.changes)
            };
            let after_ms = at_ms - gone_at_ms;
            assert!(
                (600..=800 + rtt_ms).contains(&(after_ms + rtt_ms)),
                "{after_ms} ms, {rtt_ms} ms"
            );
            assert!(rig.peers.is_ejected(&eu()) && rig.peers.rtt_ms(&eu()).is_none());
        }
    }
}

#[test]
fn a_region_that_refuses_is_out_at_the_third_ping() {
    let mut rig = Rig::new();
    let fate = |at_ms| if at_ms < 1_000 { Fate::AnsweredAfter(5) } else { Fate::Refused };
    rig.run(2_000, fate);
    assert_eq!(rig.changes, [(1_400, PeerChange::Ejected)]);
}

#[test]
fn one_that_was_never_heard_is_out_after_three_misses_and_not_before() {
    let mut rig = Rig::new();
    rig.run(800, |_| Fate::Lost);
    assert!(!rig.peers.is_ejected(&eu()));
    rig.run(2_000, |_| Fate::Lost);
    assert_eq!(rig.changes, [(800, PeerChange::Ejected)]);
    // Of one that nobody knows, nothing is said.
    assert!(!rig.peers.is_ejected(&"mars".into()));
}

#[test]
fn any_answer_brings_a_region_back() {
    let mut rig = Rig::new();
    let is_away = |at_ms| (1_000..5_000).contains(&at_ms);
    rig.run(8_000, |at_ms| if is_away(at_ms) { Fate::Lost } else { Fate::AnsweredAfter(40) });
    assert_eq!(rig.changes, [(1_640, PeerChange::Ejected), (5_040, PeerChange::Rejoined)]);
    assert_eq!(rig.peers.rtt_ms(&eu()), Some(40.0));

    // One to a ping that was given up long ago, as from a process that was stopped and goes on.
    let mut rig = Rig::new();
    rig.run(3_000, |at_ms| if at_ms < 1_000 { Fate::AnsweredAfter(40) } else { Fate::Lost });
    assert!(rig.peers.is_ejected(&eu()));
    assert_eq!(rig.peers.pong(&eu(), 5, 2_000.0), Some(PeerChange::Rejoined));
    assert_eq!(rig.peers.pong(&eu(), 5, 2_000.0), None);
}

#[test]
fn an_answer_to_a_ping_that_was_never_sent_is_none() {
    let mut rig = Rig::new();
    rig.run(2_000, |_| Fate::Lost);
    assert_eq!(rig.peers.pong(&eu(), 10_000, 1.0), None);
    assert_eq!(rig.peers.pong(&"mars".into(), 0, 1.0), None);
    assert!(rig.peers.is_ejected(&eu()));
}

#[test]
fn two_losses_in_a_row_eject_nobody() {
    let mut rig = Rig::new();
    let is_lost = |at_ms: u64| !(at_ms / 200).is_multiple_of(3);
    rig.run(60_000, |at_ms| if is_lost(at_ms) { Fate::Lost } else { Fate::AnsweredAfter(40) });
    assert_eq!(rig.changes, []);
}

#[test]
fn distance_is_no_absence() {
    for rtt_ms in [190, 250, 399, 700, 1_500, 10_000] {
        let mut rig = Rig::new();
        rig.run(60_000, |_| Fate::AnsweredAfter(rtt_ms));
        // Of one that is too far for the first wait, the first answer tells how far it is.
        let is_far = rtt_ms >= 800;
        let expected = [(800, PeerChange::Ejected), (rtt_ms, PeerChange::Rejoined)];
        assert_eq!(rig.changes, if is_far { &expected[..] } else { &[] }, "{rtt_ms} ms");
        assert_eq!(rig.peers.rtt_ms(&eu()), Some(rtt_ms as f64));
        assert!(rig.most_outstanding <= MAX_OUTSTANDING);
    }
}

#[test]
fn a_region_however_far_is_out_soon_after_its_last_answer() {
    let mut rig = Rig::new();
    rig.run(70_000, |at_ms| match at_ms < 50_000 {
        true => Fate::AnsweredAfter(10_000),
        false => Fate::Lost,
    });
    let (at_ms, change) = rig.changes.pop().unwrap();
    assert_eq!(change, PeerChange::Ejected);
    assert!((60_000..61_000).contains(&at_ms), "{at_ms}");
}

#[test]
fn a_link_that_becomes_slow_ejects_once_at_most_until_its_answers_come() {
    let mut rig = Rig::new();
    let rtt_ms = |at_ms| if at_ms < 10_000 { 20 } else { 900 };
    rig.run(60_000, |at_ms| Fate::AnsweredAfter(rtt_ms(at_ms)));
    let whats: Vec<_> = rig.changes.iter().map(|(_, what)| *what).collect();
    assert_eq!(whats, [PeerChange::Ejected, PeerChange::Rejoined]);
    assert!(rig.peers.rtt_ms(&eu()).is_some_and(|rtt_ms| rtt_ms > 890.0));
}

#[test]
fn a_router_that_was_held_up_blames_nobody() {
    let mut rig = Rig::new();
    rig.run(10_050, |_| Fate::AnsweredAfter(700));
    // A minute's pause, with four pings on their way; their answers are there, and not read yet.
    let paused = rig.peers.peers[&eu()].outstanding.len();
    assert_eq!(paused, 4);
    rig.now_ms += 60_000;
    let read_ms = rig.now_ms + 5;
    rig.coming.iter_mut().for_each(|(at_ms, ..)| *at_ms = read_ms);
    rig.run(90_000, |_| Fate::AnsweredAfter(700));
    assert_eq!(rig.changes, []);
}

#[test]
fn the_gone_are_forgotten_and_the_others_are_not() {
    let (mut peers, ap) = (Peers::new(CONFIG), RegionId::from("ap"));
    peers.keep([&eu(), &ap], 0);
    assert_eq!(peers.due(0), [(ap.clone(), 0), (eu(), 0)]);
    peers.pong(&eu(), 0, 10.0);
    peers.keep([&eu()], 100);
    assert_eq!(peers.due(200), [(eu(), 1)]);
    assert_eq!(peers.rtt_ms(&eu()), Some(10.0));
    assert_eq!(peers.miss(&ap, 0), None);
    peers.keep([], 300);
    assert_eq!(peers.next_ms(), None);
}

proptest! {
    /// Whatever pings meet: what is out is bounded, ejections and returns alternate, and once they are
    /// answered again the region is there.
    #[test]
    fn pings_are_bounded_and_a_region_that_answers_comes_back(
        fates in prop::collection::vec((0..10u8, 0..3_000u64), 1..100)
    ) {
        let mut rig = Rig::new();
        let until_ms = fates.len() as u64 * 200;
        rig.run(until_ms, |at_ms| match fates[(at_ms / 200) as usize] {
            (0..4, ms) => Fate::AnsweredAfter(ms / 50),
            (4..6, ms) => Fate::AnsweredAfter(ms),
            (6..8, _) => Fate::Refused,
            _ => Fate::Lost,
        });
        prop_assert!(rig.most_outstanding <= MAX_OUTSTANDING, "{}", rig.most_outstanding);
        for (n, (_, change)) in rig.changes.iter().enumerate() {
            prop_assert_eq!(*change == PeerChange::Ejected, n % 2 == 0);
        }
        rig.run(until_ms + 10_000, |_| Fate::AnsweredAfter(30));
        prop_assert!(!rig.peers.is_ejected(&eu()));
        prop_assert!(rig.peers.rtt_ms(&eu()).is_some());
    }
}
