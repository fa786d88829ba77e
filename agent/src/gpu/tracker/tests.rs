#![allow(clippy::unwrap_used)]

use super::*;
use crate::gpu::{ledger::Moment, status::NvLink};

const PCI: PciAddress = PciAddress { domain: 0, bus: 0x10, device: 0 };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample() -> Sample {
    Sample { pci: Some(PCI), recovery_action: Some(Recovery::None), ..Sample::default() }
}

fn round(samples: Vec<Sample>) -> Reading<Round> {
    Reading::ok(Round { driver_version: Some("580".into()), samples, is_full: true })
}

fn sighting(source: Source, code: u32, at: u64) -> Observation {
    let at = Moment { since_boot: seconds(at), wall: Timestamp(at * 1_000) };
    let action = xid::action(code, None);
    Observation::Xid(Sighting { source, pci: PCI, code, action, at })
}

fn is_heard(tracker: &mut Tracker) {
    tracker.observe(Observation::Source(Source::NvmlEvents, Check::ok()));
    tracker.observe(Observation::Source(Source::KernelLog, Check::ok()));
}

fn seen(tracker: &Tracker, now: u64) -> (Status, Fitness, String) {
    let Reading { value, check } = tracker.reading(seconds(now));
    (check.status, value.unwrap().verdict.fitness, check.reason.unwrap_or_default())
}

#[test]
fn a_well_gpu_is_ok() {
    let mut tracker = Tracker::new(None);
    assert_eq!(tracker.reading(seconds(0)).check, Check::unasked());
    is_heard(&mut tracker);
    tracker.sampled(round(vec![sample()]), 7, seconds(1));
    let Reading { value, check } = tracker.reading(seconds(1));
    assert_eq!(check, Check::ok());
    let gpus = value.unwrap();
    assert_eq!((gpus.gpus.len(), gpus.nvml_calls), (1, 7));
    assert_eq!(gpus.driver_version.as_deref(), Some("580"));
}

#[test]
fn an_xid_counts_at_once_and_while_nvml_hangs() {
    let mut tracker = Tracker::new(None);
    is_heard(&mut tracker);
    tracker.sampled(round(vec![sample()]), 0, seconds(1));
    tracker.observe(sighting(Source::KernelLog, 79, 2));
    let (status, fitness, reason) = seen(&tracker, 2);
    assert_eq!((status, fitness), (Status::Error, Fitness::Unfit));
    assert_eq!(reason, "GPU 0: XID 79 (GPU has fallen off the bus); reboot the machine");

    tracker.sampled(Reading::error("NVML has not answered for 9 s"), 0, seconds(3));
    let (status, fitness, reason) = seen(&tracker, 3);
    assert_eq!((status, fitness), (Status::Error, Fitness::Unfit));
    assert!(
        reason.starts_with("NVML has not answered for 9 s; GPU at 0000:10:00: XID 79"),
        "{reason}"
    );
}

#[test]
fn the_driver_s_own_word_resolves_an_xid() {
    let mut tracker = Tracker::new(None);
    is_heard(&mut tracker);
    let wants = |recovery| round(vec![Sample { recovery_action: Some(recovery), ..sample() }]);
    tracker.sampled(wants(Recovery::None), 0, seconds(1));
    tracker.observe(sighting(Source::KernelLog, 95, 2));
    tracker.sampled(wants(Recovery::None), 0, seconds(3));
    assert_eq!(seen(&tracker, 3).1, Fitness::Unfit, "it never asked for anything");
    tracker.sampled(wants(Recovery::ResetGpu), 0, seconds(4));
    assert_eq!(seen(&tracker, 4).1, Fitness::Unfit);
    tracker.sampled(wants(Recovery::None), 0, seconds(5));
    assert_eq!(seen(&tracker, 5).1, Fitness::Fit);
}

#[test]
fn a_driver_that_was_loaded_anew_begins_anew() {
    let mut tracker = Tracker::new(None);
    is_heard(&mut tracker);
    tracker.sampled(round(vec![sample()]), 0, seconds(1));
    tracker.observe(sighting(Source::NvmlEvents, 119, 2));
    tracker.observe(Observation::DriverLoaded(seconds(3)));
    assert_eq!(seen(&tracker, 4).1, Fitness::Fit);
}

#[test]
fn an_event_without_its_text_waits_for_the_log_where_that_is_read() {
    let mut tracker = Tracker::new(None);
    tracker.sampled(round(vec![sample()]), 0, seconds(1));
    is_heard(&mut tracker);
    tracker.observe(sighting(Source::NvmlEvents, 149, 2));
    assert_eq!(seen(&tracker, 2).1, Fitness::Fit);
    tracker.observe(Observation::Source(Source::KernelLog, Check::error("no")));
    tracker.observe(sighting(Source::NvmlEvents, 149, 3));
    assert_eq!(seen(&tracker, 3).1, Fitness::Unfit);
}

#[test]
fn a_gpu_or_a_link_that_was_there_is_missed() {
    let linked = |active| {
        let mut sample = sample();
        sample.rare.nvlink = Some(NvLink { active, ..NvLink::default() });
        sample
    };
    let mut tracker = Tracker::new(None);
    is_heard(&mut tracker);
    let second = Sample { index: 1, pci: None, ..sample() };
    tracker.sampled(round(vec![linked(18), second.clone()]), 0, seconds(1));
    assert_eq!(seen(&tracker, 1).1, Fitness::Fit);
    tracker.sampled(round(vec![linked(17), second]), 0, seconds(2));
    assert_eq!(
        seen(&tracker, 2).2,
        "GPU 0: 17 of 18 NVLinks are active; reset the GPU: stop what uses it, this agent too, and run nvidia-smi --gpu-reset"
    );
    tracker.sampled(round(vec![linked(18)]), 0, seconds(3));
    assert_eq!(seen(&tracker, 3).2, "NVML lists 1 of 2 GPUs; reboot the machine");

    let mut tracker = Tracker::new(Some(8));
    is_heard(&mut tracker);
    tracker.sampled(round(vec![sample()]), 0, seconds(1));
    assert_eq!(seen(&tracker, 1).1, Fitness::Unfit);
    tracker.sampled(Reading::missing("no driver"), 0, seconds(2));
    assert_eq!(seen(&tracker, 2).0, Status::Missing, "what cannot be counted is not missed");
}

#[test]
fn xids_that_nobody_tells_are_a_reason() {
    let mut tracker = Tracker::new(None);
    tracker.sampled(round(vec![sample()]), 0, seconds(1));
    assert_eq!(seen(&tracker, 1).1, Fitness::Fit, "nobody was asked yet");
    tracker.observe(Observation::Source(Source::KernelLog, Check::error("no log")));
    assert_eq!(seen(&tracker, 1).1, Fitness::Fit, "one is enough");
    tracker.observe(Observation::Source(Source::NvmlEvents, Check::error("no events")));
    let (status, fitness, reason) = seen(&tracker, 1);
    assert_eq!((status, fitness), (Status::Degraded, Fitness::Degraded));
    assert_eq!(reason, "XIDs are not seen: no events; no log");
}
