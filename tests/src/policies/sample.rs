//! A fleet and a request as a router would show them: most facts known, some not.

use mrgc_policy_host::{Candidate, Enclave, Health, Level, Location, Needs, Request};
use mrgc_policy_sdk as sdk;

const REGIONS: [(&str, f64, f64); 4] = [
    ("us-east-1", 38.9, -77.4),
    ("us-west-2", 45.9, -119.3),
    ("eu-central-1", 50.1, 8.7),
    ("ap-southeast-1", 1.3, 103.8),
];
const FRAMEWORKS: [&[&str]; 3] = [&["gdpr", "soc2"], &["soc2"], &[]];
const NEEDS: Needs<'static> = Needs {
    frameworks: &["gdpr"],
    allowed_regions: &["eu-central-1"],
    enclave: true,
    attested: false,
};
const ATTRIBUTES: &[(&str, &str)] = &[("user-agent", "openai-python/1.99")];
const PREFIXES: [u64; 4] = [11, 12, 13, 14];

/// Instances of four regions. The same seed makes the same fleet.
#[derive(Debug)]
pub struct Fleet {
    ids: Vec<String>,
    seed: u64,
    /// What the router counts, for each candidate.
    pub in_flight: Vec<u32>,
    pub in_flight_tokens: Vec<u64>,
}

impl Fleet {
    pub fn new(size: usize, seed: u64) -> Self {
        let mut random = Random(!seed);
        let in_flight: Vec<u32> = (0..size).map(|_| random.below(12) as u32).collect();
        Self {
            ids: (0..size).map(|index| format!("i-{index:017x}")).collect(),
            seed,
            in_flight_tokens: in_flight.iter().map(|count| u64::from(*count) * 700).collect(),
            in_flight,
        }
    }

    pub fn candidates(&self) -> Vec<Candidate<'_>> {
        let mut random = Random(self.seed);
        self.ids.iter().map(|id| instance(id, &mut random)).collect()
    }
}

fn instance<'a>(id: &'a str, random: &mut Random) -> Candidate<'a> {
    let (region, latitude, longitude) = REGIONS[random.below(REGIONS.len() as u64) as usize];
    let health = match random.below(20) {
        0 => Health::Unhealthy,
        1..=3 => Health::Degraded,
        _ => Health::Healthy,
    };
    let running = random.below(9) as u32;
    Candidate {
        id,
        level: Level::Instance,
        region,
        zone: None,
        pool: Some("llama-3-70b"),
        provider: Some("aws"),
        location: Some(Location { latitude, longitude }),
        health,
        health_score: random.up_to(100.0),
        queue_depth: random.known(12.0),
        running: Some(running),
        avg_latency_ms: random.known(1200.0),
        utilization: Some(f64::from(running) / 8.0),
        slots: Some(8),
        service_time_ms: random.known(4000.0),
        time_to_first_token_ms: random.known(600.0),
        tokens_per_second: random.known(90.0),
        rtt_ms: random.known(250.0),
        gpu_utilization: random.known(1.0),
        gpu_memory_free_bytes: Some(random.below(80 << 30)),
        cost_multiplier: random.known(2.0),
        cost_per_hour: random.known(40.0),
        carbon_intensity: random.known(700.0),
        enclave: if random.below(4) == 0 { Enclave::Attested } else { Enclave::Absent },
        frameworks: FRAMEWORKS[random.below(FRAMEWORKS.len() as u64) as usize],
        models: &["llama-3-70b"],
        prefix_hashes: &PREFIXES[..random.below(5) as usize],
        instances: 1,
        healthy_instances: 1,
        extra: &[],
    }
}

/// A chat completion from Berlin, as most are: no needs, no known prefix, no attributes.
pub fn request(number: u64) -> Request<'static> {
    Request {
        number,
        time_ms: 1_780_000_000_000 + number,
        seed: Random(number).next(),
        model: Some("llama-3-70b"),
        tenant: Some("acme"),
        session: Some(0x5e55_1011),
        priority: 0,
        origin: Some(Location { latitude: 52.5, longitude: 13.4 }),
        country: Some("DE"),
        needs: None,
        stream: true,
        prompt_tokens: Some(420),
        max_tokens: Some(512),
        deadline_ms: Some(60_000),
        prefix_hashes: None,
        attributes: None,
    }
}

/// The same, with all that a request may carry.
pub fn full_request(number: u64) -> Request<'static> {
    Request {
        needs: Some(NEEDS),
        prefix_hashes: Some(&PREFIXES),
        attributes: Some(ATTRIBUTES),
        ..request(number)
    }
}

/// The candidate as the SDK holds it.
pub fn facts(candidate: &Candidate<'_>) -> sdk::Facts {
    let c = candidate;
    sdk::Facts {
        id: c.id.to_owned(),
        level: match c.level {
            Level::Region => sdk::Level::Region,
            Level::Instance => sdk::Level::Instance,
        },
        region: c.region.to_owned(),
        zone: c.zone.map(str::to_owned),
        pool: c.pool.map(str::to_owned),
        provider: c.provider.map(str::to_owned),
        location: c.location.map(location),
        health: match c.health {
            Health::Healthy => sdk::Health::Healthy,
            Health::Degraded => sdk::Health::Degraded,
            Health::Unhealthy => sdk::Health::Unhealthy,
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
            Enclave::Absent => sdk::Enclave::Absent,
            Enclave::Running => sdk::Enclave::Running,
            Enclave::Attested => sdk::Enclave::Attested,
        },
        frameworks: strings(c.frameworks),
        models: strings(c.models),
        prefix_hashes: c.prefix_hashes.to_vec(),
        instances: c.instances,
        healthy_instances: c.healthy_instances,
        extra: c.extra.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
    }
}

/// The request as the SDK holds it.
pub fn owned(request: &Request<'_>) -> sdk::Request {
    let r = request;
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    sdk::Request {
        number: r.number,
        time_ms: r.time_ms,
        seed: r.seed,
        model: r.model.map(str::to_owned),
        tenant: r.tenant.map(str::to_owned),
        session: r.session,
        priority: r.priority,
        origin: r.origin.map(location),
        country: r.country.map(str::to_owned),
        needs: r.needs.as_ref().map(|needs| sdk::Needs {
            frameworks: strings(needs.frameworks),
            allowed_regions: strings(needs.allowed_regions),
            enclave: needs.enclave,
            attested: needs.attested,
        }),
        stream: r.stream,
        prompt_tokens: r.prompt_tokens,
        max_tokens: r.max_tokens,
        deadline_ms: r.deadline_ms,
        prefix_hashes: r.prefix_hashes.map(<[u64]>::to_vec),
        attributes: r.attributes.map(|list| list.iter().map(pair).collect()),
    }
}

fn location(at: Location) -> sdk::Location {
    sdk::Location { latitude: at.latitude, longitude: at.longitude }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn up_to(&mut self, limit: f64) -> f64 {
        self.below(1 << 20) as f64 / (1 << 20) as f64 * limit
    }

    /// Unknown one time in ten.
    fn known(&mut self, limit: f64) -> Option<f64> {
        let value = self.up_to(limit);
        (self.below(10) != 0).then_some(value)
    }
}
