#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    model::{Desired, DesiredState, Lifecycle, Registration, Report, Stamp},
    testing::{
        FRAMEWORKS, POOL, REGIONS, candidate, member, names, region, registered, reporting,
        snapshot, some_health, with,
    },
};

fn pool() -> PoolId {
    POOL.into()
}

fn ids(view: Option<&Arc<View>>) -> Vec<&str> {
    view.map_or_else(Vec::new, |view| view.candidates.iter().map(|c| &*c.id).collect())
}

/// The only instance that there is, as a candidate.
fn alone(member: Member) -> Candidate {
    snapshot(vec![region("us")], vec![member]).instances_at_home(&pool()).unwrap().candidates[0]
        .clone()
}

/// `us` as the sum of its instances.
fn whole(us: Region, members: Vec<Member>) -> Candidate {
    snapshot(vec![us], members).regions_with(&pool()).unwrap().candidates[0].clone()
}

#[test]
fn only_an_available_fresh_instance_that_is_not_unhealthy_is_ready() {
    let life = |lifecycle| reporting("i-1", "us", |report| report.lifecycle = lifecycle);
    let wanted = |state| {
        with(member("i-1", "us"), |member| {
            member.standing_mut().desired = Some(Desired {
                instance: "i-1".into(),
                region: "us".into(),
                state,
                reason: None,
                operator: None,
                automatic: false,
                at: Timestamp(0),
                writer_region: "eu".into(),
                stamp: Stamp { epoch: 0, sequence: 1 },
            });
        })
    };
    let health = |health| reporting("i-1", "us", |report| report.health = health);
    let generation = |generation| reporting("i-1", "us", |it| it.generation = generation);
    for (what, member, ready) in [
        ("healthy", member("i-1", "us"), true),
        ("degraded", health(Health::Degraded), true),
        ("unhealthy", health(Health::Unhealthy), false),
        ("registering", life(Lifecycle::Registering), false),
        ("draining", life(Lifecycle::Draining), false),
        ("cleaning", life(Lifecycle::Cleaning), false),
        ("quarantined", life(Lifecycle::Quarantined), false),
        ("terminated", life(Lifecycle::Terminated), false),
        ("wanted in service", wanted(DesiredState::Serving), true),
        ("wanted drained", wanted(DesiredState::Draining), false),
        ("wanted in quarantine", wanted(DesiredState::Quarantined), false),
        ("stale", Member { seen: Seen::Stale, ..member("i-1", "us") }, false),
        ("failing", Member { seen: Seen::Failing, ..member("i-1", "us") }, false),
        ("silent", with(member("i-1", "us"), |it| it.standing_mut().report = None), false),
        ("of an earlier generation", generation(1), false),
        ("of a later generation", generation(3), false),
    ] {
        let all = snapshot(vec![region("us")], vec![member]);
        assert_eq!(all.instances_at_home(&pool()).unwrap().candidates[0].ready, ready, "{what}");
        assert_eq!(
            all.regions_with(&pool()).unwrap().candidates[0].ready,
            ready,
            "{what}: its region"
        );
    }
}

#[test]
fn a_last_resort_is_out_only_by_evidence_that_may_be_wrong() {
    use Health::{Degraded, Healthy, Unhealthy};
    use Lifecycle::{Available, Draining, Quarantined, Registering};
    for (seen, lifecycle, health, expected) in [
        (Seen::Stale, Available, Healthy, true),
        (Seen::Failing, Available, Degraded, true),
        (Seen::Well, Available, Healthy, false),
        (Seen::Stale, Available, Unhealthy, false),
        (Seen::Failing, Available, Unhealthy, false),
        (Seen::Stale, Draining, Healthy, false),
        (Seen::Failing, Quarantined, Healthy, false),
        (Seen::Failing, Registering, Healthy, false),
    ] {
        let willing = reporting("i-1", "us", |report| {
            (report.lifecycle, report.health) = (lifecycle, health);
        });
        let case = Member { seen, ..willing };
        let candidate = alone(case.clone());
        assert_eq!(candidate.last_resort, expected, "{seen:?}, {lifecycle:?}, {health:?}");
        assert!(!expected || !candidate.ready);
        assert_eq!(whole(region("us"), vec![case.clone()]).last_resort, expected);
        // A region that has somebody better is none.
        let others = vec![case, member("i-2", "us")];
        assert!(!whole(region("us"), others).last_resort);
    }
}

#[test]
fn one_whose_probes_fail_is_unhealthy_whatever_it_says() {
    let failing = Member { seen: Seen::Failing, ..member("i-1", "us") };
    let expected = Candidate {
        ready: false,
        last_resort: true,
        health: Health::Unhealthy,
        health_score: 0.0,
        healthy_instances: 0,
        ..candidate("i-1")
    };
    assert_eq!(alone(failing), expected);
}

