//! `POST /route`: the decision a request would get, with every reason, and nothing sent.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use mrgc_fleet::{
    guard,
    model::{Framework, Location, Needs, PoolId, RegionId, Request},
    routing::{self, Attempts, Loads, NoRoute, Question, Scratch, Weight},
    snapshot::{Candidate, Level, View},
};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::{
    flight::FleetView,
    policies::{Seat, translate::Moment},
    problem::Refusal,
    sync,
};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Body {
    request_context: RequestContext,
    /// A stock strategy in place of the route's policies: `latency` or `latency_based`, `capacity`, …
    strategy: Option<String>,
    /// A route by name; the first that matches the model where left out.
    route: Option<String>,
}

/// What is known of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RequestContext {
    user_location: Option<Location>,
    country: Option<String>,
    compliance_requirements: Vec<Framework>,
    allowed_regions: Vec<RegionId>,
    enclave_required: bool,
    model: Option<String>,
    session: Option<u64>,
    tenant: Option<String>,
    priority: i32,
    stream: bool,
    path: Option<String>,
}

/// The decision, and why.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub selected_region: Option<RegionId>,
    /// Within the router's own region.
    pub selected_instance: Option<String>,
    pub reasoning: String,
    pub route: String,
    pub pool: PoolId,
    pub regions: Ranking,
    pub instances: Option<Ranking>,
}

