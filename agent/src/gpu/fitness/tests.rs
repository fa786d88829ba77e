#![allow(clippy::unwrap_used)]

use mrgc_fleet::model::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::gpu::status::{Ecc, NvLink, PciAddress, Rare, RemappedRows};

const PCI: PciAddress = PciAddress { domain: 0, bus: 0x10, device: 0 };

/// A GPU that answers everything, and has nothing.
fn well() -> Sample {
    Sample {
        pci: Some(PCI),
        temperature_celsius: Some(60),
        throttle_reasons: Some(vec![Throttle::SwPowerCap]),
        remapped_rows: Some(RemappedRows {
            corrected: Some(3),
            uncorrected: Some(1),
            pending: Some(false),
            failure: Some(false),
        }),
        recovery_action: Some(Recovery::None),
        rare: Rare {
            slowdown_celsius: Some(87),
            shutdown_celsius: Some(92),
            ecc: Some(Ecc { aggregate_uncorrected: Some(2), ..ecc(0) }),
            nvlink: Some(NvLink { active: 18, recovery_errors: Some(5), ..NvLink::default() }),
            ..Rare::default()
        },
        ..Sample::default()
    }
}

fn ecc(volatile_uncorrected: u64) -> Ecc {
    Ecc { volatile_uncorrected: Some(volatile_uncorrected), ..Ecc::default() }
}

fn xid(code: u32, action: Action) -> Xid {
    let at = Timestamp(1);
    let name = "test";
    Xid { pci: PCI, code, name, action, is_held: true, count: 1, first_seen: at, last_seen: at }
}

const BEFORE: Before = Before { active_links: 18 };

/// A signal, and what it alone makes of a GPU that is well.
type Signal = (&'static str, fn(&mut Sample), Fitness, Action);

fn rows(sample: &mut Sample) -> &mut RemappedRows {
    sample.remapped_rows.as_mut().unwrap()
}

const SIGNALS: &[Signal] = &[
    ("lost", |s| s.is_lost = true, Fitness::Unfit, Action::Reboot),
    ("refused", |s| s.requires_reset = true, Fitness::Unfit, Action::ResetGpu),
    ("failed call", |s| s.failed_calls.push("f: no".into()), Fitness::Degraded, Action::None),
    ("remap failed", |s| rows(s).failure = Some(true), Fitness::Unfit, Action::ContactSupport),
    ("remap pending", |s| rows(s).pending = Some(true), Fitness::Degraded, Action::ResetGpu),
    ("uncorrected", |s| s.rare.ecc = Some(ecc(1)), Fitness::Degraded, Action::ResetGpu),
    ("reset", |s| s.recovery_action = Some(Recovery::ResetGpu), Fitness::Unfit, Action::ResetGpu),
    ("reboot", |s| s.recovery_action = Some(Recovery::Reboot), Fitness::Unfit, Action::Reboot),
    (
        "peers",
        |s| s.recovery_action = Some(Recovery::DrainPeers),
        Fitness::Degraded,
        Action::RestartApplication,
    ),
    (
        "drain",
        |s| s.recovery_action = Some(Recovery::DrainAndReset),
        Fitness::Degraded,
        Action::ResetGpu,
    ),
    (
        "new recovery",
        |s| s.recovery_action = Some(Recovery::Unknown(9)),
        Fitness::Degraded,
        Action::ContactSupport,
    ),
    (
        "hot",
        |s| s.throttle_reasons = Some(vec![Throttle::HwThermalSlowdown]),
        Fitness::Degraded,
        Action::None,
    ),
    (
        "warm",
        |s| s.throttle_reasons = Some(vec![Throttle::SwThermalSlowdown]),
        Fitness::Degraded,
        Action::None,
    ),
    (
        "brake",
        |s| s.throttle_reasons = Some(vec![Throttle::HwPowerBrake]),
        Fitness::Degraded,
        Action::None,
    ),
    ("about to turn off", |s| s.temperature_celsius = Some(90), Fitness::Degraded, Action::None),
    (
        "link down",
        |s| s.rare.nvlink = Some(NvLink { active: 17, inactive: 1, ..NvLink::default() }),
        Fitness::Degraded,
        Action::ResetGpu,
    ),
];

#[test]
fn each_signal_alone() {
    assert_eq!(judge(&well(), &[], BEFORE), Verdict::default());
    for (name, change, fitness, action) in SIGNALS {
        let mut sample = well();
        change(&mut sample);
        let verdict = judge(&sample, &[], BEFORE);
        assert_eq!((verdict.fitness, verdict.action), (*fitness, *action), "{name}");
        assert_eq!(verdict.reasons.len(), 1, "{name}: {:?}", verdict.reasons);
    }
}

#[test]
fn each_kind_of_xid_alone() {
    for (action, fitness) in [
        (Action::None, Fitness::Fit),
        (Action::RestartApplication, Fitness::Degraded),
        (Action::ResetGpu, Fitness::Unfit),
        (Action::Reboot, Fitness::Unfit),
        (Action::ContactSupport, Fitness::Degraded),
    ] {
        let verdict = judge(&well(), &[&xid(13, action)], BEFORE);
        assert_eq!((verdict.fitness, verdict.action), (fitness, action));
    }
    let verdict = judge(&well(), &[&xid(95, Action::ResetGpu)], BEFORE);
    assert_eq!(verdict.reasons, ["XID 95 (test)"]);
}

#[test]
fn what_is_only_shown_is_no_reason() {
    let shown = Sample {
        throttle_reasons: Some(vec![
            Throttle::SwPowerCap,
            Throttle::HwSlowdown,
            Throttle::SyncBoost,
            Throttle::ApplicationClocks,
        ]),
        temperature_celsius: Some(88),
        ..well()
    };
    assert_eq!(judge(&shown, &[], BEFORE).fitness, Fitness::Fit);
    // A GPU that says nothing beyond its name.
    assert_eq!(judge(&Sample::default(), &[], Before::default()).fitness, Fitness::Fit);
}

#[test]
fn the_machine_is_its_worst_gpu_and_says_which() {
    let gpu = |index: u32, sample: Sample| {
        let sample = Sample { index, ..sample };
        Gpu { verdict: judge(&sample, &[], BEFORE), sample }
    };
    let lost = Sample { is_lost: true, ..well() };
    let gpus = [gpu(0, well()), gpu(1, lost)];
    let verdict = judge_machine(&gpus, &[], Some(2));
    assert_eq!((verdict.fitness, verdict.action), (Fitness::Unfit, Action::Reboot));
    assert_eq!(verdict.reasons, ["GPU 1: it has fallen off the bus"]);

    let verdict = judge_machine(&gpus[..1], &[], Some(2));
    assert_eq!((verdict.fitness, verdict.action), (Fitness::Unfit, Action::Reboot));
    assert_eq!(verdict.reasons, ["NVML lists 1 of 2 GPUs"]);

    let elsewhere = xid(79, Action::Reboot);
    let verdict = judge_machine(&[], &[&elsewhere], None);
    assert_eq!(verdict.fitness, Fitness::Unfit);
    assert_eq!(verdict.reasons, ["GPU at 0000:10:00: XID 79 (test)"]);
}

fn some_signals() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..SIGNALS.len(), 0..6)
}

