use super::*;
use crate::{
    failover::Strategy,
    testing::{POOL, member},
};

const AT: Timestamp = Timestamp(7);
const NOTHING: [u32; 0] = [];

/// A scaler in `us`, between regions of so many instances.
struct Rig {
    scaler: Scaler,
    members: Vec<Member>,
    moves: BTreeMap<RegionId, Move>,
    room: usize,
    now_ms: u64,
}

impl Rig {
    fn new(instances: &[(&'static str, usize)]) -> Self {
        let of = |(region, count): &(&'static str, usize)| {
            let region = *region;
            (0..*count).map(move |n| member(&format!("{region}-{n}"), region))
        };
        Self {
            scaler: Scaler::default(),
            members: instances.iter().flat_map(of).collect(),
            moves: instances.iter().map(|(id, _)| ((*id).into(), Move::default())).collect(),
            room: usize::MAX,
            now_ms: 0,
        }
    }

    /// A region keeps so much, and what is asked for a second later under the lease of `epoch`.
    fn keeps(&mut self, region: &str, share: f64, epoch: u64) -> Vec<u32> {
        self.moves.insert(region.into(), Move { share: 1.0 - share, to: None });
        self.look(epoch).into_iter().map(|scaling| scaling.extra).collect()
    }

    fn look(&mut self, epoch: u64) -> Vec<Scaling> {
        self.now_ms += LOOK_EVERY_MS;
        let members = self.members.iter().cloned();
        self.scaler.handle(
            &"us".into(),
            &self.moves,
            members,
            (epoch, self.room),
            (self.now_ms, AT),
        )
    }

    /// A region's instances do not answer any more.
    fn lose(&mut self, region: &str) {
        let of_it = |member: &&mut Member| member.standing.registration.region.as_str() == region;
        for member in self.members.iter_mut().filter(of_it) {
            member.seen = crate::snapshot::Seen::Stale;
        }
    }
}

/// Seed 1's second scenario, its fifth step.
#[test]
fn a_failover_asks_once_for_what_it_brings_and_takes_it_back_when_all_traffic_is_back() {
    let mut rig = Rig::new(&[("us", 6), ("eu", 10), ("ap", 3)]);
    assert_eq!(rig.keeps("eu", 1.0, 1), [0], "a new holder says once how it is");
    assert_eq!(rig.keeps("eu", 1.0, 1), NOTHING);
    rig.lose("eu");
    // Two thirds of those that take it are here.
    assert_eq!(rig.keeps("eu", 0.7, 1), [2], "of 10 × 0.3");
    assert_eq!(rig.keeps("eu", 0.0, 1), [7], "of 10");
    for share in [0.0, 0.25, 0.5, 0.75, 0.25, 0.75] {
        assert_eq!(rig.keeps("eu", share, 1), NOTHING, "no step back asks for anything");
    }
    assert_eq!(rig.keeps("eu", 1.0, 1), [0]);
    assert_eq!(rig.keeps("eu", 1.0, 1), NOTHING);
}

#[test]
fn between_two_looks_nothing_is_asked() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    assert_eq!(rig.keeps("eu", 0.0, 1), [2]);
    rig.moves.insert("us".into(), Move { share: 1.0, to: None });
    rig.now_ms -= 1;
    assert_eq!(rig.look(1).len(), 0);
}

#[test]
fn what_has_no_room_is_asked_for_later() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    rig.room = 0;
    assert_eq!(rig.keeps("eu", 1.0, 1), NOTHING);
    rig.room = 1;
    assert_eq!(rig.keeps("eu", 1.0, 1), [0], "a new holder says once how it is");
    rig.room = 0;
    assert_eq!(rig.keeps("eu", 0.0, 1), NOTHING);
    rig.room = 1;
    assert_eq!(rig.keeps("eu", 0.0, 1), [2]);
    assert_eq!(rig.keeps("eu", 0.0, 1), NOTHING, "once");
}

/// It may have been lost on its way, or undone by a holder of before that was late.
#[test]
fn what_was_asked_for_is_asked_for_again() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    for (share, extra) in [(0.0, 2), (1.0, 0)] {
        assert_eq!(rig.keeps("eu", share, 1), [extra]);
        rig.now_ms += ASKED_EVERY_MS - 2 * LOOK_EVERY_MS;
        assert_eq!(rig.keeps("eu", share, 1), NOTHING);
        assert_eq!(rig.keeps("eu", share, 1), [extra], "a while later");
    }
}

/// A router may hold the lease before it has read the store.
#[test]
fn who_knew_of_no_instance_asks_when_it_does() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    let members = std::mem::take(&mut rig.members);
    assert_eq!(rig.keeps("eu", 1.0, 1), NOTHING);
    rig.members = members;
    rig.now_ms += ASKED_EVERY_MS;
    assert_eq!(rig.keeps("eu", 1.0, 1), [0]);
}

