//! `mrgc state init` and `check`.

use serde_json::Value;

use crate::support::{Engine, said};

#[tokio::test]
async fn tables_that_fit_are_told_in_aligned_columns_without_colour() {
    let engine = Engine::start().await;
    let said = said(&mut engine.state(&["check"])).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert!(!said.out.contains('\u{1b}'), "{:?}", said.out);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 9, "{}", said.out);
    let column = lines[0].find("STATE").unwrap();
    assert!(lines[1..].iter().all(|line| line[column..].starts_with("ok")), "{}", said.out);
    engine.stop().await;
}

#[tokio::test]
async fn missing_tables_are_all_told_and_then_made() {
    let engine = Engine::start().await;
    let state = |arguments: &[&str]| {
        let mut command = engine.state(arguments);
        command.args(["--table-prefix", "fresh"]);
        command
    };
    let before = said(&mut state(&["check"])).await;
    assert_eq!(before.code, Some(1), "{before:?}");
    assert_eq!(before.out.matches("it does not exist").count(), 8, "{}", before.out);
    assert_eq!(before.out.matches("run `mrgc state init`").count(), 8, "{}", before.out);

    let made = said(&mut state(&["init"])).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.err.contains("fresh-regions: created\n"), "{}", made.err);
    assert!(made.err.contains("fresh-metrics: time to live turned on\n"), "{}", made.err);
    assert_eq!(made.out.matches("created").count(), 8, "{}", made.out);
    assert_eq!(said(&mut state(&["check"])).await.code, Some(0));

    let again = said(&mut state(&["init", "--json"])).await;
    assert_eq!((again.code, again.err.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(told["ok"], true);
    let tables = told["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 8);
    assert!(tables.iter().all(|table| table["created"] == false), "{told}");
    engine.stop().await;
}

#[tokio::test]
async fn a_check_as_json_says_what_to_do() {
    let engine = Engine::start().await;
    let mut check = engine.state(&["check", "--json", "--table-prefix", "nowhere"]);
    let said = said(&mut check).await;
    assert_eq!(said.code, Some(1));
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(told["ok"], false);
    let table = &told["tables"][0];
    assert_eq!(table["table"], "nowhere-gpu-instances");
    assert_eq!(table["differences"][0]["kind"], "missing");
    assert_eq!(table["differences"][0]["fatal"], true);
    assert_eq!(table["differences"][0]["advice"], "run `mrgc state init`");
    engine.stop().await;
}
