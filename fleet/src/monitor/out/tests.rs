#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::{
    failover::Thresholds,
    health::{PeerConfig, ProbeConfig, ProbeResult},
    model::{Report, Timestamp},
    monitor::{Reading, Settings},
    testing::{POOL, desired, member, region},
};

const SECOND: u64 = 1_000;

fn monitor() -> Monitor {
    let settings = Settings {
        home: "us".into(),
        router: "us-1".to_owned(),
        stale_after_ms: 35 * SECOND,
        probes: Some(ProbeConfig { failure_threshold: 0, ..ProbeConfig::default() }),
        peers: PeerConfig::default(),
        thresholds: Thresholds::default(),
        max_drained_share: 0.3,
    };
    Monitor::new(settings, Timestamp(0))
}

fn read(monitor: &mut Monitor, standings: &[Arc<Standing>], now_ms: u64) {
    let regions = vec![region("us")];
    let standings = standings.to_vec();
    monitor.read(Reading { regions, standings, ..Reading::default() }, SECOND, now_ms);
}

fn standing(id: &str, change: impl FnOnce(&mut Standing)) -> Arc<Standing> {
    let mut standing = member(id, "us").standing;
    change(Arc::make_mut(&mut standing));
    standing
}

fn reporting(change: impl FnOnce(&mut Report)) -> impl FnOnce(&mut Standing) {
    move |standing| change(standing.report.as_mut().unwrap())
}

#[test]
fn every_reason_is_told_in_words_and_whoever_serves_has_none() {
    let drained = |standing: &mut Standing| {
        let mut wish = desired("drained", DesiredState::Draining);
        (wish.operator, wish.reason) = (Some("ada".to_owned()), Some("ticket 4711".to_owned()));
        standing.desired = Some(wish);
        reporting(|report| report.lifecycle = Lifecycle::Draining)(standing);
    };
    let hung = reporting(|report| {
        (report.health, report.reason) = (Health::Unhealthy, Some("its server hangs".to_owned()));
    });
    let standings = [
        standing("well", |_| {}),
        standing("drained", drained),
        standing("hung", hung),
        standing("cleaning", reporting(|report| report.lifecycle = Lifecycle::Cleaning)),
        standing("new", |standing| standing.report = None),
        standing("again", reporting(|report| report.generation += 1)),
        standing("impaired", |_| {}),
    ];
    let mut monitor = monitor();
    read(&mut monitor, &standings, 0);
    monitor.impaired([("impaired".into(), "EC2: system status impaired".to_owned())].into());
    let expected = [
        ("again", "it has not reported since it registered"),
        ("cleaning", "it calls itself cleaning"),
        ("drained", "drained by ada: ticket 4711"),
        ("hung", "it calls itself unhealthy: its server hangs"),
        ("impaired", "EC2: system status impaired"),
        ("new", "it has not reported yet"),
    ];
    let expected = expected.map(|(id, why)| (InstanceId::from(id), why.to_owned()));
    assert_eq!(monitor.out(), expected.into());
    // Who has a reason is not ready, and the other way round.
    let snapshot = monitor.compose(Timestamp(0), Arc::clone);
    for candidate in &snapshot.instances_at_home(&POOL.into()).unwrap().candidates {
        let why = monitor.out_because(&InstanceId::from(&*candidate.id));
        assert_eq!(candidate.ready, why.is_none(), "{}: {why:?}", candidate.id);
    }
}

#[test]
fn whose_region_is_not_there_gets_no_requests() {
    let (mut monitor, standings) = (monitor(), [member("i", "eu").standing]);
    let why = |monitor: &Monitor| monitor.out_because(&"i".into());
    read(&mut monitor, &standings, 0);
    assert_eq!(why(&monitor).as_deref(), Some("its region eu is not registered"));
    let regions = vec![region("us"), region("eu")];
    let reading = Reading { regions, standings: standings.to_vec(), ..Reading::default() };
    monitor.read(reading, SECOND, SECOND);
    assert_eq!(why(&monitor), None);
    for now_ms in (SECOND..3 * SECOND).step_by(100) {
        for ping in monitor.pings_due(now_ms) {
            monitor.pinged(&ping.region, ping.number, None);
        }
    }
    assert_eq!(why(&monitor).as_deref(), Some("no router of eu answers"));
}

#[test]
fn failed_probes_and_silence_are_told_together() {
    let (mut monitor, standings) = (monitor(), [standing("i", |_| {})]);
    let mut now_ms = 0;
    while now_ms < 40 * SECOND {
        read(&mut monitor, &standings, now_ms);
        for due in monitor.probes_due(now_ms) {
            let failed = ProbeResult::Failed("answered 500".to_owned());
            monitor.probed(&due.id, failed, false, now_ms);
        }
        now_ms += SECOND;
    }
    let expected = "probes: answered 500; stale: its reports do not come";
    assert_eq!(monitor.out_because(&"i".into()).as_deref(), Some(expected));
    assert_eq!(monitor.out_because(&"gone".into()), None);
}
