//! An instance as a candidate.

use super::*;
use crate::{
    model::{DesiredState, Registration},
    testing::desired,
};

#[test]
fn only_an_available_fresh_instance_that_is_not_unhealthy_is_ready() {
    let life = |lifecycle| reporting("i-1", "us", |report| report.lifecycle = lifecycle);
    let wanted = |state| {
        with(member("i-1", "us"), |member| {
            member.standing_mut().desired = Some(desired("i-1", state));
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