fn sample_with(signals: &[usize]) -> Sample {
    let mut sample = well();
    for index in signals {
        (SIGNALS[*index].1)(&mut sample);
    }
    sample
}

proptest! {
    #[test]
    fn one_more_signal_never_makes_it_better(
        signals in some_signals(),
        codes in prop::collection::vec(0..5_usize, 0..4),
    ) {
        let actions = [
            Action::None,
            Action::RestartApplication,
            Action::ResetGpu,
            Action::Reboot,
            Action::ContactSupport,
        ];
        let xids: Vec<Xid> = codes.iter().map(|index| xid(1, actions[*index])).collect();
        let xids: Vec<&Xid> = xids.iter().collect();
        // The signals that set the same field undo each other, so it is XIDs that are added here.
        let sample = sample_with(&signals);
        for count in 1..=xids.len() {
            let (less, more) = (judge(&sample, &xids[..count - 1], BEFORE), judge(&sample, &xids[..count], BEFORE));
            prop_assert!(less.fitness <= more.fitness);
            prop_assert!(less.action <= more.action);
        }
        let alone = judge(&sample, &[], BEFORE);
        prop_assert_eq!(alone.reasons.is_empty(), alone.fitness == Fitness::Fit);
        prop_assert!(alone.fitness != Fitness::Fit || alone.action == Action::None);
        prop_assert!(alone.fitness != Fitness::Unfit || alone.action >= Action::ResetGpu);
    }

    #[test]
    fn a_lost_gpu_is_unfit_whatever_else_it_says(signals in some_signals()) {
        let sample = Sample { is_lost: true, ..sample_with(&signals) };
        let verdict = judge(&sample, &[], BEFORE);
        prop_assert_eq!(verdict.fitness, Fitness::Unfit);
        prop_assert!(verdict.action >= Action::Reboot);
        prop_assert!(verdict.reasons.len() <= MAX_REASONS);
    }
}
