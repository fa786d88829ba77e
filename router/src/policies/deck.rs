//! What a data thread decides with: a view of the fleet, and policy instances that have observed it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use http::HeaderValue;
use mrgc_fleet::{
    model::Request,
    routing::{Loads, Weight},
    snapshot::{Level, View},
};
use mrgc_policy_host::{self as host, Fault, Instance, LoadError, Scores};

use super::{
    Version,
    translate::{self, CandidateLists, Moment, RequestLists},
};
use crate::{
    config::{LevelChoice, Route},
    flight::FleetView,
};

/// A policy with a configuration; each data thread has one instance of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatSpec {
    pub name: String,
    /// JSON.
    pub config: String,
}

/// The routes, with their policies as indices of seats.
#[derive(Debug)]
pub struct RouteTable {
    pub routes: Vec<Route>,
    pub specs: Vec<SeatSpec>,
    parts: Vec<[Part; 2]>,
}

/// A route's policies at one level: seats, and their weights in the same order.
#[derive(Debug, Default)]
pub struct Part {
    pub seats: Vec<usize>,
    pub weights: Vec<Weight>,
}

impl RouteTable {
    pub fn new(routes: Vec<Route>) -> Self {
        let mut specs: Vec<SeatSpec> = Vec::new();
        let mut parts = Vec::new();
        for route in &routes {
            let mut both = [Part::default(), Part::default()];
            for policy in &route.policies {
                let spec = SeatSpec { name: policy.name.clone(), config: policy.config_json() };
                let seat = specs.iter().position(|s| *s == spec).unwrap_or_else(|| {
                    specs.push(spec);
                    specs.len() - 1
                });
                let weight = Weight { weight: policy.weight, required: policy.required };
                for (part, skipped) in
                    both.iter_mut().zip([LevelChoice::Instance, LevelChoice::Region])
                {
                    if policy.level != skipped {
                        part.seats.push(seat);
                        part.weights.push(weight);
                    }
                }
            }
            parts.push(both);
        }
        Self { routes, specs, parts }
    }

    pub fn part(&self, route: usize, level: Level) -> &Part {
        &self.parts[route][usize::from(level == Level::Instance)]
    }

    /// The configurations with which a policy is used.
    pub fn configs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.specs.iter().filter(move |spec| spec.name == name).map(|spec| spec.config.as_str())
    }
}

/// One thread's means to decide.
#[derive(Debug)]
pub struct Deck {
    pub fleet: Arc<FleetView>,
    /// One for each [`SeatSpec`], in their order.
    pub seats: Vec<Seat>,
    /// By route: the versions that decide, as `score@3,latency@1`.
    pub labels: Vec<HeaderValue>,
}

impl Deck {
    pub fn new(fleet: Arc<FleetView>, seats: Vec<Seat>, table: &RouteTable) -> Self {
        let labels = (0..table.routes.len()).map(|route| label(table, &seats, route)).collect();
        Self { fleet, seats, labels }
    }
}

fn label(table: &RouteTable, seats: &[Seat], route: usize) -> HeaderValue {
    let mut used: Vec<usize> = Vec::new();
    for level in [Level::Region, Level::Instance] {
        used.extend(
            table.part(route, level).seats.iter().filter(|s| !used.contains(s)).collect::<Vec<_>>(),
        );
    }
    let names: Vec<_> = used.iter().map(|seat| seats[*seat].label()).collect();
    HeaderValue::from_str(&names.join(",")).unwrap_or(HeaderValue::from_static("?"))
}

/// A policy's place at a thread's table. Without an instance, the native score answers for it.
#[derive(Debug)]
pub struct Seat {
    pub version: Option<Arc<Version>>,
    name: String,
    instance: Option<Instance>,
    /// What the instance was shown, to show it only what changed.
    observed: Vec<Arc<View>>,
}

impl Seat {
    /// A policy that is not there.
    pub fn vacant(name: &str) -> Self {
        Self { version: None, name: name.to_owned(), instance: None, observed: Vec::new() }
    }

    /// # Errors
    ///
    /// The policy cannot be instantiated, or rejects the configuration.
    pub fn new(version: Arc<Version>, config: &str) -> Result<Self, LoadError> {
        let instance = Instance::new(&version.policy, config)?;
        let name = version.name.clone();
        Ok(Self { version: Some(version), name, instance: Some(instance), observed: Vec::new() })
    }

    /// A seat whose version could not be brought to life.
    pub fn failed(version: Arc<Version>) -> Self {
        Self {
            name: version.name.clone(),
            version: Some(version),
            instance: None,
            observed: Vec::new(),
        }
    }