#[test]
fn a_region_of_last_resorts_has_their_enclaves_and_one_of_others_has_not() {
    let ready = member("i-2", "us");
    for (seen, lifecycle, expected) in [
        (Seen::Stale, Lifecycle::Available, EnclaveState::Running),
        (Seen::Stale, Lifecycle::Draining, EnclaveState::Absent),
    ] {
        let member = reporting("i-1", "us", |report| {
            measured(report);
            report.lifecycle = lifecycle;
        });
        let case = Member { seen, ..member };
        assert_eq!(whole(region("us"), vec![case.clone()]).enclave, expected);
        // Where somebody is ready, only the ready count.
        assert_eq!(whole(region("us"), vec![case, ready.clone()]).enclave, EnclaveState::Absent);
    }
}

#[test]
fn how_an_instance_looks_changes_its_candidate_although_it_says_the_same() {
    let (mut builder, well) = (Builder::new("us".into()), member("i-1", "us"));
    for seen in [Seen::Well, Seen::Stale, Seen::Failing, Seen::Well] {
        let members = vec![Member { seen, ..well.clone() }];
        let next = builder.build(Timestamp(1), vec![region("us")], members, &BTreeMap::new());
        let candidate = &next.instances_at_home(&pool()).unwrap().candidates[0];
        assert_eq!(candidate.ready, seen == Seen::Well, "{seen:?}");
        assert_eq!(candidate.health == Health::Unhealthy, seen == Seen::Failing, "{seen:?}");
    }
}

fn measured(report: &mut Report) {
    report.queue_depth = Some(3);
    report.running = Some(6);
    report.avg_latency_ms = Some(120.0);
    report.time_to_first_token_ms = Some(40.0);
    report.models = names(&["llama"]);
    report.enclave = EnclaveState::Running;
    report.gpu_utilization = Some(0.5);
    report.gpu_memory_free_bytes = Some(1 << 30);
}

#[test]
fn a_report_of_another_generation_says_nothing() {
    let zombie = reporting("i-1", "us", |report| {
        measured(report);
        report.generation = 1;
    });
    let expected = Candidate {
        ready: false,
        health: Health::Unhealthy,
        health_score: 0.0,
        healthy_instances: 0,
        ..candidate("i-1")
    };
    assert_eq!(alone(zombie), expected);
}

#[test]
fn an_instance_has_its_own_facts_and_its_regions() {
    let location = Location { latitude: 39.0, longitude: -77.5 };
    let us = with(region("us"), |region| {
        region.provider = Some("aws".to_owned());
        region.location = Some(location);
        region.frameworks = names(&["soc2", "hipaa"]);
        region.cost_multiplier = 1.5;
        region.carbon_intensity = Some(380.0);
    });
    let slow = |it: &mut Registration| {
        it.zone = Some("us-1a".to_owned());
        it.slots = Some(8);
        it.cost_per_hour = Some(12.5);
        it.frameworks = names(&["hipaa", "gdpr"]);
    };
    let one = with(reporting("i-1", "us", measured), |it| slow(it.registration_mut()));
    let elsewhere = registered("i-2", "us", |it| it.provider = Some("metal".to_owned()));
    let snapshot = snapshot(vec![us], vec![one, elsewhere]);
    let candidates = &snapshot.instances_at_home(&pool()).unwrap().candidates;
    let expected = Candidate {
        zone: Some("us-1a".into()),
        provider: Some("aws".into()),
        location: Some(location),
        queue_depth: Some(3.0),
        running: Some(6),
        avg_latency_ms: Some(120.0),
        time_to_first_token_ms: Some(40.0),
        utilization: Some(0.75),
        slots: Some(8),
        gpu_utilization: Some(0.5),
        gpu_memory_free_bytes: Some(1 << 30),
        cost_multiplier: Some(1.5),
        cost_per_hour: Some(12.5),
        carbon_intensity: Some(380.0),
        enclave: EnclaveState::Running,
        frameworks: names(&["soc2", "hipaa", "gdpr"]),
        models: names(&["llama"]),
        ..candidate("i-1")
    };
    assert_eq!(candidates[0], expected);
    assert_eq!(candidates[1].provider.as_deref(), Some("metal"));
}

#[test]
fn what_was_not_measured_is_not_there() {
    assert_eq!(alone(member("i-1", "us")), candidate("i-1"));
}

#[test]
fn an_instance_of_an_unregistered_region_is_left_out() {
    let members = vec![member("i-us", "us"), member("i-mars", "mars")];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(ids(snapshot.regions_with(&pool())), ["us"]);
    assert_eq!(ids(snapshot.instances_at_home(&pool())), ["i-us"]);
    assert_eq!(snapshot.views().count(), 2);
    // People see it all the same.
    let known: Vec<_> = snapshot.instances.iter().map(|it| it.registration.id.as_str()).collect();
    assert_eq!(known, ["i-mars", "i-us"]);
}

