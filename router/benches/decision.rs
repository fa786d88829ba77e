//! A whole decision on a data thread: eligibility of 1,000 instances, three WASM policies, the pick; and
//! the same decided by the native score alone. `cargo xtask bench decision` builds the policies and runs this.

#![allow(clippy::print_stdout, reason = "a benchmark answers on stdout")]

use std::{collections::BTreeMap, hint::black_box, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use mrgc_fleet::{
    health::EjectionConfig,
    model::{Region, Registration, Report, Request, Standing, Timestamp},
    routing::{self, Picker, Question, Scratch, Weight},
    snapshot::{Builder, Member, Seen, View},
};
use mrgc_policy_host::{Engine, Limits};
use mrgc_router::{
    flight::{FleetView, Signs, SlotTable},
    policies::{RouteTable, Seat, catalog, translate::Moment},
};
use serde_json::{Value, json};

const SIZES: [usize; 4] = [10, 16, 100, 1000];
const POLICIES: [&str; 3] = ["score", "capacity", "health"];
const ROUNDS: u64 = 200;
const DECISIONS_PER_ROUND: u64 = 50;

fn main() -> Result<()> {
    println!("one decision, µs, p50 (p99); {} decisions each", ROUNDS * DECISIONS_PER_ROUND);
    println!(
        "{:>10} {:>18} {:>22} {:>8}",
        "instances", "native score", "three WASM policies", "ratio"
    );
    for size in SIZES {
        let (native, wasm) = measure(size)?;
        let us = |h: &Histogram<u64>, q: f64| h.value_at_quantile(q) as f64 / 1000.0;
        let shown = |h| format!("{:.2} ({:.2})", us(h, 0.5), us(h, 0.99));
        let ratio = us(&wasm, 0.5) / us(&native, 0.5);
        println!("{size:>10} {:>18} {:>22} {ratio:>8.1}", shown(&native), shown(&wasm));
    }
    Ok(())
}

fn measure(size: usize) -> Result<(Histogram<u64>, Histogram<u64>)> {
    let fleet = fleet(size)?;
    let view = fleet.snapshot.instances_at_home(&"llama".into()).context("no view")?.clone();
    let mut seats = seats(&fleet)?;
    let weights = POLICIES.map(|_| Weight { weight: 1.0, required: false });
    let (mut native, mut wasm) = (Histogram::new(3)?, Histogram::new(3)?);
    let mut scratch = Scratch::default();
    let mut number = 0;
    for _ in 0..ROUNDS {
        for _ in 0..DECISIONS_PER_ROUND {
            let started = Instant::now();
            decide(&mut scratch, &fleet, &view, &[], number, &mut [])?;
            native.record(started.elapsed().as_nanos() as u64)?;
        }
        for _ in 0..DECISIONS_PER_ROUND {
            number += 1;
            let started = Instant::now();
            decide(&mut scratch, &fleet, &view, &weights, number, &mut seats)?;
            wasm.record(started.elapsed().as_nanos() as u64)?;
        }
    }
    Ok((native, wasm))
}

fn decide(
    scratch: &mut Scratch,
    fleet: &FleetView,
    view: &View,
    weights: &[Weight],
    number: u64,
    seats: &mut [Seat],
) -> Result<()> {
    let request = Request { model: Some("llama".into()), ..Request::default() };
    let question = Question {
        view,
        request: &request,
        rules: &[],
        weights,
        picker: Picker::Best,
        seed: number,
        attempts: 3,
        panic: false,
    };
    let slots = fleet.slots(view);
    let at = Moment { number, time_ms: 1, seed: number };
    let order = routing::decide(
        scratch,
        &question,
        |index| slots[index as usize].live(0),
        |policy, picks, loads| seats[policy].score(0, view, &request, at, picks, loads),
    )?;
    black_box(order);
    Ok(())
}

fn fleet(size: usize) -> Result<FleetView> {
    let region: Region = serde_json::from_value(
        json!({"region_id": "us-east-1", "endpoint": "http://127.0.0.1:1"}),
    )?;
    let member = |i: usize| -> Result<Member> {
        let registration: Registration = serde_json::from_value(json!({
            "id": format!("i-{i:05}"), "region": "us-east-1", "pool": "llama", "slots": 8, "generation": 1,
            "address": format!("10.0.{}.{}:8000", i / 256, i % 256), "health_address": "", "registered_at": 0,
        }))?;
        let report: Value = json!({
            "id": registration.id, "region": "us-east-1", "generation": 1, "sequence": 1, "at": 0,
            "lifecycle": "available", "health": "healthy", "enclave": "absent", "queue_depth": i % 7,
            "running": i % 8, "avg_latency_ms": 100.0 + (i % 50) as f64, "models": ["llama"],
        });
        let report: Report = serde_json::from_value(report)?;
        Ok(Member { standing: Standing::new(registration, Some(report)).into(), seen: Seen::Well })
    };
    let members = (0..size).map(member).collect::<Result<_>>()?;
    let mut builder = Builder::new("us-east-1".into());
    let snapshot = builder.build(Timestamp(0), vec![region], members, &BTreeMap::new());
    Ok(SlotTable::new(EjectionConfig::default(), Signs::default()).join(snapshot))
}

fn seats(fleet: &FleetView) -> Result<Vec<Seat>> {
    let engine = Engine::new(Limits::default())?;
    let table = RouteTable::new(Vec::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies");
    let artifacts = catalog::read_folder(&folder)?;
    POLICIES
        .map(|name| {
            let artifact =
                artifacts.get(name).context("build the policies: `cargo xtask policies`")?;
            let version = catalog::prepare(&engine, &table, fleet, name, 1, artifact, 1)?;
            let mut seat = Seat::new(Arc::clone(&version), "{}")?;
            seat.observe(fleet)?;
            Ok(seat)
        })
        .into_iter()
        .collect()
}
