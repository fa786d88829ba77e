//! Holds the table of who may use whom (ARCHITECTURE.md).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// What each crate of ours may depend on, for its own code and for its tests.
fn allowed(package: &str) -> &'static [&'static str] {
    match package {
        "mrgc-fleet" | "mrgc-settings" => &[],
        "mrgc-policy-host" | "mrgc-policy-sdk" => &[],
        "mrgc-aws" => &[],
        "mrgc-store" => &["mrgc-fleet"],
        "mrgc-agent" => &["mrgc-aws", "mrgc-fleet", "mrgc-settings", "mrgc-store"],
        "mrgc-router" => {
            &["mrgc-aws", "mrgc-fleet", "mrgc-policy-host", "mrgc-settings", "mrgc-store"]
        }
        "mrgc-cli" => &["mrgc-fleet", "mrgc-policy-host", "mrgc-settings", "mrgc-store"],
        // Tests stand outside: they may see everything but the programs, which they run as processes.
        "mrgc-tests" => &["mrgc-fleet", "mrgc-policy-host", "mrgc-policy-sdk", "mrgc-store"],
        // The core alone: what is simulated is what runs.
        "mrgc-sim" => &["mrgc-fleet"],
        "xtask" | "nsm-double" | "nvml-double" => &[],
        policy if policy.starts_with("mrgc-policy-") || policy.starts_with("mrgc-test-policy-") => {
            &["mrgc-policy-sdk"]
        }
        other => panic!(
            "{other} has no row in the table of dependencies: add one to ARCHITECTURE.md and here"
        ),
    }
}

/// The workspace's packages, as cargo tells of them.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let packages = packages();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(ours.contains("mrgc-router") && ours.len() > 15, "{ours:?}");

    let mut arrows = 0;
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let is_dev = dependency["kind"] == "dev";
            if !ours.contains(used) || (is_dev && matches!(used, "nsm-double" | "nvml-double")) {
                continue;
            }
            arrows += 1;
            assert!(allowed(name).contains(&used), "{name} may not depend on {used}");
        }
    }
    assert!(arrows > 20, "only {arrows} arrows were looked at");
}

/// The faults that the simulator must catch are in no build that did not ask for them: no dependency and no
/// other feature turns the feature `planted` on.
#[test]
fn faults_are_planted_only_where_they_are_asked_for() {
    let is_planted = |feature: &str| feature.split('/').next_back() == Some("planted");
    let mut planted = 0;
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        for (feature, enabled) in package["features"].as_object().unwrap() {
            if feature == "planted" {
                planted += 1;
                continue;
            }
            let found =
                enabled.as_array().unwrap().iter().find(|f| is_planted(f.as_str().unwrap()));
            assert!(found.is_none(), "{name}: its feature `{feature}` turns {found:?} on");
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let features = dependency["features"].as_array().unwrap();
            let plants = features.iter().any(|feature| is_planted(feature.as_str().unwrap()));
            assert!(!plants, "{name} turns `planted` of {} on", dependency["name"]);
        }
    }
    assert!(planted > 0, "nobody has the feature any more");
}

/// The core decides; it does not look at clocks, files, sockets or threads.
#[test]
fn the_core_does_no_io() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fleet/src");
    let forbidden = [
        "std::time",
        "SystemTime",
        "Instant",
        "std::fs",
        "std::net",
        "std::thread",
        "std::io",
        "async fn",
        "tokio",
    ];
    let mut files = 0;
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = forbidden.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{}: {line}", path.display());
            }
        }
    }
    assert!(files > 10, "only {files} files were looked at");
}
