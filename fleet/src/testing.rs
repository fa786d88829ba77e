//! A fleet for tests, in as few words as a case needs: what is not said is ordinary and ready.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use proptest::{prelude::*, sample::subsequence, test_runner::TestCaseError};

use crate::{
    guard::PlacementRule,
    model::{
        Desired, DesiredState, EnclaveState, Framework, Health, Lifecycle, Needs, Region, RegionId,
        Registration, Report, Stamp, Standing, Timestamp,
    },
    snapshot::{Builder, Candidate, Level, Member, Seen, Snapshot, View, ViewKey},
};

pub(crate) const POOL: &str = "chat";
pub(crate) const REGIONS: [&str; 3] = ["eu", "us", "ap"];
pub(crate) const FRAMEWORKS: [&str; 3] = ["gdpr", "hipaa", "soc2"];

/// A value with a change to it.
pub(crate) fn with<T>(mut value: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut value);
    value
}

pub(crate) fn names<T: From<&'static str>, C: FromIterator<T>>(names: &[&'static str]) -> C {
    names.iter().map(|name| T::from(name)).collect()
}

/// A region that satisfies nothing in particular.
pub(crate) fn region(id: &str) -> Region {
    Region {
        id: id.into(),
        name: String::new(),
        provider: None,
        location: None,
        endpoint: format!("http://{id}.test"),
        frameworks: Vec::new(),
        cost_multiplier: 1.0,
        carbon_intensity: None,
        max_capacity: None,
        shards: 4,
    }
}

impl Member {
    pub(crate) fn standing_mut(&mut self) -> &mut Standing {
        Arc::make_mut(&mut self.standing)
    }

    pub(crate) fn registration_mut(&mut self) -> &mut Registration {
        Arc::make_mut(&mut self.standing_mut().registration)
    }
}

/// An available, healthy, fresh instance that measured nothing.
pub(crate) fn member(id: &str, region: &str) -> Member {
    let registration = Registration {
        health_address: format!("{id}.test:8080"),
        generation: 2,
        ..Registration::new(id, region, POOL, format!("{id}.test:8000"))
    };
    let report = Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        ..Report::new(id, region, 2, 7)
    };
    Member { standing: Standing::new(registration, Some(report)).into(), seen: Seen::Well }
}

/// A member with a change to what it registered.
pub(crate) fn registered(id: &str, region: &str, change: impl FnOnce(&mut Registration)) -> Member {
    with(member(id, region), |member| change(member.registration_mut()))
}

/// A member with a change to what it reported.
pub(crate) fn reporting(id: &str, region: &str, change: impl FnOnce(&mut Report)) -> Member {
    with(member(id, region), |member| {
        if let Some(report) = &mut member.standing_mut().report {
            change(report);
        }
    })
}

/// What a person in `us` wants of an instance there.
pub(crate) fn desired(instance: &str, state: DesiredState) -> Desired {
    Desired {
        instance: instance.into(),
        region: "us".into(),
        state,
        reason: None,
        operator: None,
        automatic: false,
        at: Timestamp(0),
        writer_region: "us".into(),
        stamp: Stamp::default(),
    }
}

/// What a router in `us` makes of them.
pub(crate) fn snapshot(regions: Vec<Region>, members: Vec<Member>) -> Snapshot {
    Builder::new("us".into()).build(Timestamp(1), regions, members, &BTreeMap::new())
}

/// A ready, healthy instance in `us` that measured nothing.
pub(crate) fn candidate(id: &str) -> Candidate {
    Candidate {
        id: id.into(),
        level: Level::Instance,
        region: "us".into(),
        pool: POOL.into(),
        address: format!("{id}.test:8000").into(),
        ready: true,
        last_resort: false,
        zone: None,
        provider: None,
        location: None,
        health: Health::Healthy,
        health_score: 100.0,
        queue_depth: None,
        running: None,
        avg_latency_ms: None,
        time_to_first_token_ms: None,
        utilization: None,
        slots: None,
        rtt_ms: None,
        gpu_utilization: None,
        gpu_memory_free_bytes: None,
        cost_multiplier: Some(1.0),
        cost_per_hour: None,
        carbon_intensity: None,
        enclave: EnclaveState::Absent,
        frameworks: Arc::default(),
        models: Arc::default(),
        instances: 1,
        healthy_instances: 1,
    }
}