    /// Shows the instance those of the fleet's views that this router decides on.
    ///
    /// # Errors
    ///
    /// The policy faulted; the seat is empty now.
    pub fn observe(&mut self, fleet: &FleetView) -> Result<(), Fault> {
        let home = &fleet.snapshot.home;
        let here = |view: &&Arc<View>| view.key.region.as_ref().is_none_or(|region| region == home);
        self.observe_views(fleet.snapshot.shared_views().filter(here).cloned().collect())
    }

    /// Shows the instance these views in place of those before, as far as they changed.
    ///
    /// # Errors
    ///
    /// The policy faulted; the seat is empty now.
    pub fn observe_views(&mut self, views: Vec<Arc<View>>) -> Result<(), Fault> {
        let Some(instance) = &mut self.instance else { return Ok(()) };
        let shown = show(instance, &self.observed, &views);
        if shown.is_err() {
            self.instance = None;
        }
        self.observed = views;
        shown
    }

    /// Whether it can be dealt again for this version.
    pub fn serves(&self, version: &Arc<Version>) -> bool {
        self.instance.is_some() && self.version.as_ref().is_some_and(|v| Arc::ptr_eq(v, version))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_empty(&self) -> bool {
        self.instance.is_none()
    }

    /// Asks the policy; counts and logs a fault. One that kills the instance empties the seat.
    pub fn score(
        &mut self,
        thread: usize,
        view: &View,
        request: &Request,
        at: Moment,
        picks: &[u32],
        loads: Loads<'_>,
    ) -> Option<Vec<f32>> {
        let scored = self.try_score(view, request, at, picks, loads);
        let version = self.version.as_ref()?;
        let counters = version.counters(thread);
        match scored {
            Ok(scores) => {
                counters.decisions.fetch_add(1, Relaxed);
                if scores.clamped > 0 {
                    counters.clamped.fetch_add(u64::from(scores.clamped), Relaxed);
                }
                Some(scores.points)
            }
            // Said when the instance died.
            Err(Fault::Dead) => None,
            Err(fault) => {
                counters.faults.fetch_add(1, Relaxed);
                let (policy, generation, kind) = (&self.name, version.generation, fault.kind());
                tracing::warn!(policy, generation, kind, "policy fault: {fault}");
                None
            }
        }
    }

    /// # Errors
    ///
    /// The policy faulted; where that killed the instance, the seat is empty.
    pub fn try_score(
        &mut self,
        view: &View,
        request: &Request,
        at: Moment,
        picks: &[u32],
        loads: Loads<'_>,
    ) -> Result<Scores, Fault> {
        let instance = self.instance.as_mut().ok_or(Fault::Dead)?;
        let lists = RequestLists::of(request);
        let request = translate::request(request, &lists, at);
        let scored = instance.score(view.id, &request, picks, wire(loads));
        if instance.is_dead() {
            self.instance = None;
        }
        scored
    }

    /// Why a candidate scores as it does, in the policy's words.
    pub fn explain(
        &mut self,
        view: &View,
        request: &Request,
        at: Moment,
        picks: &[u32],
        loads: Loads<'_>,
        candidate: u32,
    ) -> Result<String, Fault> {
        let instance = self.instance.as_mut().ok_or(Fault::Dead)?;
        let lists = RequestLists::of(request);
        let request = translate::request(request, &lists, at);
        instance.explain(view.id, &request, picks, wire(loads), candidate)
    }

    fn label(&self) -> String {
        match &self.version {
            Some(version) => format!("{}@{}", self.name, version.generation),
            None => format!("{}@none", self.name),
        }
    }
}

fn wire(loads: Loads<'_>) -> host::Loads<'_> {
    host::Loads { in_flight: loads.in_flight, in_flight_tokens: loads.in_flight_tokens }
}

fn show(instance: &mut Instance, old: &[Arc<View>], new: &[Arc<View>]) -> Result<(), Fault> {
    for gone in old.iter().filter(|old| !new.iter().any(|view| view.id == old.id)) {
        instance.forget(gone.id)?;
    }
    for view in new.iter().filter(|view| !old.iter().any(|old| Arc::ptr_eq(old, view))) {
        let lists: Vec<_> = view.candidates.iter().map(CandidateLists::of).collect();
        let fleet: Vec<_> =
            view.candidates.iter().zip(&lists).map(|(c, l)| translate::candidate(c, l)).collect();
        instance.observe(view.id, &fleet)?;
    }
    Ok(())
}
