//! The GPUs' part of `GET /metrics`. Names are a contract: a dashboard reads them.

use std::fmt::Display;

use super::status::{Gpu, Gpus, Xid};
use crate::metrics::Exposition;

/// A family with one sample for each GPU that says.
type Family = (&'static str, &'static str, &'static str, fn(&Gpu) -> Option<f64>);

const FAMILIES: &[Family] = &[
    ("fitness", "gauge", "0 fit, 1 degraded, 2 unfit.", |gpu| {
        Some(f64::from(gpu.verdict.fitness as u8))
    }),
    ("utilization_ratio", "gauge", "Share of the time in which it computed.", |gpu| {
        gpu.sample.utilization
    }),
    ("memory_used_bytes", "gauge", "Memory in use.", |gpu| gpu.sample.memory_used_bytes.map(count)),
    ("memory_total_bytes", "gauge", "Memory that it has.", |gpu| {
        gpu.sample.memory_total_bytes.map(count)
    }),
    ("temperature_celsius", "gauge", "Temperature of the chip.", |gpu| {
        gpu.sample.temperature_celsius.map(f64::from)
    }),
    ("slowdown_margin_celsius", "gauge", "Degrees until the hardware slows it down.", |gpu| {
        gpu.sample.slowdown_margin_celsius().map(|margin| margin as f64)
    }),
    ("power_watts", "gauge", "Power that it draws.", |gpu| gpu.sample.power_watts),
    ("power_limit_watts", "gauge", "Power that it may draw.", |gpu| {
        gpu.sample.rare.power_limit_watts
    }),
    ("sm_clock_hertz", "gauge", "Clock of its multiprocessors.", |gpu| {
        gpu.sample.sm_clock_mhz.map(hertz)
    }),
    ("memory_clock_hertz", "gauge", "Clock of its memory.", |gpu| {
        gpu.sample.memory_clock_mhz.map(hertz)
    }),
    ("remapped_rows_pending", "gauge", "1 while rows wait for a reset to be remapped.", |gpu| {
        gpu.sample.remapped_rows?.pending.map(flag)
    }),
    ("remapped_rows_failed", "gauge", "1 once a row could not be remapped.", |gpu| {
        gpu.sample.remapped_rows?.failure.map(flag)
    }),
    ("ecc_corrected_errors_total", "counter", "Memory errors in its lifetime.", |gpu| {
        gpu.sample.rare.ecc?.aggregate_corrected.map(count)
    }),
    ("ecc_uncorrected_errors_total", "counter", "Memory errors in its lifetime.", |gpu| {
        gpu.sample.rare.ecc?.aggregate_uncorrected.map(count)
    }),
    (
        "ecc_volatile_uncorrected_errors",
        "gauge",
        "Memory errors since the driver was loaded.",
        |gpu| gpu.sample.rare.ecc?.volatile_uncorrected.map(count),
    ),
    ("nvlink_active_links", "gauge", "NVLinks that are up.", |gpu| {
        Some(f64::from(gpu.sample.rare.nvlink?.active))
    }),
    ("nvlink_replay_errors_total", "counter", "Packets sent again, over all links.", |gpu| {
        gpu.sample.rare.nvlink?.replay_errors.map(count)
    }),
    ("nvlink_recovery_errors_total", "counter", "Links trained again, over all links.", |gpu| {
        gpu.sample.rare.nvlink?.recovery_errors.map(count)
    }),
    ("nvlink_crc_errors_total", "counter", "Checksums that were wrong, over all links.", |gpu| {
        gpu.sample.rare.nvlink?.crc_errors.map(count)
    }),
    ("compute_processes", "gauge", "Processes that compute on it.", |gpu| {
        gpu.sample.rare.compute_processes.as_ref().map(|processes| processes.len() as f64)
    }),
];

/// Appends the GPUs' families; what is not known has no sample. A machine without GPUs has none of them.
pub(crate) fn write(text: &mut Exposition, gpus: &Gpus) {
    if gpus.gpus.is_empty() && gpus.xids.is_empty() {
        return;
    }
    for (name, kind, help, value) in FAMILIES {
        let name = format!("mrgc_agent_gpu_{name}");
        text.family(&name, kind, help);
        for gpu in &gpus.gpus {
            if let Some(value) = value(gpu) {
                labelled(text, &name, Some(gpu), &[], value);
            }
        }
    }
    let name = "mrgc_agent_gpu_throttled";
    text.family(name, "gauge", "1 while this holds its clocks down.");
    for gpu in &gpus.gpus {
        for reason in gpu.sample.throttle_reasons.iter().flatten() {
            labelled(text, name, Some(gpu), &[("reason", reason.as_str())], 1);
        }
    }
    write_xids(text, gpus);
    let name = "mrgc_agent_gpu_nvml_calls_total";
    text.family(name, "counter", "Calls to NVML.");
    text.sample(name, "", gpus.nvml_calls);
}

/// Counters that stay after the XID was resolved: a scrape that comes later still sees that there was one.
fn write_xids(text: &mut Exposition, gpus: &Gpus) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Xid) -> f64| {
        text.family(name, kind, help);
        for xid in &gpus.xids {
            let gpu = gpus.gpus.iter().find(|gpu| gpu.sample.pci == Some(xid.pci));
            let (pci, code) = (xid.pci.to_string(), xid.code.to_string());
            labelled(text, name, gpu, &[("pci", &pci), ("xid", &code)], value(xid));
        }
    };
    family(
        "mrgc_agent_gpu_xid_errors_total",
        "counter",
        "XIDs since boot, by NVML's events and the kernel's log.",
        |xid| count(xid.count),
    );
    family(
        "mrgc_agent_gpu_xid_last_seen_timestamp_seconds",
        "gauge",
        "When the last one was seen.",
        |xid| xid.last_seen.0 as f64 / 1_000.0,
    );
}

/// With the GPU's own labels, empty for one that NVML does not list.
fn labelled(
    text: &mut Exposition,
    name: &str,
    gpu: Option<&Gpu>,
    more: &[(&str, &str)],
    value: impl Display,
) {
    let index = gpu.map(|gpu| gpu.sample.index.to_string()).unwrap_or_default();
    let uuid = gpu.and_then(|gpu| gpu.sample.uuid.as_deref()).unwrap_or_default();
    let own = [("gpu", index.as_str()), ("uuid", uuid)];
    let labels: Vec<(&str, &str)> = own.iter().chain(more).copied().collect();
    text.labelled(name, &labels, value);
}

fn count(value: u64) -> f64 {
    value as f64
}

fn hertz(mhz: u32) -> f64 {
    f64::from(mhz) * 1e6
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
