#![allow(clippy::unwrap_used)]

use mrgc_fleet::model::CleanupCheckKind;

use super::*;
use crate::{
    gpu::status::{Gpus, Verdict},
    signals::Reading,
};

const LIMITS: DrainLimits = DrainLimits {
    deadline: Duration::from_secs(60),
    settle: Duration::ZERO,
    unknown_grace: Duration::from_secs(30),
};

/// A machine without GPUs and enclaves, and its course.
struct Story {
    course: Course,
    signals: Signals,
    now: Duration,
}

impl Story {
    fn serving() -> Self {
        let mut scope = Scope::default();
        scope.config.paths.push("/scratch".into());
        let mut signals = Signals::none(false);
        signals.gpu = Reading::missing("no driver");
        signals.enclave = Reading::missing("no nitro-cli");
        let mut course = Course::new(scope, Kept::default(), Duration::ZERO);
        course.registered(None, Duration::ZERO);
        Self { course, signals, now: Duration::ZERO }
    }

    fn step(&mut self) -> Lifecycle {
        self.now += Duration::from_secs(1);
        let Self { course, signals, now } = self;
        course.step(signals, InFlight::Nothing, *now, *now, &LIMITS);
        course.life.phase()
    }

    /// Begins a cleanup, and gives its number.
    fn clean(&mut self) -> u64 {
        self.course.obey(Order::Clean, &self.signals, self.now).unwrap();
        while self.course.cleaning().is_none() {
            self.step();
        }
        self.course.cleaning().unwrap()
    }

    fn found(&mut self, run: u64, check: CleanupCheck) -> Lifecycle {
        self.course.looked(run, vec![check], self.now);
        self.step()
    }

    fn sampled(&mut self, fitness: Fitness, second: u64) -> Lifecycle {
        let verdict = Verdict { fitness, reasons: vec!["XID 79".to_owned()], ..Verdict::default() };
        self.signals.gpu = Reading::ok(Gpus { verdict, ..Gpus::default() });
        self.course.gpu_sampled(&self.signals, Duration::from_secs(second));
        self.course.life.phase()
    }
}

#[test]
fn only_what_is_on_record_lets_requests_in() {
    let mut story = Story::serving();
    let run = story.clean();
    let passed = CleanupCheck::passed(CleanupCheckKind::Paths);
    assert_eq!(story.found(run + 1, passed.clone()), Lifecycle::Cleaning, "of another run");
    assert!(story.course.unrecorded.is_empty());
    assert_eq!(story.found(run, passed), Lifecycle::Cleaning);
    assert_eq!(story.course.unrecorded.len(), 1);
    assert_eq!(story.step(), Lifecycle::Cleaning, "the store has not said that it has it");
    story.course.recorded(run, story.now);
    assert_eq!(story.step(), Lifecycle::Available);
    assert!(story.course.unrecorded.is_empty());
    assert_eq!(story.course.cleaning(), None);
}

#[test]
fn what_fails_quarantines_before_it_is_on_record_and_every_run_has_a_number() {
    let mut story = Story::serving();
    let failed = CleanupCheck::failed(CleanupCheckKind::Paths, "/scratch has files");
    for run in 1..=MAX_UNRECORDED as u64 + 2 {
        assert_eq!(story.clean(), run);
        assert_eq!(story.found(run, failed.clone()), Lifecycle::Quarantined);
    }
    let kept: Vec<u64> = story.course.unrecorded.iter().map(|findings| findings.run).collect();
    assert_eq!(kept, (3..=10).collect::<Vec<_>>(), "the oldest are given up");
    story.course.recorded(3, story.now);
    assert_eq!(story.step(), Lifecycle::Quarantined);
}

#[test]
fn gpus_must_be_unfit_for_a_while() {
    use Fitness::{Degraded, Unfit};
    for (case, readings, expected) in [
        ("a glitch", &[(0, Unfit), (4, Unfit)][..], Lifecycle::Available),
        ("for good", &[(0, Unfit), (5, Unfit)], Lifecycle::Quarantined),
        ("not without a break", &[(0, Unfit), (3, Degraded), (5, Unfit)], Lifecycle::Available),
        ("and it stays", &[(0, Unfit), (5, Unfit), (6, Degraded)], Lifecycle::Quarantined),
    ] {
        let mut story = Story::serving();
        let phases = readings.iter().map(|(second, fitness)| story.sampled(*fitness, *second));
        assert_eq!(phases.last(), Some(expected), "{case}");
    }
}
