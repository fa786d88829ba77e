use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::demo::tally::{Outcome, Served, Tally};

fn swap(decisions: u64, faults: u64, seen: bool) -> Swap {
    let first = |ms: Option<f64>| ms.filter(|_| seen);
    Swap {
        policy: "capacity".into(),
        generation: 3,
        uploaded_to: "us-east-1".into(),
        prepared_ms: 80.0,
        swapped_ms: 0.4,
        first_decision_ms: BTreeMap::from([
            ("eu-west-1".to_owned(), first(Some(900.0))),
            ("us-east-1".to_owned(), Some(90.0)),
        ]),
        decisions,
        faults,
    }
}

#[test]
fn a_version_has_to_decide_everywhere_without_a_fault() {
    for (swap, told) in [
        (swap(100, 0, true), None),
        (swap(1000, 1, true), Some("1,000 decisions and 1 fault")),
        (swap(0, 0, true), Some("0 decisions and 0 faults")),
        (swap(0, 7, true), Some("0 decisions and 7 faults")),
        (swap(100, 50, true), Some("100 decisions and 50 faults")),
        (swap(100, 0, false), Some("decided nothing in eu-west-1")),
    ] {
        let problem = problem_of(&swap);
        match told {
            None => assert_eq!(problem, None, "{swap:?}"),
            Some(told) => assert!(problem.is_some_and(|p| p.contains(told)), "{swap:?}"),
        }
    }
}

#[test]
fn an_agent_is_held_to_what_its_instance_does() {
    let truth = json!({
        "status": "healthy", "model_loaded": true, "enclave_running": null, "gpu": null,
        "checks": { "gpu": { "reason": "no NVML" } },
    });
    let ok = || Ok(StatusCode::OK);
    assert_eq!(contradiction(&truth, true, ok(), false), None);
    let lie = contradiction(&truth, true, Ok(StatusCode::INTERNAL_SERVER_ERROR), false);
    assert_eq!(
        lie.as_deref(),
        Some("its agent says healthy, and it answers 500 Internal Server Error")
    );
    assert!(contradiction(&truth, false, ok(), false).is_some(), "it says that it serves nothing");
    assert!(contradiction(&truth, true, ok(), true).is_some(), "it keeps its enclave to itself");
    for (key, value) in [("model_loaded", json!(null)), ("checks", json!({}))] {
        let mut said = truth.clone();
        said[key] = value;
        assert!(contradiction(&said, true, ok(), false).is_some(), "{key}");
    }
}

#[test]
fn one_request_astray_fails() {
    let tally = Tally::default();
    let mut counts = tally.counts();
    let serve = |counts: &mut Counts, id: &str, region: &str| {
        let served = Served::new(id, region, "score@0", 1);
        let outcome = Outcome::Answered(std::time::Duration::from_millis(1));
        counts.ended("us-east-1", Demand::Gdpr, false, Some(&served), outcome);
    };
    let check =
        |counts: &Counts| stayed(counts, Demand::Gdpr, "", |_, region| region == "eu-west-1");
    assert!(!check(&counts).passed, "none at all shows nothing");
    serve(&mut counts, "eu-1", "eu-west-1");
    assert!(check(&counts).passed);
    serve(&mut counts, "us-1", "us-east-1");
    assert_eq!(check(&counts).detail, "1 of 2 did not: 1 on us-1 in us-east-1");
}

#[test]
fn the_columns_of_the_versions_are_aligned() {
    let tally = Tally::default();
    let story = Story { swaps: vec![swap(172, 0, true)], ..Story::default() };
    let summary = judge(&tally.counts(), &story, &[], &[]);
    assert!(!summary.passed, "nothing was answered");
    let lines = summary.version_lines(Style::PLAIN);
    assert_eq!(lines[0].chars().count(), lines[1].chars().count(), "{lines:#?}");
    assert_eq!(summary.first_decision_ms_max, Some(90.0));
    assert_eq!(summary.first_decision_elsewhere_ms_max, Some(900.0));
}
