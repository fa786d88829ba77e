//! The examples run and print what they are there to show.

// Each example brings what they have in common.
#![allow(clippy::duplicate_mod)]

#[path = "../examples/instance_registry.rs"]
#[allow(dead_code)]
mod instance_registry;
#[path = "../examples/metrics_collector.rs"]
#[allow(dead_code)]
mod metrics_collector;
#[path = "../examples/state_manager.rs"]
#[allow(dead_code)]
mod state_manager;

use crate::support::{Engine, Folder};

fn assert_lines(printed: &[u8], expected: &[&str]) {
    let printed = String::from_utf8_lossy(printed);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "`{expected}` is not in `{line}`");
    }
}

#[tokio::test]
async fn the_state_manager() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let mut printed = Vec::new();
    state_manager::run(&engine.store().await, &mut printed).await.unwrap();
    let expected = [
        "registered i-1234567890abcdef0 under generation 1",
        "refused: ",
        "i-1234567890abcdef0: available, queue Some(0)",
        "1 in us-east-1, model-a",
        "deregistered; 0 left in us-east-1",
    ];
    assert_lines(&printed, &expected);
    engine.stop().await;
}

#[tokio::test]
async fn the_instance_registry() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let mut printed = Vec::new();
    instance_registry::run(&engine.store().await, &mut printed).await.unwrap();
    let expected =
        ["score 85.5", "i-1234567890abcdef0: score=85.50, queue=2", "draining: 0 available"];
    assert_lines(&printed, &expected);
    engine.stop().await;
}

#[tokio::test]
async fn the_metrics_collector() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let mut printed = Vec::new();
    metrics_collector::run(&engine.store().await, &mut printed).await.unwrap();
    let expected = [
        // Within a thirty-second of 150, 195 and 199.
        "Latency of model-a: P50 152 ms, P95 193 ms, P99 200 ms",
        "Model load time: 32.5 s",
        "Total RPS: 45.20",
        "Total Instances: 0",
        "Avg Queue Depth: not measured",
    ];
    assert_lines(&printed, &expected);
    engine.stop().await;
}
