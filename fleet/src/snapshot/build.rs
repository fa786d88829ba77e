//! Makes snapshots from what is registered and reported.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use super::{Candidate, Level, PoolViews, Snapshot, View, ViewKey};
use crate::model::{
    EnclaveState, Health, InstanceId, Lifecycle, PoolId, Region, RegionId, Registration, Standing,
    Timestamp,
};

/// An instance, with what its reader knows of it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The same allocation from one snapshot to the next where nothing changed.
    pub standing: Arc<Standing>,
    pub seen: Seen,
}

impl Member {
    /// Whether it takes new requests: it says so, nobody wants otherwise, and nothing contradicts it.
    pub fn is_ready(&self) -> bool {
        self.seen == Seen::Well && is_willing(&self.standing)
    }
}

/// How an instance looks to its reader, whatever it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its reports come, and no probe contradicts them.
    Well,
    /// Its reports do not come any more, by the reader's clock.
    Stale,
    /// Its probes failed too often.
    Failing,
}

/// Makes one snapshot after another, with stable view ids. What did not change is taken over from the
/// snapshot before.
#[derive(Debug)]
pub struct Builder {
    home: RegionId,
    version: u64,
    ids: BTreeMap<ViewKey, u32>,
    views: BTreeMap<ViewKey, Arc<View>>,
    regions: Vec<Region>,
    /// By the instance's id.
    candidates: Vec<Made>,
}

/// A candidate, and what it was made of.
#[derive(Debug)]
struct Made {
    member: Member,
    /// The id of its view.
    view: u32,
    candidate: Candidate,
}

impl Made {
    fn id(&self) -> &InstanceId {
        &self.member.standing.registration.id
    }

    fn is_of(&self, member: &Member) -> bool {
        Arc::ptr_eq(&self.member.standing, &member.standing) && self.member.seen == member.seen
    }
}