#[test]
fn a_region_is_the_sum_of_its_ready_instances() {
    let us = with(region("us"), |region| region.frameworks = names(&["soc2"]));
    let slow = |queue, running, latency| {
        move |report: &mut Report| {
            measured(report);
            (report.queue_depth, report.running) = (Some(queue), Some(running));
            (report.avg_latency_ms, report.gpu_utilization) = (Some(latency), Some(latency / 1e3));
        }
    };
    let slots = |slots, member: Member| {
        with(member, |it| {
            it.registration_mut().slots = Some(slots);
            it.registration_mut().cost_per_hour = Some(f64::from(slots));
        })
    };
    let degraded = with(reporting("i-2", "us", slow(4, 3, 300.0)), |it| {
        let report = it.standing_mut().report.as_mut().unwrap();
        (report.health, report.enclave) = (Health::Degraded, EnclaveState::Attested);
        it.registration_mut().frameworks = names(&["gdpr"]);
    });
    let draining = with(reporting("i-3", "us", slow(90, 90, 900.0)), |it| {
        it.standing_mut().report.as_mut().unwrap().lifecycle = Lifecycle::Draining;
    });
    let stale = Member { seen: Seen::Stale, ..reporting("i-4", "us", slow(90, 90, 900.0)) };
    let members = vec![
        slots(4, reporting("i-1", "us", slow(1, 2, 100.0))),
        slots(16, degraded),
        slots(64, draining),
        slots(64, stale),
    ];
    let expected = Candidate {
        level: Level::Region,
        address: "http://us.test".into(),
        health: Health::Healthy,
        health_score: 37.5,
        queue_depth: Some(2.5),
        running: Some(5),
        avg_latency_ms: Some(200.0),
        time_to_first_token_ms: Some(40.0),
        utilization: Some(0.25),
        slots: Some(20),
        rtt_ms: Some(0.0),
        gpu_utilization: Some(0.2),
        gpu_memory_free_bytes: Some(2 << 30),
        cost_per_hour: Some(10.0),
        enclave: EnclaveState::Attested,
        frameworks: names(&["gdpr", "soc2"]),
        models: names(&["llama"]),
        instances: 4,
        healthy_instances: 1,
        ..candidate("us")
    };
    assert_eq!(whole(us, members), expected);
}

#[test]
fn a_region_with_none_ready_is_unhealthy_and_carries_nothing() {
    let draining = reporting("i-1", "us", |report| {
        measured(report);
        report.lifecycle = Lifecycle::Draining;
    });
    let expected = Candidate {
        level: Level::Region,
        address: "http://us.test".into(),
        ready: false,
        health: Health::Unhealthy,
        health_score: 0.0,
        rtt_ms: Some(0.0),
        models: names(&["llama"]),
        healthy_instances: 0,
        ..candidate("us")
    };
    assert_eq!(whole(region("us"), vec![draining]), expected);
}

#[test]
fn a_region_has_its_instances_slots_up_to_its_capacity() {
    for (each, max_capacity, expected) in [
        (&[Some(8), Some(4)][..], None, Some(12)),
        (&[Some(8), Some(4)], Some(10), Some(10)),
        (&[Some(8), Some(4)], Some(100), Some(12)),
        (&[Some(8), None], None, Some(8)),
        (&[None, None], Some(10), Some(10)),
        (&[None, None], None, None),
        (&[Some(u32::MAX), Some(1)], None, Some(u32::MAX)),
    ] {
        let us = with(region("us"), |region| region.max_capacity = max_capacity);
        let members = each
            .iter()
            .enumerate()
            .map(|(i, slots)| registered(&format!("i-{i}"), "us", |it| it.slots = *slots));
        assert_eq!(whole(us, members.collect()).slots, expected, "{each:?}, {max_capacity:?}");
    }
}

#[test]
fn utilization_is_running_over_slots_up_to_all() {
    for (running, slots, expected) in [
        (Some(2), Some(8), Some(0.25)),
        (Some(9), Some(8), Some(1.0)),
        (Some(0), Some(8), Some(0.0)),
        (Some(2), Some(0), None),
        (Some(2), None, None),
        (None, Some(8), None),
    ] {
        let one = with(reporting("i-1", "us", |report| report.running = running), |it| {
            it.registration_mut().slots = slots;
        });
        assert_eq!(alone(one).utilization, expected, "{running:?} of {slots:?}");
    }
}

