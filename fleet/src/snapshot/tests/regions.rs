//! A region as the sum of its instances.

use super::*;

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
fn round_trips_are_none_at_home_and_unknown_where_unmeasured() {
    let members = REGIONS.map(|id| member(&format!("i-{id}"), id)).to_vec();
    let rtt = BTreeMap::from([("eu".into(), 80.0), ("us".into(), 5.0)]);
    let mut builder = Builder::new("us".into());
    let snapshot = builder.build(Timestamp(1), REGIONS.map(region).to_vec(), members, &rtt);
    let regions = &snapshot.regions_with(&pool()).unwrap().candidates;
    let measured: Vec<_> = regions.iter().map(|c| (&*c.id, c.rtt_ms)).collect();
    assert_eq!(measured, [("ap", None), ("eu", Some(80.0)), ("us", Some(0.0))]);
}
