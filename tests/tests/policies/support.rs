//! What these tests share.

use std::{sync::OnceLock, time::Duration};

use anyhow::Context;
use mrgc_policy_host::{Candidate, Engine, Fault, Instance, Limits, Loads, Policy, Scores};
use mrgc_tests::policies::{Fleet, request, test_component};

/// Longer than by default, so that a busy machine does not look like a slow policy.
pub(crate) const LIMITS: Limits = Limits {
    artifact_bytes: 8 << 20,
    memory_bytes: 64 << 20,
    score_deadline: Duration::from_millis(200),
    observe_deadline: Duration::from_millis(500),
    answer_bytes: 1 << 20,
    log_lines: 16,
    log_line_bytes: 1024,
};

pub(crate) const VIEW: u32 = 3;
const CANDIDATES: usize = 5;

/// One for all tests: an engine reserves terabytes of address space.
pub(crate) fn engine() -> anyhow::Result<&'static Engine> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine);
    }
    let engine = Engine::new(LIMITS)?;
    Ok(ENGINE.get_or_init(|| engine))
}

/// The policy that misbehaves as configured, compiled once.
pub(crate) fn hostile() -> anyhow::Result<&'static Policy> {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    if let Some(policy) = POLICY.get() {
        return Ok(policy);
    }
    let policy = load_test("hostile")?;
    Ok(POLICY.get_or_init(|| policy))
}

pub(crate) fn load_test(name: &str) -> anyhow::Result<Policy> {
    Policy::load(engine()?, &test_component(name)?).with_context(|| format!("test policy {name}"))
}

/// A policy's instance, with the fleet it was shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) instance: Instance,
    fleet: Fleet,
}

impl Shown {
    pub(crate) fn new(policy: &Policy, config: &str) -> anyhow::Result<Self> {
        let mut shown = Self::unshown(policy, config)?;
        shown.observe()?;
        Ok(shown)
    }

    /// An instance that has not seen its fleet yet.
    pub(crate) fn unshown(policy: &Policy, config: &str) -> anyhow::Result<Self> {
        Ok(Self { instance: Instance::new(policy, config)?, fleet: Fleet::new(CANDIDATES, 9) })
    }

    pub(crate) fn observe(&mut self) -> Result<(), Fault> {
        let candidates: Vec<Candidate<'_>> = self.fleet.candidates();
        self.instance.observe(VIEW, &candidates)
    }

    pub(crate) fn score(&mut self, number: u64) -> Result<Scores, Fault> {
        let loads = Loads {
            in_flight: &self.fleet.in_flight,
            in_flight_tokens: &self.fleet.in_flight_tokens,
        };
        self.instance.score(VIEW, &request(number), &[], loads)
    }

    pub(crate) fn explain(&mut self, number: u64) -> Result<String, Fault> {
        let loads = Loads {
            in_flight: &self.fleet.in_flight,
            in_flight_tokens: &self.fleet.in_flight_tokens,
        };
        self.instance.explain(VIEW, &request(number), &[], loads, 1)
    }
}

/// A new instance of the policy, not told to misbehave, does all that is asked of it.
pub(crate) fn assert_healthy(policy: &Policy) -> anyhow::Result<()> {
    let mut shown = Shown::new(policy, "{}")?;
    let expected: Vec<f32> = shown.fleet.in_flight.iter().map(|n| 100.0 - *n as f32).collect();
    assert_eq!(shown.score(0)?.points, expected);
    assert!(shown.explain(0)?.starts_with("i-"));
    shown.instance.forget(VIEW)?;
    Ok(())
}
