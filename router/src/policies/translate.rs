//! From the fleet's types to the contract's, which borrow from them.

use mrgc_fleet::{
    model::{EnclaveState, Framework, Health, Location, RegionId, Request},
    snapshot::{Candidate, Level},
};
use mrgc_policy_host as host;

/// A candidate's lists, as the contract wants them.
#[derive(Debug)]
pub struct CandidateLists<'a> {
    frameworks: Vec<&'a str>,
    models: Vec<&'a str>,
}

impl<'a> CandidateLists<'a> {
    pub fn of(candidate: &'a Candidate) -> Self {
        Self {
            frameworks: candidate.frameworks.iter().map(Framework::as_str).collect(),
            models: candidate.models.iter().map(String::as_str).collect(),
        }
    }
}

pub fn candidate<'a>(c: &'a Candidate, lists: &'a CandidateLists<'a>) -> host::Candidate<'a> {
    host::Candidate {
        id: &c.id,
        level: match c.level {
            Level::Region => host::Level::Region,
            Level::Instance => host::Level::Instance,
        },
        region: c.region.as_str(),
        zone: c.zone.as_deref(),
        pool: Some(c.pool.as_str()),
        provider: c.provider.as_deref(),
        location: c.location.map(location),
        health: match c.health {
            Health::Healthy => host::Health::Healthy,
            Health::Degraded => host::Health::Degraded,
            Health::Unhealthy => host::Health::Unhealthy,
        },
        health_score: c.health_score,
        queue_depth: c.queue_depth,
        running: c.running,
        avg_latency_ms: c.avg_latency_ms,
        utilization: c.utilization,
        slots: c.slots,
        service_time_ms: None,
        time_to_first_token_ms: c.time_to_first_token_ms,
        tokens_per_second: None,
        rtt_ms: c.rtt_ms,
        gpu_utilization: c.gpu_utilization,
        gpu_memory_free_bytes: c.gpu_memory_free_bytes,
        cost_multiplier: c.cost_multiplier,
        cost_per_hour: c.cost_per_hour,
        carbon_intensity: c.carbon_intensity,
        enclave: match c.enclave {
            EnclaveState::Absent => host::Enclave::Absent,
            EnclaveState::Running => host::Enclave::Running,
            EnclaveState::Attested => host::Enclave::Attested,
        },
        frameworks: &lists.frameworks,
        models: &lists.models,
        prefix_hashes: &[],
        instances: c.instances,
        healthy_instances: c.healthy_instances,
        extra: &[],
    }
}

/// A request's lists, as the contract wants them. Most are empty, and then cost nothing.
#[derive(Debug)]
pub struct RequestLists<'a> {
    frameworks: Vec<&'a str>,
    allowed_regions: Vec<&'a str>,
    attributes: Vec<(&'a str, &'a str)>,
}

impl<'a> RequestLists<'a> {
    pub fn of(request: &'a Request) -> Self {
        let needs = &request.needs;
        Self {
            frameworks: needs.frameworks.iter().map(Framework::as_str).collect(),
            allowed_regions: needs.allowed_regions.iter().map(RegionId::as_str).collect(),
            attributes: request.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        }
    }
}

/// What a decision adds to a request's facts.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Counted per view and data thread.
    pub number: u64,
    pub time_ms: u64,
    pub seed: u64,
}

pub fn request<'a>(r: &'a Request, lists: &'a RequestLists<'a>, at: Moment) -> host::Request<'a> {
    host::Request {
        number: at.number,
        time_ms: at.time_ms,
        seed: at.seed,
        model: r.model.as_deref(),
        tenant: r.tenant.as_deref(),
        session: r.session,
        priority: r.priority,
        origin: r.origin.map(location),
        country: r.country.as_deref(),
        needs: (!r.needs.is_empty()).then(|| host::Needs {
            frameworks: &lists.frameworks,
            allowed_regions: &lists.allowed_regions,
            enclave: r.needs.enclave,
            attested: r.needs.attested,
        }),
        stream: r.stream,
        prompt_tokens: r.prompt_tokens,
        max_tokens: r.max_tokens,
        deadline_ms: r.deadline_ms,
        prefix_hashes: None,
        attributes: (!lists.attributes.is_empty()).then_some(&lists.attributes),
    }
}

fn location(at: Location) -> host::Location {
    host::Location { latitude: at.latitude, longitude: at.longitude }
}
