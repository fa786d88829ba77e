//! SIGHUP, a store that is killed and comes back, SIGKILL and SIGTERM, one after the other: after each, the
//! store holds what is true of the instance.
//!
//! With `MRGC_TEST_LONG`, which `cargo xtask test --long` sets, at the intervals that agents have by default.

use std::time::Duration;

use mrgc_fleet::model::{Lifecycle, Report};
use tokio::time::sleep;

use crate::support::{Engine, Setup};

struct Pace {
    variables: &'static [(&'static str, &'static str)],
    outage: Duration,
    /// As long as an agent may be silent while nothing happens.
    silence: Duration,
}

const SHORT: Pace =
    Pace { variables: &[], outage: Duration::from_secs(2), silence: Duration::ZERO };

const LONG: Pace = Pace {
    variables: &[
        ("MRGC_AGENT__HEARTBEAT__INTERVAL_SECONDS", "10"),
        ("MRGC_AGENT__HEARTBEAT__MODE", "adaptive"),
        ("MRGC_AGENT__DRAIN__SETTLE_SECONDS", "3"),
    ],
    outage: Duration::from_secs(60),
    silence: Duration::from_secs(30),
};

/// The next report after `before` that says the instance is available.
async fn next(store: &Engine, before: &Report) -> Report {
    store
        .report_when("the next heartbeat", |report| {
            report.generation == before.generation
                && report.sequence > before.sequence
                && report.lifecycle == Lifecycle::Available
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_signal_and_no_outage_leaves_a_wrong_state() {
    let is_long = std::env::var_os("MRGC_TEST_LONG").is_some();
    let Pace { variables, outage, silence } = if is_long { LONG } else { SHORT };
    let folder = tempfile::tempdir().unwrap();
    let store = Engine::start().await;
    let start = async |store: &Engine| {
        Setup::new().store(store).keeping(folder.path()).with(variables).start().await
    };
    let agent = start(&store).await;
    let is_available = |report: &Report| report.lifecycle == Lifecycle::Available;
    let first = store.report_when("available", is_available).await;

    for (text, outcome) in [("level = \"debug\"", "applied"), ("levle = \"debug\"", "refused")] {
        agent.reload(&format!("[log]\n{text}\n")).await;
        let counted = format!("mrgc_agent_config_reloads_total{{outcome=\"{outcome}\"}} 1");
        agent.metrics_say(&counted).await;
    }
    sleep(silence).await;
    let reloaded = next(&store, &first).await;

    let (address, data) = store.kill().await;
    sleep(outage).await;
    assert_eq!(agent.health().await.0, 200, "it serves without the store");
    let store = Engine::start_at(address, data).await;
    sleep(silence).await;
    let resumed = next(&store, &reloaded).await;

    agent.kill().await;
    let left = store.standing().await.unwrap().report.unwrap();
    assert_eq!((left.generation, left.lifecycle), (resumed.generation, Lifecycle::Available));
    let mut agent = start(&store).await;
    let is_next = |report: &Report| report.generation > left.generation && is_available(report);
    store.report_when("registered anew", is_next).await;

    agent.signal("TERM").await;
    assert!(agent.exit().await.success());
    assert_eq!(store.standing().await, None, "it has left");
    store.stop().await;
}
