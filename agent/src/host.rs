//! The machine's own CPU, memory and load, from `/proc` by way of sysinfo.

use std::time::Duration;

use sysinfo::System;
use tokio::{sync::mpsc, time};

use crate::{
    signals::{Host, Reading},
    state::Event,
};

/// A sample reads a handful of small files.
const INTERVAL: Duration = Duration::from_secs(5);

/// Samples the host until nobody listens.
pub(crate) async fn run(events: mpsc::Sender<Event>) {
    let mut system = None;
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if events.send(Event::Host(sample(&mut system))).await.is_err() {
            return;
        }
    }
}

/// Samples with the system of the sample before, which the CPU's utilization is measured against.
fn sample(known: &mut Option<System>) -> Reading<Host> {
    let is_first = known.is_none();
    let system = match known {
        Some(system) => system,
        None => match System::new() {
            Ok(system) => known.insert(system),
            Err(error) => return Reading::error(format!("the host cannot be sampled: {error}")),
        },
    };
    system.refresh_memory();
    system.refresh_cpu_usage();
    if system.cpus().is_empty() || system.total_memory() == 0 {
        return Reading::error("/proc/stat or /proc/meminfo cannot be read");
    }
    let cpu = f64::from(system.global_cpu_usage()) / 100.0;
    Reading::ok(Host {
        cpus: system.cpus().len(),
        cpu_utilization: (!is_first).then(|| cpu.clamp(0.0, 1.0)),
        memory_total_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
        load_average: System::load_average().ok().map(|load| [load.one, load.five, load.fifteen]),
        uptime_seconds: System::uptime().ok(),
    })
}
