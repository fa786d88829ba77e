//! Where versions come from: artifacts in a folder or uploaded, compiled and tried before they decide
//! anything.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mrgc_fleet::{
    model::{
        EnclaveState, Health, Lifecycle, Location, Needs, Region, Registration, Report, Request,
        Standing, Timestamp,
    },
    routing::Loads,
    snapshot::{Builder, Member, Seen, View},
};
use mrgc_policy_host::{Engine, Fault, LoadError, Policy};

use super::{RouteTable, Seat, Version, translate::Moment};
use crate::flight::FleetView;

/// Candidates of a trial's views; more of a large fleet would only take longer.
const TRIAL_CANDIDATES: usize = 10_000;

/// Why an artifact does not become a version.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("with the configuration {config}: {error}")]
    Config { config: String, error: LoadError },
    #[error("in a trial run on {views}: {fault}")]
    Trial { views: &'static str, fault: Fault },
}

/// The components of a folder, by the policy's name.
///
/// # Errors
///
/// The folder or a file in it cannot be read; none at all is no error.
pub fn read_folder(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| path.extension().is_some_and(|e| e == "wasm")) {
            found.insert(name.to_owned(), fs::read(&path)?);
        }
    }
    Ok(found)
}

/// Compiles an artifact, gives it every configuration with which the routes use it, and lets it decide on
/// the fleet as it is and on a small made-up one. Takes tens of milliseconds of CPU.
///
/// # Errors
///
/// What is wrong with it, for its author.
pub fn prepare(
    engine: &Engine,
    table: &RouteTable,
    fleet: &FleetView,
    name: &str,
    generation: u64,
    artifact: &[u8],
    threads: usize,
) -> Result<Arc<Version>, Rejection> {
    let policy = Policy::load(engine, artifact)?;
    let version = Arc::new(Version::new(name.to_owned(), generation, policy, threads));
    let mut configs: Vec<&str> = table.configs(name).collect();
    if configs.is_empty() {
        configs.push("{}");
    }
    let made_up = made_up_views();
    for config in configs {
        let seat = || {
            Seat::new(version.clone(), config)
                .map_err(|error| Rejection::Config { config: config.to_owned(), error })
        };
        let current: Vec<_> = fleet.snapshot.shared_views().cloned().collect();
        try_on(seat()?, &current)
            .map_err(|fault| Rejection::Trial { views: "the current fleet", fault })?;
        try_on(seat()?, &made_up)
            .map_err(|fault| Rejection::Trial { views: "a made-up fleet", fault })?;
    }
    Ok(version)
}

/// Scores and explains plain and demanding requests on each view.
fn try_on(mut seat: Seat, views: &[Arc<View>]) -> Result<(), Fault> {
    seat.observe_views(views.to_vec())?;
    for view in views.iter().filter(|view| !view.candidates.is_empty()) {
        let zeros = vec![0; view.candidates.len().min(TRIAL_CANDIDATES)];
        let tokens = vec![0; zeros.len()];
        let loads = Loads { in_flight: &zeros, in_flight_tokens: &tokens };
        let picks: Vec<u32> = match view.candidates.len() == zeros.len() {
            true => Vec::new(),
            false => (0..zeros.len() as u32).collect(),
        };
        for (number, request) in trial_requests().iter().enumerate() {
            let at = Moment { number: number as u64, time_ms: 1_700_000_000_000, seed: 7 };
            seat.try_score(view, request, at, &picks, loads)?;
            seat.explain(view, request, at, &picks, loads, 0)?;
        }
    }
    // Forgets them all.
    seat.observe_views(Vec::new())
}

fn trial_requests() -> [Request; 2] {
    let demanding = Request {
        model: Some("model-a".into()),
        tenant: Some("trial".into()),
        session: Some(42),
        priority: 1,
        origin: Some(Location { latitude: 52.5, longitude: 13.4 }),
        country: Some("DE".into()),
        needs: Needs { frameworks: vec!["gdpr".into()], enclave: true, ..Needs::default() },
        stream: true,
        prompt_tokens: Some(100),
        max_tokens: Some(1000),
        deadline_ms: Some(30_000),
        attributes: vec![("trial".into(), "yes".into())],
    };
    [Request::default(), demanding]
}

/// Two instances of one region: one of which everything is known, and one of which nothing is.
fn made_up_views() -> Vec<Arc<View>> {
    let region = Region {
        id: "trial-1".into(),
        name: "Trial".into(),
        provider: Some("aws".into()),
        location: Some(Location { latitude: 53.3, longitude: -6.2 }),
        endpoint: "http://192.0.2.1:8000".into(),
        frameworks: vec!["gdpr".into()],
        cost_multiplier: 1.1,
        carbon_intensity: Some(300.0),
        max_capacity: Some(100),
        shards: 1,
    };
    let known = Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        queue_depth: Some(2),
        running: Some(3),
        avg_latency_ms: Some(150.0),
        time_to_first_token_ms: Some(40.0),
        models: vec!["model-a".into()],
        enclave: EnclaveState::Running,
        gpu_utilization: Some(0.5),
        gpu_memory_free_bytes: Some(1 << 30),
        ..Report::new("i-known", region.id.clone(), 1, 1)
    };
    let member = |id: &str, report: Option<Report>| Member {
        standing: Standing::new(registration(id, &region), report).into(),
        seen: Seen::Well,
    };
    let members = vec![member("i-known", Some(known)), member("i-unknown", None)];
    let mut builder = Builder::new(region.id.clone());
    let snapshot = builder.build(Timestamp(0), vec![region.clone()], members, &BTreeMap::new());
    snapshot.shared_views().cloned().collect()
}

fn registration(id: &str, region: &Region) -> Registration {
    Registration {
        health_address: "192.0.2.2:8080".into(),
        slots: Some(8),
        cost_per_hour: Some(2.5),
        generation: 1,
        ..Registration::new(id, region.id.clone(), "model-a", "192.0.2.2:8000")
    }
}