pub(crate) fn view(candidates: Vec<Candidate>) -> View {
    let key = ViewKey { level: Level::Instance, region: Some("us".into()), pool: POOL.into() };
    View { id: 0, key, candidates }
}

/// Some of the names, maybe none.
pub(crate) fn some<T: From<&'static str> + Debug>(
    of: &'static [&'static str],
) -> impl Strategy<Value = Vec<T>> {
    subsequence(of, 0..=of.len()).prop_map(|chosen| names(&chosen))
}

pub(crate) fn some_needs() -> impl Strategy<Value = Needs> {
    let rarely = || prop::bool::weighted(0.1);
    (some(&FRAMEWORKS), some(&REGIONS), rarely(), rarely(), rarely()).prop_map(
        |(frameworks, allowed_regions, enclave, attested, contradictory)| Needs {
            frameworks,
            allowed_regions,
            enclave,
            attested,
            contradictory,
        },
    )
}

pub(crate) fn some_rules() -> impl Strategy<Value = Vec<PlacementRule>> {
    let rule = (some(&FRAMEWORKS), some(&REGIONS)).prop_map(|(frameworks, allowed_regions)| {
        PlacementRule { name: "rule".to_owned(), frameworks, allowed_regions }
    });
    prop::collection::vec(rule, 0..3)
}

pub(crate) fn some_health() -> impl Strategy<Value = Health> {
    prop::sample::select(vec![Health::Healthy, Health::Degraded, Health::Unhealthy])
}

pub(crate) fn some_enclave() -> impl Strategy<Value = EnclaveState> {
    use EnclaveState::{Absent, Attested, Running};
    prop::sample::select(vec![Absent, Running, Attested])
}

/// Instances of any kind, in any of the regions; named by their place in the list.
pub(crate) fn some_candidates(most: usize) -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        prop::bool::weighted(0.8),
        prop::sample::select(REGIONS.to_vec()),
        some::<Framework>(&FRAMEWORKS),
        some::<String>(&["llama", "mixtral"]),
        some_enclave(),
        some_health(),
        prop::option::of(0.0..30.0),
        prop::option::of(0.0..2_000.0),
    );
    prop::collection::vec(one, 0..most).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(i, one)| {
            let (ready, region, frameworks, models, enclave, health, queue_depth, latency) = one;
            Candidate {
                ready,
                region: RegionId::from(region),
                frameworks: frameworks.into(),
                models: models.into(),
                enclave,
                health,
                health_score: health.score(),
                queue_depth,
                avg_latency_ms: latency,
                ..candidate(&format!("i-{i}"))
            }
        });
        named.collect()
    })
}

/// A few opinions, in two orders.
pub(crate) fn some_in_two_orders<T: Clone + Debug>(
    one: impl Strategy<Value = T>,
) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    let some = prop::collection::vec(one, 1..6);
    some.prop_flat_map(|some| (Just(some.clone()), Just(some).prop_shuffle()))
}

/// That it does not matter in which order, or how often, opinions are merged.
pub(crate) fn merge_alike<T: Clone + Debug + PartialEq>(
    (mut all, shuffled): (Vec<T>, Vec<T>),
    merge: fn(T, T) -> T,
) -> Result<(), TestCaseError> {
    let merged = |all: &[T]| all.iter().cloned().reduce(merge);
    let expected = merged(&all);
    prop_assert_eq!(merged(&shuffled), expected.clone());
    all.extend(shuffled);
    prop_assert_eq!(merged(&all), expected.clone());
    // Replicas that merged some already come to the same.
    let (some, rest) = all.split_at(all.len() / 2);
    let halves: Vec<_> = [merged(some), merged(rest)].into_iter().flatten().collect();
    prop_assert_eq!(merged(&halves), expected);
    Ok(())
}
