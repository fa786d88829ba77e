//! Runs a policy's `cases.json` against the built component: the same file that its crate runs natively.

#[path = "../../wit/cases.rs"]
#[allow(unreachable_pub, reason = "also compiled into the SDK")]
mod format;

/// The contract's types, owned, to be read from JSON.
mod owned {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy",
        additional_derives: [serde::Serialize, serde::Deserialize],
    });
    pub(super) use exports::mrgc::policy::routing::{
        Candidate, Enclave, Health, Level, Location, Request,
    };
}

use crate::{Candidate, Enclave, Health, Instance, Level, Loads, Location, Needs, Policy, Request};

/// Runs every case on an instance of its own; says how many there were.
///
/// # Errors
///
/// The file is not readable, or a line for each case that does not hold.
pub fn run(policy: &Policy, cases: &str) -> Result<usize, String> {
    let cases = format::read(cases)?;
    let failures: Vec<_> = cases.iter().filter_map(|case| check(policy, case).err()).collect();
    if failures.is_empty() { Ok(cases.len()) } else { Err(failures.join("\n")) }
}

fn check(
    policy: &Policy,
    case: &format::Case<owned::Request, owned::Candidate>,
) -> Result<(), String> {
    let named = |e: &dyn std::error::Error| format!("case `{}`: {e}", case.name);
    let mut instance = Instance::new(policy, &case.config).map_err(|e| named(&e))?;
    let lists: Vec<_> = case.candidates.iter().map(Lists::of).collect();
    let fleet: Vec<_> = case.candidates.iter().zip(&lists).map(|(c, l)| candidate(c, l)).collect();
    instance.observe(0, &fleet).map_err(|e| named(&e))?;

    let request_lists = RequestLists::of(&case.request);
    let request = request(&case.request, &request_lists);
    let loads = || Loads { in_flight: &case.in_flight, in_flight_tokens: &case.in_flight_tokens };
    let scores = instance.score(0, &request, &case.picks, loads()).map_err(|e| named(&e))?;
    case.check(&scores.points, |index| {
        instance.explain(0, &request, &case.picks, loads(), index).map_err(|e| e.to_string())
    })
}

/// A candidate's lists, as the borrowed form wants them.
struct Lists<'a> {
    frameworks: Vec<&'a str>,
    models: Vec<&'a str>,
    extra: Vec<(&'a str, f64)>,
}

impl<'a> Lists<'a> {
    fn of(candidate: &'a owned::Candidate) -> Self {
        Self {
            frameworks: candidate.frameworks.iter().map(String::as_str).collect(),
            models: candidate.models.iter().map(String::as_str).collect(),
            extra: candidate.extra.iter().map(|(key, value)| (key.as_str(), *value)).collect(),
        }
    }
}

fn candidate<'a>(c: &'a owned::Candidate, lists: &'a Lists<'a>) -> Candidate<'a> {
    Candidate {
        id: &c.id,
        level: match c.level {
            owned::Level::Region => Level::Region,
            owned::Level::Instance => Level::Instance,
        },
        region: &c.region,
        zone: c.zone.as_deref(),
        pool: c.pool.as_deref(),
        provider: c.provider.as_deref(),
        location: c.location.map(location),
        health: match c.health {
            owned::Health::Healthy => Health::Healthy,
            owned::Health::Degraded => Health::Degraded,
            owned::Health::Unhealthy => Health::Unhealthy,
        },
        health_score: c.health_score,
        queue_depth: c.queue_depth,
        running: c.running,
        avg_latency_ms: c.avg_latency_ms,
        utilization: c.utilization,
        slots: c.slots,
        service_time_ms: c.service_time_ms,
        time_to_first_token_ms: c.time_to_first_token_ms,
        tokens_per_second: c.tokens_per_second,
        rtt_ms: c.rtt_ms,
        gpu_utilization: c.gpu_utilization,
        gpu_memory_free_bytes: c.gpu_memory_free_bytes,
        cost_multiplier: c.cost_multiplier,
        cost_per_hour: c.cost_per_hour,
        carbon_intensity: c.carbon_intensity,
        enclave: match c.enclave {
            owned::Enclave::Absent => Enclave::Absent,
            owned::Enclave::Running => Enclave::Running,
            owned::Enclave::Attested => Enclave::Attested,
        },
        frameworks: &lists.frameworks,
        models: &lists.models,
        prefix_hashes: &c.prefix_hashes,
        instances: c.instances,
        healthy_instances: c.healthy_instances,
        extra: &lists.extra,
    }
}

/// A request's lists, as the borrowed form wants them.
struct RequestLists<'a> {
    frameworks: Vec<&'a str>,
    allowed_regions: Vec<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> RequestLists<'a> {
    fn of(request: &'a owned::Request) -> Self {
        let needs = request.needs.as_ref();
        Self {
            frameworks: needs
                .map_or_else(Vec::new, |n| n.frameworks.iter().map(String::as_str).collect()),
            allowed_regions: needs
                .map_or_else(Vec::new, |n| n.allowed_regions.iter().map(String::as_str).collect()),
            attributes: request
                .attributes
                .iter()
                .flatten()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect(),
        }
    }
}

fn request<'a>(r: &'a owned::Request, lists: &'a RequestLists<'a>) -> Request<'a> {
    Request {
        number: r.number,
        time_ms: r.time_ms,
        seed: r.seed,
        model: r.model.as_deref(),
        tenant: r.tenant.as_deref(),
        session: r.session,
        priority: r.priority,
        origin: r.origin.map(location),
        country: r.country.as_deref(),
        needs: r.needs.as_ref().map(|needs| Needs {
            frameworks: &lists.frameworks,
            allowed_regions: &lists.allowed_regions,
            enclave: needs.enclave,
            attested: needs.attested,
        }),
        stream: r.stream,
        prompt_tokens: r.prompt_tokens,
        max_tokens: r.max_tokens,
        deadline_ms: r.deadline_ms,
        prefix_hashes: r.prefix_hashes.as_deref(),
        attributes: r.attributes.as_ref().map(|_| lists.attributes.as_slice()),
    }
}

fn location(at: owned::Location) -> Location {
    Location { latitude: at.latitude, longitude: at.longitude }
}