/// One level's decision.
#[derive(Debug, Serialize)]
pub struct Ranking {
    /// The order of attempts.
    pub attempts: Vec<Arc<str>>,
    pub candidates: Vec<Ranked>,
    pub policies: Vec<PolicyWords>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_route: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Ranked {
    pub id: Arc<str>,
    /// `None` where it was not eligible; negative where the policies ruled it out.
    pub score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
    /// By policy, in the order of `policies`.
    pub scores: Vec<Option<f32>>,
}

/// What a policy said of the first choice.
#[derive(Debug, Serialize)]
pub struct PolicyWords {
    pub name: String,
    pub generation: Option<u64>,
    pub weight: f32,
    /// The native score answered in its place.
    pub faulted: bool,
    pub reasoning: String,
}

/// The seats that decide, with their weights.
struct Table {
    seats: Vec<(Seat, Weight)>,
}

/// Decides on `body` as a request that entered here would be decided on, but for one thing: a client that
/// is elsewhere (`user_location`) did not enter here, so round trips measured from here are left out and
/// distance stands in for them.
pub fn run(context: &Context, body: Body) -> Result<Answer, Refusal> {
    let facts = facts(&body);
    if let Some(at) = facts.origin.filter(|at| !at.is_valid()) {
        let (latitude, longitude) = (at.latitude, at.longitude);
        return Err(Refusal::BadRequest(format!(
            "user_location {latitude}, {longitude} is not a place on Earth"
        )));
    }
    let route = find_route(context, &body, &facts)?;
    let mut facts = facts;
    facts.needs.add(&context.conductor.table().routes[route].needs);
    let fleet = context.conductor.fleet();
    let pool = find_pool(context, route, &facts, &fleet)?;
    let elsewhere = facts.origin.is_some();
    let decide = |level: Level| -> Result<Option<Ranking>, Refusal> {
        let view = match level {
            Level::Region => fleet.snapshot.regions_with(&pool),
            Level::Instance => fleet.snapshot.instances_at_home(&pool),
        };
        let Some(view) = view else { return Ok(None) };
        let seen = seen_from(view, elsewhere);
        let mut table = table(context, &body, route, level)?;
        Ok(Some(rank(context, &mut table, &fleet, view, &seen, &facts)))
    };
    let regions = decide(Level::Region)?.unwrap_or_else(Ranking::empty);
    if regions.attempts.is_empty() && !facts.needs.is_empty() {
        let rules = &context.config.placement;
        if !guard::could_comply(&facts.needs, rules, &fleet.snapshot) {
            let needs = serde_json::to_string(&facts.needs).unwrap_or_default();
            return Err(Refusal::CannotComply { needs });
        }
    }
    let selected_region = regions.attempts.first().map(|id| RegionId::from(id.as_ref()));
    let instances = match &selected_region {
        Some(region) if *region == fleet.snapshot.home => decide(Level::Instance)?,
        _ => None,
    };
    Ok(Answer {
        selected_instance: instances.as_ref().and_then(|i| Some(i.attempts.first()?.to_string())),
        reasoning: reasoning(&regions),
        route: context.conductor.table().routes[route].name.clone(),
        pool,
        selected_region,
        regions,
        instances,
    })
}

fn facts(body: &Body) -> Request {
    let asked = &body.request_context;
    Request {
        model: asked.model.clone(),
        tenant: asked.tenant.clone(),
        session: asked.session,
        priority: asked.priority,
        origin: asked.user_location,
        country: asked.country.as_deref().map(str::to_ascii_uppercase),
        needs: Needs {
            frameworks: asked.compliance_requirements.clone(),
            allowed_regions: asked.allowed_regions.clone(),
            enclave: asked.enclave_required,
            ..Needs::default()
        },
        stream: asked.stream,
        ..Request::default()
    }
}

fn find_route(context: &Context, body: &Body, facts: &Request) -> Result<usize, Refusal> {
    let routes = &context.conductor.table().routes;
    let path = body.request_context.path.as_deref();
    let found = match &body.route {
        Some(name) => routes.iter().position(|route| route.name == *name),
        None => routes.iter().position(|route| {
            path.is_none_or(|path| route.matches.path(path))
                && (facts.model.is_none() || route.matches.model(facts.model.as_deref()))
        }),
    };
    found.ok_or_else(|| Refusal::NotFound {
        what: "route",
        name: body.route.clone().unwrap_or_else(|| path.unwrap_or("for this request").to_owned()),
    })
}

fn find_pool(
    context: &Context,
    route: usize,
    facts: &Request,
    fleet: &FleetView,
) -> Result<PoolId, Refusal> {
    let route = &context.conductor.table().routes[route];
    let by_model = |model: &String| fleet.snapshot.pools_serving(model).first().cloned();
    let pool = match (&route.pool, &facts.model) {
        (Some(pool), _) => Some(pool.clone()),
        (None, Some(model)) => {
            let unknown = || Refusal::UnknownModel { model: model.clone() };
            Some(by_model(model).or_else(|| route.fallback.clone()).ok_or_else(unknown)?)
        }
        (None, None) => fleet.snapshot.pools().next().cloned(),
    };
    pool.ok_or(Refusal::NoCapacity { reason: NoRoute::NoneReady })
}

/// A view as it looks from where the client is.
fn seen_from(view: &View, elsewhere: bool) -> Arc<View> {
    let candidates = view.candidates.iter().cloned().map(|candidate| Candidate {
        rtt_ms: candidate.rtt_ms.filter(|_| !elsewhere),
        ..candidate
    });
    Arc::new(View { id: view.id, key: view.key.clone(), candidates: candidates.collect() })
}

fn table(context: &Context, body: &Body, route: usize, level: Level) -> Result<Table, Refusal> {
    let conductor = &context.conductor;
    let seat = |name: &str, config: &str| match conductor.version(name) {
        Some(version) => {
            Seat::new(version.clone(), config).unwrap_or_else(|_| Seat::failed(version))
        }
        None => Seat::vacant(name),
    };
    let routes = conductor.table();
    if let Some(strategy) = &body.strategy {
        let name = strategy.strip_suffix("_based").unwrap_or(strategy).replace('_', "-");
        if conductor.version(&name).is_none() {
            return Err(Refusal::NotFound { what: "policy for strategy", name: strategy.clone() });
        }
        let spec = routes.specs.iter().find(|spec| spec.name == name);
        let config = spec.map_or("{}", |spec| spec.config.as_str());
        let weight = Weight { weight: 1.0, required: false };
        return Ok(Table { seats: vec![(seat(&name, config), weight)] });
    }
    let part = routes.part(route, level);
    let specs = part.seats.iter().map(|index| &routes.specs[*index]);
    let seats = specs.map(|spec| seat(&spec.name, &spec.config)).zip(part.weights.iter().copied());
    Ok(Table { seats: seats.collect() })
}

fn rank(
    context: &Context,
    table: &mut Table,
    fleet: &FleetView,
    view: &View,
    seen: &Arc<View>,
    facts: &Request,
) -> Ranking {
    let number = context.dry_runs.fetch_add(1, Relaxed);
    let at = Moment { number, time_ms: sync::wall_clock().0, seed: number };
    for (seat, _) in &mut table.seats {
        // A fault shows as the policy's in the answer.
        let _ = seat.observe_views(vec![seen.clone()]);
    }
    let weights: Vec<Weight> = table.seats.iter().map(|(_, weight)| *weight).collect();
    let question = Question {
        view: seen,
        request: facts,
        rules: &context.config.placement,
        weights: &weights,
        picker: routing::Picker::Best,
        seed: at.seed,
        attempts: routing::MAX_ATTEMPTS,
        panic: false,
    };
    let slots = fleet.slots(view);
    let now_ms = context.clock.now_ms();
    let live = |i: u32| slots.get(i as usize).map(|s| s.live(now_ms)).unwrap_or_default();
    let mut scratch = Scratch::default();
    let mut scored: Vec<Option<Vec<f32>>> = Vec::new();
    let decided = routing::decide(&mut scratch, &question, live, |policy, picks, loads| {
        let scores = table.seats[policy].0.try_score(seen, facts, at, picks, loads);
        scored.push(scores.ok().map(|scores| scores.points));
        scored.last().cloned().flatten()
    });
    let first = decided.as_ref().ok().and_then(|order| order.as_slice().first().copied());
    let policies = words(table, &scratch, seen, facts, at, &scored, first);
    Ranking {
        attempts: names(seen, decided.as_ref().ok()),
        candidates: candidates(&question, &scratch, &scored),
        policies,
        no_route: decided.err().map(|reason| reason.to_string()),
    }
}

fn names(view: &View, order: Option<&Attempts>) -> Vec<Arc<str>> {
    let order = order.map_or(&[][..], Attempts::as_slice);
    order.iter().map(|index| view.candidates[*index as usize].id.clone()).collect()
}

fn candidates(
    question: &Question<'_>,
    scratch: &Scratch,
    scored: &[Option<Vec<f32>>],
) -> Vec<Ranked> {
    let all_eligible = scratch.picks().is_empty() && !scratch.totals().is_empty();
    let position = |index: u32| match all_eligible {
        true => Some(index as usize),
        false => scratch.picks().iter().position(|pick| *pick == index),
    };
    (0u32..)
        .zip(&question.view.candidates)
        .map(|(index, candidate)| {
            let position = position(index);
            let forbidden = guard::check(&question.request.needs, question.rules, candidate).err();
            let excluded = match position {
                Some(_) => None,
                None if !candidate.ready => Some("not ready".to_owned()),
                None => Some(forbidden.map_or_else(
                    || "it does not serve the model, or has just failed".to_owned(),
                    |forbidden| forbidden.to_string(),
                )),
            };
            let of = |scores: &[f32]| position.and_then(|at| scores.get(at).copied());
            Ranked {
                id: candidate.id.clone(),
                score: of(scratch.totals()),
                excluded,
                scores: scored.iter().map(|scores| scores.as_deref().and_then(of)).collect(),
            }
        })
        .collect()
}

fn words(
    table: &mut Table,
    scratch: &Scratch,
    view: &View,
    facts: &Request,
    at: Moment,
    scored: &[Option<Vec<f32>>],
    first: Option<u32>,
) -> Vec<PolicyWords> {
    let loads: Loads<'_> = scratch.loads();
    let asked = table.seats.iter_mut().enumerate();
    asked
        .map(|(i, (seat, weight))| {
            let faulted = !scored.get(i).is_some_and(Option::is_some);
            let reasoning = match first {
                Some(first) if !faulted => seat
                    .explain(view, facts, at, scratch.picks(), loads, first)
                    .unwrap_or_else(|fault| format!("it could not say: {fault}")),
                Some(_) => "the policy faulted: the native score stands in".to_owned(),
                None => "nothing was selected".to_owned(),
            };
            PolicyWords {
                name: seat.name().to_owned(),
                generation: seat.version.as_ref().map(|version| version.generation),
                weight: weight.weight,
                faulted,
                reasoning,
            }
        })
        .collect()
}

/// What the heaviest policy said, or why nothing was selected.
fn reasoning(regions: &Ranking) -> String {
    if let Some(reason) = &regions.no_route {
        return reason.clone();
    }
    let heaviest = regions.policies.iter().max_by(|a, b| a.weight.total_cmp(&b.weight));
    match (heaviest, regions.attempts.first()) {
        (Some(policy), _) => policy.reasoning.clone(),
        (None, Some(region)) => format!("Selected {region} by the native score"),
        (None, None) => "no region has the pool".to_owned(),
    }
}

impl Ranking {
    fn empty() -> Self {
        Self { attempts: Vec::new(), candidates: Vec::new(), policies: Vec::new(), no_route: None }
    }
}