#[test]
fn who_takes_nothing_asks_for_nothing() {
    for (what, own_share, to, expected) in [
        ("it takes half", 1.0, None, 5),
        ("an operator names it", 1.0, Some("us"), 10),
        ("an operator names another", 1.0, Some("ap"), 0),
        ("an operator names one that is gone", 1.0, Some("mars"), 5),
        ("it gives traffic away itself", 0.7, None, 0),
    ] {
        let mut rig = Rig::new(&[("us", 4), ("eu", 10), ("ap", 4)]);
        rig.moves.insert("eu".into(), Move { share: 1.0, to: to.map(RegionId::from) });
        assert_eq!(rig.keeps("us", own_share, 1), [expected], "{what}");
    }
    let mut rig = Rig::new(&[("us", 4), ("eu", 10)]);
    rig.lose("us");
    assert_eq!(rig.keeps("eu", 0.0, 1), [0], "none of its own takes requests");
}

#[test]
fn an_operators_failover_counts_whole_while_it_ramps() {
    use crate::{
        failover::{RegionOrder, Thresholds},
        testing::region,
    };
    let mut handler = Handler::new("us".into(), Thresholds::default(), AT);
    let regions = [region("us"), region("eu")];
    handler.tick(0, AT);
    let order = RegionOrder {
        region: "eu".into(),
        wish: Wish::FailOver { to: Some("us".into()), strategy: Strategy::Graceful },
        reason: None,
        operator: None,
        at: AT,
        writer_region: "us".into(),
        stamp: Stamp::default(),
    };
    handler.order(order, 0);
    let expected = [
        ("eu".into(), Move { share: 1.0, to: Some("us".into()) }),
        ("us".into(), Move { share: 0.0, to: None }),
    ];
    assert_eq!(handler.share(&"eu".into()), 1.0, "it has only begun");
    assert_eq!(moves(&handler, &regions), expected.into());
}

/// A pool of six, through a failover with a change of holders.
#[test]
fn what_is_stored_follows_and_comes_back_to_what_it_was() {
    let mut stored: Option<Capacity> = None;
    for (what, instances, extra, expected) in [
        ("nothing to take back", 6, 0, None),
        ("a failover begins", 6, 2, Some((6, 8))),
        ("it grows, and new instances serve", 8, 7, Some((6, 13))),
        ("said again", 13, 7, None),
        ("a new holder sees less of it", 13, 3, None),
        ("it is over", 13, 0, Some((13, 6))),
        ("said again", 13, 0, None),
        ("the next one", 7, 1, Some((7, 8))),
    ] {
        let scaling = Scaling {
            pool: POOL.into(),
            instances,
            ready: instances,
            extra,
            reason: what.to_owned(),
            stamp: Stamp { epoch: 1, sequence: 1 },
            at: AT,
        };
        let written = scaling.over(stored.as_ref(), &"us".into());
        let decision = written.as_ref().and_then(|capacity| capacity.last_decision.as_ref());
        assert_eq!(decision.map(|decision| (decision.from, decision.to)), expected, "{what}");
        if let Some(capacity) = &written {
            assert_eq!(Some(capacity.desired), expected.map(|(_, to)| to), "{what}");
            assert_eq!(
                (capacity.in_service, capacity.written_by.as_str()),
                (Some(instances), "us")
            );
        }
        stored = written.or(stored);
    }
}

/// Whoever else decides about the pool has the last word while no failover is about.
#[test]
fn another_s_decision_is_not_taken_back() {
    let others = Capacity {
        region: "us".into(),
        pool: POOL.into(),
        written_by: "us".into(),
        stamp: Stamp::default(),
        desired: 9,
        in_service: None,
        pending: None,
        last_decision: Some(ScalingDecision {
            at: AT,
            from: 4,
            to: 9,
            reason: "queue depth 14 above 10 for 5 min".to_owned(),
            failover: false,
        }),
        at: AT,
    };
    let mut rig = Rig::new(&[("us", 4), ("eu", 4)]);
    let idle = rig.look(1).remove(0);
    assert_eq!(idle.over(Some(&others), &"us".into()), None);
    rig.keeps("eu", 1.0, 2);
    rig.moves.insert("eu".into(), Move { share: 1.0, to: None });
    let raise = rig.look(2).remove(0).over(Some(&others), &"us".into());
    let taken_back = idle.over(raise.as_ref(), &"us".into());
    assert_eq!(raise.map(|capacity| capacity.desired), Some(13));
    assert_eq!(taken_back.map(|capacity| capacity.desired), Some(9));
}

#[test]
fn a_reason_names_a_few_regions() {
    let names = ["a", "b", "c", "d", "e", "f"].map(RegionId::from);
    let reason = |count: usize| super::reason(&names[..count].iter().collect::<Vec<_>>());
    assert_eq!(reason(0), "other regions' traffic is back");
    assert_eq!(reason(2), "takes traffic of a, b");
    assert_eq!(reason(6), "takes traffic of a, b, c, d and 2 more");
}
