//! Whatever is registered and reported.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::{FRAMEWORKS, some_health};

/// Instances of a few pools, in known and unknown regions, in any order, each id once.
fn some_members() -> impl Strategy<Value = Vec<Member>> {
    let one = (
        prop::sample::select(vec!["eu", "us", "ap", "mars"]),
        prop::sample::select(vec!["chat", "code"]),
        some_health(),
        prop::sample::select(vec![Seen::Well, Seen::Well, Seen::Stale, Seen::Failing]),
        prop::option::of(0..9u32),
        prop::option::of(0..9u32),
    );
    let all = prop::collection::vec(one, 0..12).prop_map(|all| {
        let each = all.into_iter().enumerate().map(|(i, one)| {
            let (region, pool, health, seen, slots, running) = one;
            with(member(&format!("i-{i:02}"), region), |it| {
                it.seen = seen;
                it.registration_mut().pool = pool.into();
                it.registration_mut().slots = slots;
                let report = it.standing_mut().report.as_mut().unwrap();
                (report.health, report.running) = (health, running);
            })
        });
        each.collect::<Vec<_>>()
    });
    all.prop_shuffle()
}

fn seen(snapshot: &Snapshot) -> Vec<(ViewKey, u32, Vec<Candidate>)> {
    snapshot.views().map(|view| (view.key.clone(), view.id, view.candidates.clone())).collect()
}

proptest! {
    /// A view that goes and comes back has its old id, and no other ever had it.
    #[test]
    fn a_view_keeps_its_id(fleets in prop::collection::vec(some_members(), 1..6)) {
        let mut builder = Builder::new("us".into());
        let mut known = BTreeMap::new();
        for members in fleets {
            let regions = REGIONS.map(region).to_vec();
            for view in builder.build(Timestamp(1), regions, members, &BTreeMap::new()).views() {
                prop_assert_eq!(*known.entry(view.key.clone()).or_insert(view.id), view.id);
            }
            let ids: BTreeSet<_> = known.values().collect();
            prop_assert_eq!(ids.len(), known.len());
        }
    }

    /// What is taken over from the snapshot before is what would be made anew.
    #[test]
    fn a_snapshot_does_not_depend_on_those_before(
        fleets in prop::collection::vec((some_members(), 0..3usize), 1..6),
    ) {
        let mut builder = Builder::new("us".into());
        let mut known: BTreeMap<_, Member> = BTreeMap::new();
        for (members, changed) in fleets {
            // Some instances stay as they were, as the same allocations.
            for (n, member) in members.into_iter().enumerate() {
                let id = member.standing.registration.id.clone();
                if n % 3 != changed {
                    known.insert(id, member);
                }
            }
            let regions = REGIONS.map(|id| with(region(id), |it| {
                it.frameworks = names(&FRAMEWORKS[changed..]);
            }));
            let members: Vec<_> = known.values().cloned().collect();
            let next =
                builder.build(Timestamp(1), regions.to_vec(), members.clone(), &BTreeMap::new());
            let candidates = |of: &Snapshot| -> Vec<_> {
                of.views().map(|view| (view.key.clone(), view.candidates.clone())).collect()
            };
            let anew = snapshot(regions.to_vec(), members);
            prop_assert_eq!(candidates(&next), candidates(&anew));
        }
    }

    #[test]
    fn the_order_they_are_read_in_does_not_matter(
        (one, other) in
            some_members().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        regions in Just(REGIONS.map(region).to_vec()).prop_shuffle(),
    ) {
        let one = snapshot(REGIONS.map(region).to_vec(), one);
        let other = snapshot(regions, other);
        prop_assert_eq!(seen(&one), seen(&other));
        prop_assert_eq!(&one.regions, &other.regions);
        prop_assert!(other.regions.is_sorted_by_key(|region| &region.id));
        prop_assert_eq!(&one.instances, &other.instances);
    }

    #[test]
    fn a_region_never_has_more_than_its_instances(
        members in some_members(),
        max_capacity in prop::option::of(0..20u32),
    ) {
        let regions = REGIONS.map(|id| with(region(id), |it| it.max_capacity = max_capacity));
        let snapshot = snapshot(regions.to_vec(), members);
        let regions = snapshot.views().filter(|view| view.key.level == Level::Region);
        for whole in regions.flat_map(|view| &view.candidates) {
            let key = ViewKey {
                level: Level::Instance,
                region: Some(whole.region.clone()),
                pool: whole.pool.clone(),
            };
            let parts = &snapshot.view(&key).unwrap().candidates;
            let ready = parts.iter().filter(|part| part.ready).count() as u32;
            prop_assert_eq!(whole.instances, parts.len() as u32);
            prop_assert_eq!(whole.ready, ready > 0);
            prop_assert!(whole.healthy_instances <= ready);
            prop_assert!((0.0..=100.0).contains(&whole.health_score));
            prop_assert!(whole.utilization.is_none_or(|part| (0.0..=1.0).contains(&part)));
            if let (Some(slots), Some(most)) = (whole.slots, max_capacity) {
                prop_assert!(slots <= most);
            }
        }
    }
}
