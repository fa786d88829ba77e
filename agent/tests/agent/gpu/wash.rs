//! The car wash and the GPUs: what computes on them is asked at once, and not when it is time.

use std::time::Instant;

use super::Machine;
use crate::support::{Engine, ModelServer};

const EMPTY: &str = "gpu 0 memory 0\ngpu 1 memory 0\n";

#[tokio::test]
async fn a_process_that_is_left_is_seen_at_once() {
    let (store, server, folder) =
        (Engine::start().await, ModelServer::start().await, tempfile::tempdir().unwrap());
    let machine = Machine::new(EMPTY);
    // Left to themselves, the GPUs would not say it before the test's deadline is over.
    let agent = machine
        .rarely(10_000)
        .store(&store)
        .inference(&server)
        .keeping(folder.path())
        .file("[cleanup]\npatience_seconds = 1\n")
        .start()
        .await;
    let lifecycle = async |expected: &str| {
        agent.health_when(expected, |_, body| body["lifecycle"] == expected).await
    };
    machine.is_heard(&agent).await;
    lifecycle("available").await;
    let began = Instant::now();
    machine.say(&format!("{EMPTY}gpu 1 process 42 1024"));
    agent.post("/clean").await;
    let body = lifecycle("quarantined").await;
    let reason = body["life"]["reason"].as_str().unwrap();
    assert!(reason.contains("compute_processes: "), "{reason}");
    assert!(reason.contains("42"), "{reason}");
    assert!(began.elapsed().as_secs() < 20);

    machine.say(EMPTY);
    agent.post("/clean").await;
    lifecycle("available").await;
}
