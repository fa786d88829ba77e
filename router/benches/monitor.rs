//! What watching 10,000 instances costs, by the code that a router runs: one step of health and failover, which
//! follows each event; and making a snapshot and joining it with what is known of its candidates, after every
//! instance has reported anew or a tenth of them. `cargo xtask bench monitor` builds and runs this.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{
    collections::VecDeque, fs, hint::black_box, process::ExitCode, sync::Arc, time::Instant,
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use mrgc_fleet::{
    failover::Thresholds,
    health::{EjectionConfig, PeerConfig, ProbeConfig, ProbeResult},
    model::{Health, Lifecycle, Region, Registration, Report, Standing, Timestamp},
    monitor::{Epochs, Monitor, ProbeDue, Reading, Settings},
    snapshot::Snapshot,
};
use mrgc_router::flight::{FleetView, Signs, SlotTable};
use serde_json::json;

const INSTANCES: usize = 10_000;
const POOLS: usize = 8;
const HOME: &str = "us-east-1";
const REGIONS: [&str; 3] = [HOME, "eu-west-1", "eu-central-1"];
/// Instances of each region beside home.
const ELSEWHERE: usize = 100;
/// Between two looks at the state.
const LOOK_MS: u64 = 1_000;

/// Seconds of the router's time. In each it looks at the state, steps once a millisecond and looks through the
/// fleet for whom to drain; and two snapshots are made.
const ROUNDS: u64 = 100;
const STEPS_PER_ROUND: u64 = 1_000;
/// Snapshots held at once, for what one takes.
const HELD: usize = 20;

/// A router turns up to a thousand times a second.
const MAX_STEP_US: f64 = 100.0;
/// At most every 250 ms, and off the data path.
const MAX_PUBLICATION_MS: f64 = 25.0;

fn main() -> Result<ExitCode> {
    let mut watch = Watch::new()?;
    let mut step = Histogram::<u64>::new(3)?;
    let mut all = Histogram::<u64>::new(3)?;
    let mut tenth = Histogram::<u64>::new(3)?;
    for _ in 0..ROUNDS {
        for _ in 0..STEPS_PER_ROUND {
            step.record(watch.step()?)?;
        }
        for (times, every) in [(&mut all, 1), (&mut tenth, 10)] {
            watch.heartbeats(every);
            let (ns, view) = watch.publish();
            times.record(ns)?;
            black_box(view);
        }
    }
    let bytes = watch.snapshot_bytes()?;
    Ok(report(&step, &all, &tenth, bytes))
}

/// A router's watch over a fleet whose instances report when told to.
struct Watch {
    monitor: Monitor,
    slots: SlotTable,
    regions: Vec<Region>,
    standings: Vec<Arc<Standing>>,
    under_way: VecDeque<ProbeDue>,
    sequence: u64,
    now_ms: u64,
}

impl Watch {
    fn new() -> Result<Self> {
        let region =
            |id: &&str| json!({ "region_id": id, "endpoint": format!("http://{id}.test") });
        let regions: Vec<Region> = REGIONS
            .iter()
            .map(|id| serde_json::from_value(region(id)))
            .collect::<Result<_, _>>()?;
        let of = |region: &'static str, count| (0..count).map(move |n| standing(region, n));
        let standings = of(REGIONS[0], INSTANCES)
            .chain(REGIONS[1..].iter().flat_map(|region| of(region, ELSEWHERE)))
            .collect();
        let settings = Settings {
            home: HOME.into(),
            router: format!("{HOME}-1"),
            stale_after_ms: 35_000,
            probes: Some(ProbeConfig::default()),
            peers: PeerConfig::default(),
            thresholds: Thresholds::default(),
            max_drained_share: 0.3,
        };
        let mut watch = Self {
            monitor: Monitor::new(settings, Timestamp(0)),
            slots: SlotTable::new(EjectionConfig::default(), Signs::default()),
            regions,
            standings,
            under_way: VecDeque::new(),
            sequence: 1,
            now_ms: 0,
        };
        watch.read();
        watch.publish();
        // Nothing is known of an instance before its first probe.
        for _ in 0..ProbeConfig::default().interval_ms {
            watch.step()?;
        }
        Ok(watch)
    }

    /// As many of home's instances as are due send a heartbeat, and the state is read.
    fn heartbeats(&mut self, every: usize) {
        self.sequence += 1;
        for standing in self.standings.iter_mut().step_by(every) {
            let registration = standing.registration.clone();
            let report = heartbeat(&registration, self.sequence);
            *standing = Standing::new(registration, Some(report)).into();
        }
        self.read();
    }