#[test]
fn round_trips_are_none_at_home_and_unknown_where_unmeasured() {
    let members = REGIONS.map(|id| member(&format!("i-{id}"), id)).to_vec();
    let rtt = BTreeMap::from([("eu".into(), 80.0), ("us".into(), 5.0)]);
    let mut builder = Builder::new("us".into());
    let snapshot = builder.build(Timestamp(1), REGIONS.map(region).to_vec(), members, &rtt);
    let regions = &snapshot.regions_with(&pool()).unwrap().candidates;
    let measured: Vec<_> = regions.iter().map(|c| (&*c.id, c.rtt_ms)).collect();
    assert_eq!(measured, [("ap", None), ("eu", Some(80.0)), ("us", Some(0.0))]);
}

#[test]
fn pools_are_found_by_the_models_they_serve() {
    let serving = |id: &str, region: &str, pool: &str, models: &[&'static str]| {
        with(reporting(id, region, |report| report.models = names(models)), |it| {
            it.registration_mut().pool = pool.into();
        })
    };
    let members = vec![
        serving("i-1", "us", "chat", &["llama", "mixtral"]),
        serving("i-2", "eu", "chat", &["llama"]),
        serving("i-3", "us", "code", &["llama"]),
        serving("i-4", "us", "idle", &[]),
        serving("i-5", "mars", "lost", &["mixtral"]),
    ];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(snapshot.pools_serving("llama"), ["chat".into(), "code".into()]);
    assert_eq!(snapshot.pools_serving("mixtral"), ["chat".into()]);
    assert_eq!(snapshot.pools_serving("gpt"), []);
    let pools: Vec<_> = snapshot.pools().map(PoolId::as_str).collect();
    assert_eq!(pools, ["chat", "code", "idle"]);
}

#[test]
fn views_are_told_apart_by_level_region_and_pool() {
    let code = registered("i-3", "us", |it| it.pool = "code".into());
    let members = vec![member("i-2", "us"), member("i-1", "us"), code, member("i-4", "eu")];
    let snapshot = snapshot(vec![region("us"), region("eu")], members);
    assert_eq!(ids(snapshot.instances_at_home(&pool())), ["i-1", "i-2"]);
    assert_eq!(ids(snapshot.regions_with(&pool())), ["eu", "us"]);
    assert_eq!(ids(snapshot.regions_with(&"code".into())), ["us"]);
    assert_eq!(ids(snapshot.regions_with(&"none".into())), [""; 0]);
    let abroad = ViewKey { level: Level::Instance, region: Some("eu".into()), pool: pool() };
    assert_eq!(ids(snapshot.view(&abroad)), ["i-4"]);
    assert_eq!(snapshot.views().count(), 5);
}

#[test]
fn each_snapshot_has_the_next_version() {
    let mut builder = Builder::new("us".into());
    let versions = [5, 3].map(|at| {
        let snapshot = builder.build(Timestamp(at), vec![], vec![], &BTreeMap::new());
        (snapshot.version, snapshot.at)
    });
    assert_eq!(versions, [(1, Timestamp(5)), (2, Timestamp(3))]);
}

#[test]
fn a_view_that_did_not_change_is_shared_with_the_last_snapshot() {
    let mut builder = Builder::new("us".into());
    let mut build = |eu: Member| {
        let members = vec![member("i-us", "us"), eu];
        let regions = vec![region("us"), region("eu")];
        builder.build(Timestamp(1), regions, members, &BTreeMap::new())
    };
    let busy = |queue| reporting("i-eu", "eu", |report| report.queue_depth = Some(queue));
    let same = |one: &Snapshot, other: &Snapshot| -> Vec<_> {
        let pairs = one.shared_views().zip(other.shared_views());
        pairs.map(|(one, other)| Arc::ptr_eq(one, other)).collect()
    };
    let (first, second, third) = (build(busy(1)), build(busy(1)), build(busy(2)));
    assert_eq!(same(&first, &second), [true, true, true]);
    // In order: the regions, `eu`'s instances, `us`'s.
    assert_eq!(same(&second, &third), [false, false, true]);
    assert_eq!(third.views().nth(1).unwrap().candidates[0].queue_depth, Some(2.0));
    assert_eq!(second.views().nth(1).unwrap().candidates[0].queue_depth, Some(1.0));
}

#[test]
fn a_snapshot_can_be_told_in_json() {
    let snapshot = snapshot(vec![region("us")], vec![member("i-1", "us")]);
    let told = serde_json::to_value(&snapshot).unwrap();
    let views = told["views"].as_array().unwrap();
    assert_eq!(views.len(), 2);
    assert_eq!(views[1]["level"], "instance");
    assert_eq!(views[1]["pool"], POOL);
    assert_eq!(views[1]["candidates"][0]["id"], "i-1");
}

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
