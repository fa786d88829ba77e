//! `GET /metrics`: how the agent stands with the store, in the Prometheus text format. Pure. Names are a
//! contract: a dashboard reads them.

use std::fmt::{Display, Write};

use crate::{
    signals::{Heartbeats, Status},
    state::Snapshot,
};

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn text(snapshot: &Snapshot) -> String {
    let store = &snapshot.signals.store;
    let Heartbeats {
        interval_ms,
        written,
        skipped,
        failed,
        throttled,
        throttled_answers,
        retried_calls,
    } = store.heartbeats;
    let is_up = store.check.status == Status::Ok;
    let outcome = |name: &str| format!("{{outcome=\"{name}\"}}");

    let mut text = Exposition::default();
    text.family("mrgc_agent_serving", "gauge", "1 while /health answers 200.");
    text.sample("mrgc_agent_serving", "", u8::from(snapshot.is_serving()));
    text.family("mrgc_agent_store_up", "gauge", "1 while the store takes this agent's writes.");
    text.sample("mrgc_agent_store_up", "", u8::from(is_up));
    let name = "mrgc_agent_heartbeats_total";
    text.family(name, "counter", "Heartbeats that were due, by what came of them.");
    text.sample(name, &outcome("written"), written);
    text.sample(name, &outcome("skipped"), skipped);
    text.sample(name, &outcome("throttled"), throttled);
    text.sample(name, &outcome("failed"), failed.saturating_sub(throttled));
    let name = "mrgc_agent_heartbeat_interval_seconds";
    text.family(name, "gauge", "Between two heartbeats; it grows while the store throttles.");
    text.sample(name, "", interval_ms as f64 / 1_000.0);
    let name = "mrgc_agent_store_throttled_total";
    text.family(name, "counter", "Answers by which the store throttled, retries included.");
    text.sample(name, "", throttled_answers);
    let name = "mrgc_agent_store_retries_total";
    text.family(name, "counter", "Attempts at a call of the store after its first.");
    text.sample(name, "", retried_calls);
    text.0
}

/// An exposition under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}
