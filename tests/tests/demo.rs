//! The demo passes when all is well, and fails when something is not.

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// One fleet at a time: each keeps a small machine busy.
static TURN: Mutex<()> = Mutex::new(());

/// Plays the demo once, and gives its exit code and summary.
fn play(flags: &[&str]) -> Result<(Option<i32>, Value)> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let demo = env!("CARGO_BIN_EXE_mrgc-demo");
    let output = Command::new(demo).args(["--once", "--json"]).args(flags).output()?;
    let summary = serde_json::from_slice(&output.stdout).with_context(|| told(&output))?;
    eprintln!("{}", told(&output));
    Ok((output.status.code(), summary))
}

fn told(output: &Output) -> String {
    format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr))
}

/// What the checks that did not pass say, by name.
fn failed_checks(summary: &Value) -> Vec<(String, String)> {
    let checks = summary["checks"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    checks
        .filter(|check| check["passed"] == false)
        .map(|check| (text(&check["name"]), text(&check["detail"])))
        .collect()
}

/// The logs are kept where something failed; here they are looked at and removed.
fn log_of(summary: &Value, file: &str) -> Result<String> {
    let folder = PathBuf::from(summary["logs"].as_str().context("the logs were not kept")?);
    let log = std::fs::read_to_string(folder.join(file))?;
    std::fs::remove_dir_all(folder)?;
    Ok(log)
}

#[test]
fn it_passes_when_all_is_well() -> Result<()> {
    let (code, summary) = play(&["--seconds", "10"])?;
    assert_eq!(failed_checks(&summary), []);
    assert_eq!((code, &summary["passed"]), (Some(0), &Value::Bool(true)));
    assert_eq!(summary["failed"], 0);
    assert_eq!(summary["swaps"], 5);
    assert_eq!(summary["instances"], 6);
    assert!(summary["requests"].as_u64() >= Some(500), "{}", summary["requests"]);
    assert!(summary["first_decision_ms_p50"].as_f64() > Some(0.0));
    assert!(summary["logs"].is_null(), "nothing to look into");
    Ok(())
}

#[test]
fn it_fails_when_a_policy_traps_on_every_call() -> Result<()> {
    let (code, summary) = play(&["--seconds", "7", "--sabotage", "policy-traps"])?;
    assert_eq!(code, Some(1));
    let failed = failed_checks(&summary);
    let [(name, detail)] = failed.as_slice() else { bail!("{failed:?}") };
    assert_eq!(name, "every version swapped in decided");
    assert!(detail.contains("(traps-live) came to 0 decisions"), "{detail}");
    assert_eq!(summary["failed"], 0, "the native score stood in");
    let log = log_of(&summary, "router-us-east-1.log")?;
    ensure!(log.contains("policy fault"), "the router says nothing of it:\n{log}");
    Ok(())
}

#[test]
fn it_fails_when_an_agent_lies_about_its_health() -> Result<()> {
    let (code, summary) = play(&["--seconds", "7", "--sabotage", "lying-agent"])?;
    assert_eq!(code, Some(1));
    let failed = failed_checks(&summary);
    let detail = |name: &str| failed.iter().find(|(n, _)| n == name).map(|(_, detail)| detail);
    let requests = detail("no request failed").context("no request failed")?;
    assert!(requests.contains("us-2 answered 500"), "{requests}");
    let lie = detail("agents told the truth").context("nobody noticed the lie")?;
    assert!(lie.contains("us-2: its agent says healthy, and it answers 500"), "{lie}");
    assert!(summary["failed"].as_u64() > Some(0));
    log_of(&summary, "agent-us-2.log")?;
    Ok(())
}
