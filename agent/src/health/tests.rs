#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::signals::{Inference, Load};

const NOTHING_REQUIRED: Requirements =
    Requirements { gpu: false, enclave: false, inference: false, silent_polls: 3 };

fn models(names: &[&str]) -> Reading<Vec<String>> {
    Reading::ok(names.iter().map(|name| (*name).to_owned()).collect())
}

fn load() -> Reading<Load> {
    Reading::ok(Load { waiting: Some(2), running: Some(1), ..Load::default() })
}

fn inference(load: Reading<Load>, models: Reading<Vec<String>>, reachable: bool) -> Inference {
    Inference { reachable, ..Inference::new(load, models, Duration::ZERO) }
}

fn polled(load: Reading<Load>, models: Reading<Vec<String>>) -> Option<Polls> {
    let mut polls = Polls::none();
    polls.add(inference(load, models, true));
    Some(polls)
}

fn silent(times: u32, answered_once: bool, reachable: bool) -> Option<Polls> {
    let mut polls = Polls::none();
    if answered_once {
        polls.add(inference(load(), models(&["m"]), true));
    }
    for _ in 0..times {
        let (load, models) = (Reading::error("no answer"), Reading::error("no answer"));
        polls.add(inference(load, models, reachable));
    }
    Some(polls)
}

/// A machine on which everything is well, and nothing but the inference server is there.
fn good() -> Signals {
    let mut signals = Signals::none(true);
    signals.inference = polled(load(), models(&["m"]));
    signals
}

#[test]
fn the_inference_server_decides() {
    use Health::{Degraded, Healthy, Unhealthy};
    // Polls; health where the server is required, and where it is not.
    for (case, polls, required, optional) in [
        ("serves", polled(load(), models(&["m"])), Healthy, Healthy),
        ("not configured", None, Degraded, Degraded),
        ("not polled yet", Some(Polls::none()), Unhealthy, Degraded),
        ("serves no model", polled(load(), models(&[])), Unhealthy, Degraded),
        ("no models page", polled(load(), Reading::error("404")), Degraded, Degraded),
        ("no metrics", polled(Reading::missing("garbled"), models(&["m"])), Degraded, Degraded),
        ("never answered", silent(1, false, true), Unhealthy, Degraded),
        ("silent once", silent(1, true, true), Degraded, Degraded),
        ("silent twice", silent(2, true, true), Degraded, Degraded),
        ("silent for long", silent(3, true, true), Unhealthy, Degraded),
        ("gone", silent(1, true, false), Unhealthy, Degraded),
    ] {
        let signals = Signals { inference: polls, ..Signals::none(true) };
        for (inference, expected) in [(true, required), (false, optional)] {
            let requirements = Requirements { inference, ..NOTHING_REQUIRED };
            let assessment = assess(&signals, &requirements);
            assert_eq!(assessment.health, expected, "{case}, required: {inference}");
            assert_eq!(assessment.reason.is_some(), expected != Healthy, "{case}");
        }
    }
}

#[test]
fn a_part_counts_as_far_as_it_is_required() {
    use Health::{Degraded, Healthy, Unhealthy};
    for (case, check, required, optional) in [
        ("ok", Check::ok(), Healthy, Healthy),
        ("degraded", Check::degraded("hot"), Degraded, Degraded),
        ("error", Check::error("hangs"), Unhealthy, Degraded),
        ("missing", Check::missing("no driver"), Unhealthy, Healthy),
    ] {
        let gpu = Reading { value: None, check: check.clone() };
        let enclave = Reading { value: None, check: check.clone() };
        for (is_required, expected) in [(true, required), (false, optional)] {
            let gpu_only = Requirements { gpu: is_required, ..NOTHING_REQUIRED };
            let assessment = assess(&Signals { gpu: gpu.clone(), ..good() }, &gpu_only);
            assert_eq!(assessment.health, expected, "GPU {case}, required: {is_required}");
            assert_eq!(assessment.checks.gpu, check);

            let enclave_only = Requirements { enclave: is_required, ..NOTHING_REQUIRED };
            let assessment = assess(&Signals { enclave: enclave.clone(), ..good() }, &enclave_only);
            assert_eq!(assessment.health, expected, "enclave {case}, required: {is_required}");
        }
    }
}

#[test]
fn an_unfit_gpu_is_unhealthy_whether_or_not_one_is_required() {
    for (fitness, expected) in [
        (Fitness::Fit, Health::Degraded),
        (Fitness::Degraded, Health::Degraded),
        (Fitness::Unfit, Health::Unhealthy),
    ] {
        let mut gpus = Gpus::default();
        gpus.verdict.fitness = fitness;
        let gpu = Reading::noted(gpus, Check::degraded("GPU 1: XID 79"));
        for is_required in [true, false] {
            let required = Requirements { gpu: is_required, ..NOTHING_REQUIRED };
            let assessment = assess(&Signals { gpu: gpu.clone(), ..good() }, &required);
            assert_eq!(assessment.health, expected, "{fitness:?}, required: {is_required}");
            assert_eq!(assessment.reason.as_deref(), Some("gpu: GPU 1: XID 79"));
        }
    }
}

#[test]
fn a_required_enclave_must_run() {
    let required = Requirements { enclave: true, ..NOTHING_REQUIRED };
    for (running, required, expected) in [
        (1, required, Health::Healthy),
        (0, required, Health::Unhealthy),
        (0, NOTHING_REQUIRED, Health::Healthy),
    ] {
        let enclave = Reading::ok(Enclaves { running, listed: 1, ..Enclaves::default() });
        let assessment = assess(&Signals { enclave, ..good() }, &required);
        assert_eq!(assessment.health, expected, "{running} running");
    }
}

#[test]
fn a_store_that_is_silent_says_nothing_about_serving() {
    for (fenced, check, expected) in [
        (false, Check::ok(), Health::Healthy),
        (false, Check::missing("not registered yet"), Health::Healthy),
        (false, Check::degraded("no answer"), Health::Healthy),
        (true, Check::error("fenced: generation 1 lost"), Health::Degraded),
    ] {
        let mut signals = good();
        signals.store.fenced = fenced;
        signals.store.check = check.clone();
        let assessment = assess(&signals, &NOTHING_REQUIRED);
        assert_eq!((assessment.health, &assessment.checks.store), (expected, &check));
    }
}

#[test]
fn the_reason_names_each_part_that_is_not_well() {
    let signals = Signals {
        gpu: Reading::error("NVML hangs"),
        inference: silent(1, false, true),
        ..Signals::none(true)
    };
    let required = Requirements { inference: true, ..NOTHING_REQUIRED };
    assert_eq!(
        assess(&signals, &required).reason.as_deref(),
        Some("inference: no answer; model: no answer; gpu: NVML hangs")
    );
}
