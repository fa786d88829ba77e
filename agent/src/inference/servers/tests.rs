#![allow(clippy::unwrap_used)]

use super::*;
use crate::inference::metrics::Selector;

#[test]
fn the_table_can_be_read() {
    for server in &SERVERS {
        let gauges = server.waiting.iter().chain(server.running).chain([&server.kv_cache]).copied();
        let histograms = server.latency.iter().chain(server.first_token);
        let names = gauges.flatten().copied().chain(histograms.flat_map(|h| [h.sum, h.count]));
        for name in names {
            assert!(Selector::parse(name).is_some(), "{}: {name}", server.name);
            // What it says is recognised as its own, or as that of the engine within.
            let plain = name.split('{').next().unwrap();
            let owner = by_sample(plain).map(|owner| owner.kind);
            let is_own = owner == Some(server.kind);
            let is_engine = server.kind == Kind::Nim && matches!(owner, Some(Kind::Vllm) | None);
            assert!(is_own || is_engine, "{}: {name} is of {owner:?}", server.name);
        }
        assert_eq!(of(server.kind).unwrap().name, server.name, "one row for each kind");
    }
    for kind in [Kind::Auto, Kind::Push] {
        assert!(of(kind).is_none());
    }
}
