//! A fleet, drawn from a seed.

use fastrand::Rng;
use mrgc_fleet::{
    failover::Thresholds,
    guard::PlacementRule,
    health::{EjectionConfig, PeerConfig, ProbeConfig},
    model::{Framework, Needs, PoolId, Region, RegionId, Request},
    monitor::Settings,
};

use crate::network::Node;

/// Routers of a region.
pub(crate) const ROUTERS: usize = 2;
const FEWEST_INSTANCES: usize = 50;
const MOST_INSTANCES: usize = 300;
const REGIONS: [&str; 5] = ["eu-a", "us-a", "ap-a", "eu-b", "us-b"];
/// Data of this framework stays in the regions that have it.
const RESIDENT: &str = "gdpr";
/// How many times faster than by default the slow clocks may run, the slowest first.
const TEMPOS: [u64; 5] = [1, 2, 4, 6, 10];
/// For what does not follow the tempo: reports that go stale, a holder's last word, reading the store.
const UNHURRIED_MS: u64 = 30_000;
const STALE_MS: u64 = 10_000;
/// Of a pool, the share that may be drained because its probes fail.
const MAX_DRAINED_SHARE: f64 = 0.5;

/// What a run begins with.
#[derive(Debug)]
pub(crate) struct Plan {
    pub regions: Vec<Region>,
    pub rules: Vec<PlacementRule>,
    pub pools: Vec<PoolId>,
    pub instances: Vec<Instance>,
    /// Where data of the resident framework may be, by region.
    pub resident: Vec<bool>,
    pub ejection: EjectionConfig,
    probes: ProbeConfig,
    thresholds: Thresholds,
}

/// An instance to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub region: usize,
    pub pool: usize,
    pub slots: Option<u32>,
    pub enclave: bool,
    /// How long it takes to answer, by itself.
    pub service_ms: u64,
}

impl Plan {
    /// Most fleets are small: faults are about who talks to whom, not about how many there are. What was
    /// disturbed must be able to settle within `calm_ms`.
    pub(crate) fn draw(rng: &mut Rng, calm_ms: u64) -> Self {
        let fits: Vec<u64> =
            TEMPOS.into_iter().filter(|tempo| settle_ms(*tempo) <= calm_ms).collect();
        let tempo =
            if fits.is_empty() { TEMPOS[TEMPOS.len() - 1] } else { fits[rng.usize(0..fits.len())] };
        let count = if rng.u8(0..3) == 0 { rng.usize(4..=5) } else { 3 };
        let resident: Vec<bool> =
            (0..count).map(|r| r == 0 || r == 3 || rng.u8(0..4) == 0).collect();
        let region = |r: usize| Region {
            id: REGIONS[r].into(),
            name: String::new(),
            provider: None,
            location: None,
            endpoint: format!("http://{}.test", REGIONS[r]),
            frameworks: resident[r].then(|| RESIDENT.into()).into_iter().collect(),
            cost_multiplier: 1.0,
            carbon_intensity: None,
            max_capacity: None,
            shards: Region::DEFAULT_SHARDS,
        };
        let regions: Vec<Region> = (0..count).map(region).collect();
        let rule = PlacementRule {
            name: "residency".to_owned(),
            frameworks: vec![RESIDENT.into()],
            allowed_regions: (0..count)
                .filter(|r| resident[*r])
                .map(|r| REGIONS[r].into())
                .collect(),
        };
        let pools: Vec<PoolId> = ["chat", "code", "image"][..rng.usize(1..=3)]
            .iter()
            .map(|name| PoolId::from(*name))
            .collect();
        let more = (MOST_INSTANCES - FEWEST_INSTANCES) as f64 * rng.f64().powi(8);
        let service_ms: Vec<u64> = pools.iter().map(|_| rng.u64(20..300)).collect();
        let has_slots = rng.u8(0..4) > 0;
        // Each pool has some in each region; beyond that regions are as large as it comes.
        let instance = |n: usize| {
            let pool = n % pools.len();
            let each = count * pools.len();
            let region = if n < 3 * each { n / pools.len() % count } else { rng.usize(0..count) };
            Instance {
                region,
                pool,
                slots: has_slots.then(|| rng.u32(2..=8)),
                enclave: (n / pools.len() / count).is_multiple_of(3),
                service_ms: service_ms[pool],
            }
        };
        let instances = (0..FEWEST_INSTANCES + more as usize).map(instance).collect();
        let (ejection, probes, thresholds) = hurried(tempo);
        Self {
            regions,
            rules: vec![rule],
            pools,
            instances,
            resident,
            ejection,
            probes,
            thresholds,
        }
    }

