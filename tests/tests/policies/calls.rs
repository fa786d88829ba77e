//! Policies that misbehave in a call: the host tells what was wrong within the deadline, and goes on.

use std::time::{Duration, Instant};

use mrgc_policy_host::{Fault, Instance, LoadError};

use crate::support::{LIMITS, Shown, VIEW, assert_healthy, hostile};

/// How many times its deadline a call may take on a busy machine.
const PATIENCE: u32 = 20;
const EXPORTS: [&str; 5] = ["configure", "observe", "forget", "score", "explain"];

fn config(export: &str, what: &str) -> String {
    format!(r#"{{"export": "{export}", "what": "{what}"}}"#)
}

fn deadline(export: &str) -> Duration {
    match export {
        "score" | "explain" => LIMITS.score_deadline,
        _ => LIMITS.observe_deadline,
    }
}

/// Makes the calls up to the one that misbehaves, and that one. All before it must go well.
fn call(export: &str, what: &str) -> anyhow::Result<(Fault, Option<Shown>, Duration)> {
    let policy = hostile()?;
    let config = config(export, what);
    if export == "configure" {
        let started = Instant::now();
        return match Instance::new(policy, &config) {
            Err(LoadError::Start(fault)) => Ok((fault, None, started.elapsed())),
            other => anyhow::bail!("configure: {other:?}"),
        };
    }
    // An instance that must not fault in `observe` is shown its fleet by `Shown::new`.
    let mut shown = match export {
        "observe" => Shown::unshown(policy, &config)?,
        _ => Shown::new(policy, &config)?,
    };
    let started = Instant::now();
    let outcome = match export {
        "observe" => shown.observe(),
        "forget" => shown.instance.forget(VIEW),
        "score" => shown.score(0).map(drop),
        _ => shown.explain(0).map(drop),
    };
    let took = started.elapsed();
    match outcome {
        Err(fault) => Ok((fault, Some(shown), took)),
        Ok(()) => anyhow::bail!("{export} did not fault on {what}"),
    }
}

/// The fault is as expected, in time; the instance is dead, and the next one works.
fn assert_fault(export: &str, what: &str, expected: impl Fn(&Fault) -> bool) -> anyhow::Result<()> {
    let (fault, shown, took) = call(export, what)?;
    assert!(expected(&fault), "{export}, {what}: {fault:?}");
    assert!(took < deadline(export) * PATIENCE, "{export}, {what}: took {took:?}");
    if let Some(mut shown) = shown {
        assert!(shown.instance.is_dead(), "{export}, {what}");
        assert_eq!(shown.score(0).map(drop), Err(Fault::Dead), "{export}, {what}");
    }
    assert_healthy(hostile()?)
}

#[test]
fn an_endless_loop_is_a_timeout() -> anyhow::Result<()> {
    for export in EXPORTS {
        let deadline_ms = deadline(export).as_millis() as u64;
        assert_fault(export, "loop", |fault| *fault == Fault::Timeout { deadline_ms })?;
    }
    Ok(())
}

#[test]
fn a_panic_is_a_trap_with_its_message() -> anyhow::Result<()> {
    for export in EXPORTS {
        assert_fault(
            export,
            "trap",
            |fault| matches!(fault, Fault::Trap(message) if message.contains("hostile on purpose")),
        )?;
    }
    Ok(())
}

#[test]
fn allocating_without_end_reaches_the_memory_limit() -> anyhow::Result<()> {
    for export in EXPORTS {
        let limit_bytes = LIMITS.memory_bytes;
        assert_fault(export, "allocate", |fault| *fault == Fault::Memory { limit_bytes })?;
    }
    Ok(())
}

#[test]
fn a_huge_answer_is_not_copied_out() -> anyhow::Result<()> {
    for (export, what) in
        [("score", "huge_answer"), ("explain", "huge_answer"), ("observe", "huge_log")]
    {
        assert_fault(
            export,
            what,
            |fault| matches!(fault, Fault::Trap(message) if message.contains("too much data")),
        )?;
    }
    Ok(())
}

#[test]
fn a_bad_answer_is_a_fault_that_the_instance_survives() -> anyhow::Result<()> {
    type Expected = fn(&Fault) -> bool;
    let cases: [(&str, Expected); 3] = [
        ("wrong_length", |fault| *fault == Fault::WrongLength { expected: 5, got: 6 }),
        ("nan", |fault| matches!(fault, Fault::NotANumber { index: 4, value } if value.is_nan())),
        ("infinity", |fault| *fault == Fault::NotANumber { index: 4, value: f32::INFINITY }),
    ];
    for (what, expected) in cases {
        let mut shown = Shown::new(hostile()?, &config("score", what))?;
        for number in 0..2 {
            let fault = shown.score(number).expect_err(what);
            assert!(expected(&fault), "{what}: {fault:?}");
            assert!(!shown.instance.is_dead(), "{what}");
        }
        assert!(shown.explain(0)?.starts_with("i-"), "{what}");
    }
    Ok(())
}

#[test]
fn what_is_above_100_is_clamped_and_counted() -> anyhow::Result<()> {
    let scores = Shown::new(hostile()?, &config("score", "above_100"))?.score(0)?;
    assert_eq!((scores.clamped, scores.points[4]), (1, 100.0));
    Ok(())
}

#[test]
fn a_fault_may_come_after_good_answers() -> anyhow::Result<()> {
    let config = r#"{"export": "score", "what": "trap", "from_number": 3}"#;
    let mut shown = Shown::new(hostile()?, config)?;
    for number in 0..3 {
        shown.score(number)?;
    }
    assert_eq!(shown.score(3).map(drop).map_err(|fault| fault.kind()), Err("trap"));
    assert_healthy(hostile()?)
}

#[test]
fn a_call_out_of_order_is_a_trap_that_says_so() -> anyhow::Result<()> {
    let mut shown = Shown::unshown(hostile()?, "{}")?;
    let fault = shown.score(0).expect_err("no view yet");
    assert!(
        matches!(&fault, Fault::Trap(message) if message.contains("never observed")),
        "{fault:?}"
    );
    Ok(())
}
