#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use mrgc_fleet::model::{DesiredState, Lifecycle, Stamp, Timestamp};
use proptest::prelude::*;

use super::*;

/// What is stored of one instance.
#[derive(Clone, Debug, Default)]
struct Stored {
    /// The last generation, and whether it is a tombstone.
    registration: Option<(u64, bool)>,
    report: Option<(Fence, Words)>,
    desired: Option<(u64, DesiredState)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Words {
    Queue(u32),
    Garbled,
    Tombstone,
}

/// A store in a few lines: what of it a follower may see.
#[derive(Clone, Debug, Default)]
struct World(BTreeMap<&'static str, Stored>);

fn registration(id: &str, generation: u64) -> Registration {
    Registration { generation, ..Registration::new(id, "r", "p", "a") }
}

fn report(id: &str, fence: Fence, queue_depth: u32) -> Report {
    Report {
        queue_depth: Some(queue_depth),
        lifecycle: Lifecycle::Available,
        ..Report::new(id, "r", fence.0, fence.1)
    }
}

fn desired(id: &str, (sequence, state): (u64, DesiredState)) -> Desired {
    Desired {
        instance: id.into(),
        region: "r".into(),
        state,
        reason: None,
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: "r".into(),
        stamp: Stamp { epoch: 0, sequence },
    }
}

impl World {
    fn refresh(&self, ledger: &mut Ledger, list_registrations: bool) -> Changes {
        let head = |id: &str, fence, gone| Head { partition: 0, id: id.to_owned(), fence, gone };
        let report_heads: Vec<_> = self
            .0
            .iter()
            .filter_map(|(id, it)| {
                it.report.map(|(fence, words)| head(id, fence, words == Words::Tombstone))
            })
            .collect();
        let registration_heads: Vec<_> = self
            .0
            .iter()
            .filter_map(|(id, it)| {
                it.registration.map(|(generation, gone)| head(id, (generation, 0), gone))
            })
            .collect();
        let listed = list_registrations.then_some(registration_heads.as_slice());
        let plan = ledger.plan(&report_heads, listed);
        let registrations = plan.registrations.iter().filter_map(|(_, id)| {
            let (generation, gone) = self.0.get(id.as_str())?.registration?;
            (!gone).then(|| (id.clone(), Some(registration(id.as_str(), generation))))
        });
        let reports = plan.reports.iter().filter_map(|(_, id)| {
            let (fence, words) = self.0.get(id.as_str())?.report?;
            match words {
                Words::Queue(depth) => Some((id.clone(), Some(report(id.as_str(), fence, depth)))),
                Words::Garbled => Some((id.clone(), None)),
                Words::Tombstone => None,
            }
        });
        let wanted = self.0.iter().filter_map(|(id, it)| Some((*id, it.desired?)));
        let reading = Reading {
            registrations: registrations.collect(),
            reports: reports.collect(),
            desired: wanted.map(|(id, it)| (id.into(), desired(id, it))).collect(),
            plan,
        };
        ledger.apply(reading)
    }

    /// What a whole listing would say.
    fn standings(&self) -> Vec<Standing> {
        let standing = |(id, it): (&&'static str, &Stored)| {
            let (generation, gone) = it.registration?;
            let report = it.report.filter(|((of, _), _)| *of == generation);
            if gone
                || it
                    .report
                    .is_some_and(|((of, _), words)| words == Words::Tombstone && of >= generation)
            {
                return None;
            }
            let report = report.and_then(|(fence, words)| match words {
                Words::Queue(depth) => Some(self::report(id, fence, depth)),
                _ => None,
            });
            let desired = it.desired.map(|it| desired(id, it));
            Some(Standing { desired, ..Standing::new(registration(id, generation), report) })
        };
        self.0.iter().filter_map(standing).collect()
    }
}

fn ids(names: &[&str]) -> Vec<InstanceId> {
    names.iter().map(|name| InstanceId::from(*name)).collect()
}

#[test]
fn each_refresh_reads_only_what_is_new() {
    let mut world = World::default();
    let mut ledger = Ledger::default();
    for id in ["a", "b"] {
        let stored = Stored {
            registration: Some((1, false)),
            report: Some(((1, 1), Words::Queue(1))),
            desired: None,
        };
        world.0.insert(id, stored);
    }
    let first = world.refresh(&mut ledger, true);
    assert_eq!(first, Changes { added: ids(&["a", "b"]), ..Changes::default() });
    let before: Vec<_> = ledger.standings().to_vec();

    assert!(world.refresh(&mut ledger, true).is_empty());
    world.0.get_mut("b").unwrap().report = Some(((1, 2), Words::Queue(7)));
    assert_eq!(world.refresh(&mut ledger, false).changed, ids(&["b"]));
    assert!(Arc::ptr_eq(&ledger.standings()[0], &before[0]), "nothing of it changed");
    assert_eq!(ledger.standings()[1].report.as_ref().unwrap().queue_depth, Some(7));
    assert_eq!(before[1].report.as_ref().unwrap().queue_depth, Some(1), "snapshots stay");
}

#[test]
fn a_newcomer_is_found_by_its_first_report_and_one_that_leaves_by_its_tombstone() {
    let mut world = World::default();
    let mut ledger = Ledger::default();
    assert!(world.refresh(&mut ledger, true).is_empty());
    let stored = Stored { registration: Some((1, false)), ..Stored::default() };
    world.0.insert("a", stored);
    assert!(world.refresh(&mut ledger, false).is_empty(), "it has not reported");
    world.0.get_mut("a").unwrap().report = Some(((1, 1), Words::Queue(0)));
    assert_eq!(world.refresh(&mut ledger, false).added, ids(&["a"]));

    world.0.get_mut("a").unwrap().report = Some(((1, 1), Words::Tombstone));
    assert_eq!(world.refresh(&mut ledger, false).gone, ids(&["a"]));
    // Its registration is a moment behind, and does not bring it back.
    assert!(world.refresh(&mut ledger, true).is_empty());

    // The next generation comes between two looks.
    world.0.get_mut("a").unwrap().registration = Some((2, false));
    world.0.get_mut("a").unwrap().report = Some(((2, 1), Words::Queue(0)));
    assert_eq!(world.refresh(&mut ledger, false).added, ids(&["a"]));
    world.0.get_mut("a").unwrap().report = Some(((2, 1), Words::Tombstone));
    world.0.get_mut("a").unwrap().registration = Some((3, false));
    assert_eq!(world.refresh(&mut ledger, true).changed, ids(&["a"]));
    assert_eq!(ledger.standings()[0].registration.generation, 3);
}

#[test]
fn an_answer_that_is_older_than_what_is_known_is_ignored() {
    let stored = |sequence| Stored {
        registration: Some((2, false)),
        report: Some(((2, sequence), Words::Queue(1))),
        desired: None,
    };
    let mut ledger = Ledger::default();
    World(BTreeMap::from([("a", stored(5))])).refresh(&mut ledger, true);
    assert!(World(BTreeMap::from([("a", stored(4))])).refresh(&mut ledger, true).is_empty());
    let mut zombie = stored(9);
    zombie.report = Some(((1, 9), Words::Queue(1)));
    assert!(World(BTreeMap::from([("a", zombie)])).refresh(&mut ledger, true).is_empty());
    assert_eq!(ledger.standings()[0].report.as_ref().unwrap().sequence, 5);
}

/// What is wanted of the only instance after a look that finds this.
fn wanted(ledger: &mut Ledger, found: Option<(u64, DesiredState)>) -> Option<(u64, DesiredState)> {
    let stored = Stored { registration: Some((1, false)), desired: found, ..Stored::default() };
    let before = ledger.standings().first().and_then(|it| it.desired.clone());
    let changes = World(BTreeMap::from([("a", stored)])).refresh(ledger, true);
    let after = ledger.standings()[0].desired.clone();
    assert_eq!(changes.is_empty(), before == after, "{changes:?}");
    after.map(|it| (it.stamp.sequence, it.state))
}

#[test]
fn what_is_wanted_counts_until_something_later_is_or_looks_in_a_row_do_not_find_it() {
    use DesiredState::{Draining, Quarantined, Serving};
    let (last, later) = (Some((7, Quarantined)), Some((8, Serving)));
    for earlier in [None, Some((6, Serving)), Some((0, Draining)), Some((7, Draining))] {
        let mut ledger = Ledger::default();
        assert_eq!(wanted(&mut ledger, last), last);
        for _ in 0..3 {
            for _ in 1..LOOKS_WITHOUT {
                assert_eq!(wanted(&mut ledger, earlier), last, "{earlier:?}");
            }
            assert_eq!(wanted(&mut ledger, last), last, "found again, it counts from the start");
        }
        for _ in 1..LOOKS_WITHOUT {
            assert_eq!(wanted(&mut ledger, earlier), last);
        }
        assert_eq!(wanted(&mut ledger, earlier), earlier, "it was forgotten");
        assert_eq!(wanted(&mut ledger, later), later, "at once");
        assert_eq!(wanted(&mut ledger, last), later);
    }
}

#[test]
fn a_report_without_a_registration_is_asked_about_once() {
    let mut ledger = Ledger::default();
    let stored = Stored { report: Some(((1, 1), Words::Queue(1))), ..Stored::default() };
    let mut world = World(BTreeMap::from([("a", stored)]));
    let asks = |world: &World, ledger: &mut Ledger| {
        let head = |fence| Head { partition: 0, id: "a".to_owned(), fence, gone: false };
        let heads = [head(world.0["a"].report.unwrap().0)];
        let asks = ledger.plan(&heads, None).registrations.len();
        assert!(world.refresh(ledger, false).is_empty());
        asks
    };
    assert_eq!((asks(&world, &mut ledger), asks(&world, &mut ledger)), (1, 0));
    world.0.get_mut("a").unwrap().report = Some(((1, 2), Words::Queue(1)));
    assert_eq!(asks(&world, &mut ledger), 1, "its registration may have arrived late");
}

/// One thing that happens to one instance.
fn happens() -> impl Strategy<Value = (&'static str, u8, u32)> {
    (prop::sample::select(vec!["a", "b", "c"]), 0..10u8, 0..3u32)
}

fn change(stored: &mut Stored, what: u8, depth: u32) {
    let generation = stored.registration.map_or(0, |(generation, _)| generation);
    let last = stored.report.map_or((0, 0), |(fence, _)| fence);
    let next = if last.0 == generation { (generation, last.1 + 1) } else { (generation, 1) };
    let reports = generation >= last.0 && generation > 0;
    match what {
        0 | 1 => stored.registration = Some((generation.max(last.0) + 1, false)),
        2..=4
            if reports
                && !matches!(stored.report, Some((of, Words::Tombstone)) if of.0 == generation) =>
        {
            stored.report = Some((next, Words::Queue(depth)));
        }
        5 if reports => stored.report = Some((next, Words::Garbled)),
        6 if generation > 0 => {
            stored.report = Some(((generation, last.1), Words::Tombstone));
            stored.registration = Some((generation, true));
        }
        7 => stored.registration = None,
        8 => {
            let state = if depth == 0 { DesiredState::Serving } else { DesiredState::Quarantined };
            stored.desired = Some((stored.desired.map_or(0, |(last, _)| last + 1), state));
        }
        9 => stored.desired = None,
        _ => {}
    }
}

/// What the instances say of themselves.
fn themselves(standings: Vec<Standing>) -> Vec<Standing> {
    standings.into_iter().map(|standing| Standing { desired: None, ..standing }).collect()
}

proptest! {
    /// Whatever happens between two looks, a look that lists all sees what a whole listing would, but for
    /// what is not wanted any more: that takes a few looks. And the changes account for every difference.
    #[test]
    fn following_comes_to_the_same_as_listing(
        steps in prop::collection::vec((prop::collection::vec(happens(), 0..4), any::<bool>()), 1..40),
    ) {
        let mut world = World::default();
        let mut ledger = Ledger::default();
        for (happened, list) in steps {
            for (id, what, depth) in happened {
                change(world.0.entry(id).or_default(), what, depth);
            }
            let before: BTreeMap<_, _> =
                ledger.standings().iter().map(|s| (s.registration.id.clone(), s.clone())).collect();
            let changes = world.refresh(&mut ledger, list);
            let after: BTreeMap<_, _> =
                ledger.standings().iter().map(|s| (s.registration.id.clone(), s.clone())).collect();
            if list {
                let found = |ledger: &Ledger| -> Vec<Standing> {
                    ledger.standings().iter().map(|s| (**s).clone()).collect()
                };
                prop_assert_eq!(themselves(found(&ledger)), themselves(world.standings()));
                let mut settled = ledger.clone();
                for _ in 1..LOOKS_WITHOUT {
                    world.refresh(&mut settled, false);
                }
                prop_assert_eq!(found(&settled), world.standings());
            }
            prop_assert!(ledger.standings().is_sorted_by_key(|s| s.registration.id.clone()));

            let known = |all: &BTreeMap<InstanceId, _>| all.keys().cloned().collect::<BTreeSet<_>>();
            let (was, is) = (known(&before), known(&after));
            prop_assert_eq!(&changes.added, &is.difference(&was).cloned().collect::<Vec<_>>());
            prop_assert_eq!(&changes.gone, &was.difference(&is).cloned().collect::<Vec<_>>());
            for id in was.intersection(&is) {
                if before[id] != after[id] {
                    prop_assert!(changes.changed.contains(id), "{} changed untold", id);
                }
            }
        }
    }
}