impl Builder {
    pub fn new(home: RegionId) -> Self {
        Self {
            home,
            version: 0,
            ids: BTreeMap::new(),
            views: BTreeMap::new(),
            regions: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// `rtt_ms` holds the measured round trip to other regions' routers. An instance of an
    /// unregistered region is left out: nothing is known of where it is.
    pub fn build(
        &mut self,
        at: Timestamp,
        mut regions: Vec<Region>,
        mut members: Vec<Member>,
        rtt_ms: &BTreeMap<RegionId, f64>,
    ) -> Snapshot {
        self.version += 1;
        regions.sort_by(|a, b| a.id.cmp(&b.id));
        members.sort_by(|a, b| a.standing.registration.id.cmp(&b.standing.registration.id));

        if self.regions != regions {
            self.candidates.clear();
            self.regions.clone_from(&regions);
        }

        let mut groups = self.instances_by_view(&members);
        let mut wholes: BTreeMap<ViewKey, Vec<Candidate>> = BTreeMap::new();
        for (key, candidates) in &groups {
            let region = key.region.as_ref().and_then(|id| regions.iter().find(|r| r.id == *id));
            let Some(region) = region else { continue };
            let rtt =
                if region.id == self.home { Some(0.0) } else { rtt_ms.get(&region.id).copied() };
            let whole = whole_region(region, &key.pool, candidates, rtt);
            let key = ViewKey { level: Level::Region, region: None, pool: key.pool.clone() };
            wholes.entry(key).or_default().push(whole);
        }
        groups.append(&mut wholes);
        let pools_by_model = pools_by_model(&groups);
        self.views =
            groups.into_iter().map(|(key, candidates)| self.view(key, candidates)).collect();
        Snapshot {
            version: self.version,
            at,
            home: self.home.clone(),
            regions,
            instances: members.into_iter().map(|m| m.standing).collect(),
            by_pool: PoolViews::of(&self.views, &self.home),
            views: self.views.clone(),
            pools_by_model,
            steering: Arc::default(),
        }
    }

    /// Candidates of all instances in registered regions. The members are in the order of their ids, as
    /// those before them were, so that both are walked through once.
    fn instances_by_view(&mut self, members: &[Member]) -> BTreeMap<ViewKey, Vec<Candidate>> {
        let mut groups: Vec<Vec<Candidate>> = Vec::new();
        let mut before = mem::take(&mut self.candidates).into_iter().peekable();
        for member in members {
            let registration = &member.standing.registration;
            while before.next_if(|made| *made.id() < registration.id).is_some() {}
            let (view, mut candidate) = match before.next_if(|made| *made.id() == registration.id) {
                Some(made) if made.is_of(member) => (made.view, made.candidate),
                Some(made) if Arc::ptr_eq(&made.member.standing.registration, registration) => {
                    (made.view, reported(made.candidate, member))
                }
                _ => {
                    let region = self.regions.iter().find(|r| r.id == registration.region);
                    let Some(region) = region else { continue };
                    let candidate = reported(registered(region, registration), member);
                    (self.view_id(&instances_of(registration)), candidate)
                }
            };
            let at = view as usize;
            groups.resize_with(groups.len().max(at + 1), Vec::new);
            let group = &mut groups[at];
            // Instances that serve the same share one list, so that a decision looks at it once.
            if let Some(last) = group.last().filter(|last| last.models == candidate.models) {
                candidate.models = last.models.clone();
            }
            group.push(candidate.clone());
            self.candidates.push(Made { member: member.clone(), view, candidate });
        }
        let group = |(key, id): (&ViewKey, &u32)| {
            let group =
                groups.get_mut(*id as usize).map(mem::take).filter(|all| !all.is_empty())?;
            Some((key.clone(), group))
        };
        self.ids.iter().filter_map(group).collect()
    }

    /// The id of a view, the same in each snapshot.
    fn view_id(&mut self, key: &ViewKey) -> u32 {
        let next = self.ids.len() as u32;
        *self.ids.entry(key.clone()).or_insert(next)
    }

    /// The view of a key: the last snapshot's where nothing changed.
    fn view(&mut self, key: ViewKey, candidates: Vec<Candidate>) -> (ViewKey, Arc<View>) {
        let view = View { id: self.view_id(&key), key: key.clone(), candidates };
        match self.views.get(&key) {
            Some(same) if **same == view => (key, same.clone()),
            _ => (key, Arc::new(view)),
        }
    }
}

/// The key of the view in which an instance is.
fn instances_of(registration: &Registration) -> ViewKey {
    let Registration { region, pool, .. } = registration;
    ViewKey { level: Level::Instance, region: Some(region.clone()), pool: pool.clone() }
}

/// An instance that has not reported.
fn registered(region: &Region, registration: &Registration) -> Candidate {
    let mut frameworks = region.frameworks.clone();
    frameworks
        .extend(registration.frameworks.iter().filter(|f| !region.frameworks.contains(f)).cloned());
    Candidate {
        id: registration.id.as_str().into(),
        level: Level::Instance,
        region: region.id.clone(),
        pool: registration.pool.clone(),
        address: registration.address.as_str().into(),
        ready: false,
        last_resort: false,
        zone: registration.zone.as_deref().map(Into::into),
        provider: registration.provider.as_deref().or(region.provider.as_deref()).map(Into::into),
        location: region.location,
        health: Health::Unhealthy,
        health_score: Health::Unhealthy.score(),
        queue_depth: None,
        running: None,
        avg_latency_ms: None,
        time_to_first_token_ms: None,
        utilization: None,
        slots: registration.slots,
        rtt_ms: None,
        gpu_utilization: None,
        gpu_memory_free_bytes: None,
        cost_multiplier: Some(region.cost_multiplier),
        cost_per_hour: registration.cost_per_hour,
        carbon_intensity: region.carbon_intensity,
        enclave: EnclaveState::Absent,
        frameworks: frameworks.into(),
        models: Arc::default(),
        instances: 1,
        healthy_instances: 0,
    }
}

/// A candidate of the same registration, with what its instance reports now.
fn reported(candidate: Candidate, member: &Member) -> Candidate {
    let Standing { registration, report, .. } = &*member.standing;
    // A report of an earlier generation says nothing about this one.
    let report = report.as_ref().filter(|r| r.generation == registration.generation);
    let health = match member.seen {
        Seen::Failing => Health::Unhealthy,
        Seen::Well | Seen::Stale => report.map_or(Health::Unhealthy, |r| r.health),
    };
    let running = report.and_then(|r| r.running);
    let models = report.map_or(&[][..], |r| &r.models);
    Candidate {
        ready: member.is_ready(),
        last_resort: member.seen != Seen::Well && is_willing(&member.standing),
        health,
        health_score: health.score(),
        queue_depth: report.and_then(|r| r.queue_depth).map(f64::from),
        running,
        avg_latency_ms: report.and_then(|r| r.avg_latency_ms),
        time_to_first_token_ms: report.and_then(|r| r.time_to_first_token_ms),
        utilization: utilization(running, registration.slots),
        gpu_utilization: report.and_then(|r| r.gpu_utilization),
        gpu_memory_free_bytes: report.and_then(|r| r.gpu_memory_free_bytes),
        enclave: report.map_or(EnclaveState::Absent, |r| r.enclave),
        models: if *models == *candidate.models { candidate.models } else { models.into() },
        healthy_instances: u32::from(health == Health::Healthy),
        ..candidate
    }
}

/// Whether it takes new requests by its own word, and nobody wants otherwise.
fn is_willing(standing: &Standing) -> bool {
    standing.lifecycle() == Lifecycle::Available
        && standing.report.as_ref().is_some_and(|report| report.health != Health::Unhealthy)
}

/// A region as the sum of a pool's instances there. Only those that are ready count for its load.
fn whole_region(
    region: &Region,
    pool: &PoolId,
    instances: &[Candidate],
    rtt_ms: Option<f64>,
) -> Candidate {
    let ready: Vec<_> = instances.iter().filter(|i| i.ready).collect();
    // Where nobody is ready, what could still be tried tells whether the guard lets a request try it.
    let is_tried = |i: &&Candidate| i.ready || (ready.is_empty() && i.last_resort);
    let mean = |value: fn(&Candidate) -> Option<f64>| mean(ready.iter().filter_map(|i| value(i)));
    let sum = |value: fn(&Candidate) -> Option<u32>| {
        ready.iter().filter_map(|i| value(i)).reduce(u32::saturating_add)
    };
    let slots = match (sum(|i| i.slots), region.max_capacity) {
        (Some(slots), Some(most)) => Some(slots.min(most)),
        (slots, most) => slots.or(most),
    };
    let healthy = instances.iter().filter(|i| i.ready && i.health == Health::Healthy).count();
    let models: BTreeSet<_> = instances.iter().flat_map(|i| &*i.models).collect();
    let frameworks: BTreeSet<_> =
        instances.iter().flat_map(|i| &*i.frameworks).chain(&region.frameworks).collect();
    Candidate {
        id: region.id.as_str().into(),
        level: Level::Region,
        region: region.id.clone(),
        pool: pool.clone(),
        address: region.endpoint.as_str().into(),
        ready: !ready.is_empty(),
        last_resort: ready.is_empty() && instances.iter().any(|i| i.last_resort),
        zone: None,
        provider: region.provider.as_deref().map(Into::into),
        location: region.location,
        health: ready.iter().map(|i| i.health).min().unwrap_or_default(),
        health_score: mean_or_zero(
            instances.iter().map(|i| if i.ready { i.health_score } else { 0.0 }),
        ),
        queue_depth: mean(|i| i.queue_depth),
        running: sum(|i| i.running),
        avg_latency_ms: mean(|i| i.avg_latency_ms),
        time_to_first_token_ms: mean(|i| i.time_to_first_token_ms),
        utilization: utilization(sum(|i| i.running), slots),
        slots,
        rtt_ms,
        gpu_utilization: mean(|i| i.gpu_utilization),
        gpu_memory_free_bytes: ready
            .iter()
            .filter_map(|i| i.gpu_memory_free_bytes)
            .reduce(u64::saturating_add),
        cost_multiplier: Some(region.cost_multiplier),
        cost_per_hour: mean(|i| i.cost_per_hour),
        carbon_intensity: region.carbon_intensity,
        enclave: instances.iter().filter(is_tried).map(|i| i.enclave).max().unwrap_or_default(),
        frameworks: frameworks.into_iter().cloned().collect(),
        models: models.into_iter().cloned().collect(),
        instances: instances.len() as u32,
        healthy_instances: healthy as u32,
    }
}

fn utilization(running: Option<u32>, slots: Option<u32>) -> Option<f64> {
    match (running, slots) {
        (Some(running), Some(slots)) if slots > 0 => {
            Some((f64::from(running) / f64::from(slots)).min(1.0))
        }
        _ => None,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn mean_or_zero(values: impl Iterator<Item = f64>) -> f64 {
    mean(values).unwrap_or(0.0)
}

fn pools_by_model(groups: &BTreeMap<ViewKey, Vec<Candidate>>) -> BTreeMap<String, Vec<PoolId>> {
    let mut pools: BTreeMap<String, Vec<PoolId>> = BTreeMap::new();
    for (key, candidates) in groups.iter().filter(|(key, _)| key.level == Level::Region) {
        for model in candidates.iter().flat_map(|c| &*c.models) {
            let known = pools.entry(model.clone()).or_default();
            if !known.contains(&key.pool) {
                known.push(key.pool.clone());
            }
        }
    }
    pools
}