    fn read(&mut self) {
        self.now_ms += LOOK_MS;
        let reading = Reading {
            regions: self.regions.clone(),
            standings: self.standings.clone(),
            ..Reading::default()
        };
        self.monitor.read(reading, LOOK_MS, self.now_ms);
    }

    /// What a router does after each event, once a millisecond: a probe's or a ping's end is one. In nanoseconds.
    fn step(&mut self) -> Result<u64> {
        self.now_ms += 1;
        let (now_ms, at) = (self.now_ms, Timestamp(self.now_ms));
        let started = Instant::now();
        if let Some(ProbeDue { id, .. }) = self.under_way.pop_front() {
            self.monitor.probed(&id, ProbeResult::Passed, true, now_ms);
        }
        for ping in self.monitor.pings_due(now_ms) {
            self.monitor.pinged(&ping.region, ping.number, Some(20.0));
        }
        black_box(self.monitor.evaluate(now_ms, at));
        let epochs = Epochs { health: Some(1), failover: Some(1) };
        black_box(self.monitor.actions(epochs, usize::MAX, now_ms, at));
        self.under_way.extend(self.monitor.probes_due(now_ms));
        black_box(self.monitor.next_ms(now_ms));
        u64::try_from(started.elapsed().as_nanos()).context("too long")
    }

    /// In nanoseconds, and what was published.
    fn publish(&mut self) -> (u64, FleetView) {
        let started = Instant::now();
        let snapshot: Snapshot = self.monitor.compose(Timestamp(self.now_ms), Arc::clone);
        let view = self.slots.join(snapshot);
        (started.elapsed().as_nanos() as u64, view)
    }

    /// What a snapshot takes in which everything is new.
    fn snapshot_bytes(&mut self) -> Result<u64> {
        let before = resident_bytes()?;
        let mut held = Vec::new();
        for _ in 0..HELD {
            self.heartbeats(1);
            held.push(self.publish().1);
        }
        let bytes = resident_bytes()?.saturating_sub(before) / HELD as u64;
        drop(held);
        Ok(bytes)
    }
}

fn standing(region: &'static str, n: usize) -> Arc<Standing> {
    let (id, pool) = (format!("i-{region}-{n:05}"), format!("model-{}", n % POOLS));
    let address = format!("10.66.{}.{}:8000", n / 256, n % 256);
    let registration = Registration {
        slots: Some(64),
        generation: 1,
        health_address: address.replace(":8000", ":8080"),
        ..Registration::new(id, region, pool, address)
    };
    let registration = Arc::new(registration);
    let report = heartbeat(&registration, 1);
    Standing::new(registration, Some(report)).into()
}

fn heartbeat(registration: &Registration, sequence: u64) -> Report {
    let Registration { id, region, generation, .. } = registration;
    Report {
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        queue_depth: Some((sequence % 9) as u32),
        running: Some((sequence % 60) as u32),
        avg_latency_ms: Some(150.0 + (sequence % 100) as f64),
        models: vec!["meta-llama/Llama-3.1-70B-Instruct".to_owned()],
        ..Report::new(id.clone(), region.clone(), *generation, sequence)
    }
}

fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).context("VmRSS")?.parse()?;
    Ok(kib * 1024)
}

fn report(
    step: &Histogram<u64>,
    all: &Histogram<u64>,
    tenth: &Histogram<u64>,
    bytes: u64,
) -> ExitCode {
    let us = |times: &Histogram<u64>, q| times.value_at_quantile(q) as f64 / 1e3;
    println!("{INSTANCES} instances, {} regions", REGIONS.len());
    for (what, times) in [
        ("health/failover step", step),
        ("snapshot, all reported", all),
        ("snapshot, a tenth", tenth),
    ] {
        println!(
            "  {what:<24} p50 {:>8.1} µs, p99 {:>8.1} µs, max {:>8.1} µs",
            us(times, 0.5),
            us(times, 0.99),
            us(times, 1.0)
        );
    }
    println!("  a snapshot takes {:.1} MB", bytes as f64 / 1e6);
    let met = us(step, 0.99) <= MAX_STEP_US && us(all, 0.99) / 1e3 <= MAX_PUBLICATION_MS;
    println!(
        "goal: a step within {MAX_STEP_US:.0} µs and a snapshot within {MAX_PUBLICATION_MS:.0} ms, p99: {}",
        if met { "met" } else { "MISSED" }
    );
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