    pub(crate) fn settings(&self, router: Node) -> Settings {
        Settings {
            home: self.regions[router.region].id.clone(),
            router: format!("router-{}", router.no),
            stale_after_ms: STALE_MS,
            probes: Some(self.probes),
            peers: PeerConfig::default(),
            thresholds: self.thresholds,
            max_drained_share: MAX_DRAINED_SHARE,
        }
    }

    pub(crate) fn probes(&self) -> &ProbeConfig {
        &self.probes
    }

    /// How long everything may take to be as before once the faults are over.
    pub(crate) fn settle_ms(&self) -> u64 {
        settle_ms(EjectionConfig::default().max_ms / self.ejection.max_ms)
    }

    /// A region's number.
    pub(crate) fn region(&self, id: &RegionId) -> Option<usize> {
        self.regions.iter().position(|region| region.id == *id)
    }

    /// Something that a client asks for.
    pub(crate) fn request(&self, rng: &mut Rng) -> (usize, Request) {
        let pool = rng.usize(0..self.pools.len());
        let mut needs = Needs::default();
        match rng.u8(0..10) {
            0..2 => needs.frameworks.push(Framework::from(RESIDENT)),
            2 => needs.enclave = true,
            3 => {
                let without = rng.usize(0..self.regions.len());
                let others = (0..self.regions.len()).filter(|region| *region != without);
                needs.allowed_regions = others.map(|r| self.regions[r].id.clone()).collect();
            }
            _ => {}
        }
        let priority = if rng.u8(0..8) == 0 { rng.i32(-100..=10) } else { 0 };
        let model = Some(self.pools[pool].as_str().to_owned());
        (pool, Request { model, priority, needs, ..Request::default() })
    }

    /// Whether a request with these needs may go to an instance: by the plan alone, so that the guard is not
    /// its own witness.
    pub(crate) fn permits(&self, needs: &Needs, instance: &Instance) -> bool {
        let region: &RegionId = &self.regions[instance.region].id;
        (needs.frameworks.is_empty() || self.resident[instance.region])
            && (needs.allowed_regions.is_empty() || needs.allowed_regions.contains(region))
            && (!needs.enclave || instance.enclave)
    }
}

/// The configuration of a fleet whose slow clocks run so many times faster than by default.
fn hurried(tempo: u64) -> (EjectionConfig, ProbeConfig, Thresholds) {
    let (ejection, probes) = (EjectionConfig::default(), ProbeConfig::default());
    let thresholds = Thresholds::default();
    (
        EjectionConfig {
            max_ms: ejection.max_ms / tempo,
            slow_start_ms: ejection.slow_start_ms / tempo,
            ..ejection
        },
        ProbeConfig {
            interval_ms: probes.interval_ms / tempo,
            timeout_ms: probes.timeout_ms / tempo,
            ..probes
        },
        Thresholds {
            hold_ms: thresholds.hold_ms / tempo,
            step_ms: thresholds.step_ms / tempo,
            evaluation_ms: thresholds.evaluation_ms / tempo,
            ..thresholds
        },
    )
}

/// The longest way back: an ejection's time or two passed probes, the hold, and all of the steps.
fn settle_ms(tempo: u64) -> u64 {
    let (ejection, probes, thresholds) = hurried(tempo);
    let evidence_ms =
        ejection.max_ms.max((u64::from(probes.recovery_passes) + 1) * probes.interval_ms);
    let steps = (1.0 / thresholds.recovery_step).ceil() as u64;
    let slow_ms = evidence_ms + thresholds.hold_ms + steps * thresholds.step_ms;
    // Clocks run up to a tenth slow.
    slow_ms * 10 / 9 + UNHURRIED_MS
}

/// The number of an instance, which its id ends with.
pub(crate) fn number(id: &str) -> usize {
    id.bytes().filter(u8::is_ascii_digit).fold(0, |no, digit| no * 10 + usize::from(digit - b'0'))
}
