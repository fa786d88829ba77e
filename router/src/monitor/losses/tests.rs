#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use mrgc_fleet::{
    failover::Thresholds,
    health::{EjectionConfig, Outcome, PeerConfig, ProbeConfig},
    model::{Health, Lifecycle, Region, Registration, Report, Standing, Timestamp},
    monitor::{Reading, Settings},
};

use super::*;
use crate::flight::{Signs, SlotTable};

const SICK: Health = Health::Unhealthy;
const LATER_MS: u64 = 20_000;

/// A region's router, by what its instances said last.
struct Rig {
    monitor: Monitor,
    table: SlotTable,
    fleet: FleetView,
}

impl Rig {
    fn new(instances: &[(&str, Health)]) -> Self {
        let settings = Settings {
            home: "us".into(),
            router: "us-1".to_owned(),
            stale_after_ms: u64::MAX,
            probes: Some(ProbeConfig::default()),
            peers: PeerConfig::default(),
            thresholds: Thresholds::default(),
            max_drained_share: 0.3,
        };
        let mut monitor = Monitor::new(settings, Timestamp(0));
        let mut table = SlotTable::new(EjectionConfig::default(), Signs::default());
        let fleet = hear(&mut monitor, &mut table, instances);
        Self { monitor, table, fleet }
    }

    fn hear(&mut self, instances: &[(&str, Health)]) {
        self.fleet = hear(&mut self.monitor, &mut self.table, instances);
    }

    fn answers(&self, instance: usize, now_ms: u64) {
        let view = home(&self.fleet);
        let permit = self.fleet.slots(view)[instance].admit(false, now_ms).unwrap();
        self.fleet.judge(view.id, permit, Outcome::Answered, now_ms);
    }

    fn lost(&self, now_ms: u64) -> Vec<bool> {
        at_home(&self.monitor, &self.fleet, now_ms);
        elsewhere(&self.monitor, &self.fleet);
        let view = home(&self.fleet);
        self.fleet.slots(view).iter().map(|slot| slot.is_lost()).collect()
    }
}

fn home(fleet: &FleetView) -> &View {
    fleet.snapshot.instances_at_home(&"p".into()).unwrap()
}

/// The reports are of a later sequence each time.
fn hear(monitor: &mut Monitor, table: &mut SlotTable, instances: &[(&str, Health)]) -> FleetView {
    let region = serde_json::json!({ "region_id": "us", "endpoint": "http://us:8000" });
    let before = instances.first().and_then(|(id, _)| monitor.standing(&(*id).into()));
    let sequence = before.and_then(|before| before.report.as_ref()).map_or(1, |r| r.sequence + 1);
    let standing = |(id, health): &(&str, Health)| {
        let report = Report {
            lifecycle: Lifecycle::Available,
            health: *health,
            ..Report::new(*id, "us", 0, sequence)
        };
        Standing::new(Registration::new(*id, "us", "p", "a:1"), Some(report)).into()
    };
    let reading = Reading {
        regions: vec![serde_json::from_value::<Region>(region).unwrap()],
        standings: instances.iter().map(standing).collect(),
        ..Reading::default()
    };
    monitor.read(reading, 1_000, 0);
    table.join(monitor.compose(Timestamp(0), Arc::clone))
}

#[test]
fn who_is_condemned_and_answers_nobody_is_lost_until_it_is_well() {
    let mut rig = Rig::new(&[("i-1", Health::Healthy), ("i-2", SICK)]);
    assert_eq!(rig.lost(LATER_MS), [false, true]);
    rig.hear(&[("i-1", Health::Healthy), ("i-2", Health::Degraded)]);
    assert_eq!(rig.lost(LATER_MS), [false, false]);
    rig.hear(&[("i-1", SICK), ("i-2", Health::Healthy)]);
    assert_eq!(rig.lost(LATER_MS), [true, false]);
}

#[test]
fn who_works_through_a_long_queue_keeps_its_requests() {
    let rig = Rig::new(&[("i-1", Health::Healthy), ("i-2", SICK)]);
    for answer in 0..20 {
        let now_ms = LATER_MS + answer * (SILENCE_MAX_MS - 1);
        rig.answers(1, now_ms);
        assert_eq!(rig.lost(now_ms), [false, false]);
        assert_eq!(rig.lost(now_ms + SILENCE_MAX_MS - 1), [false, false]);
    }
    rig.answers(1, 10 * LATER_MS);
    assert_eq!(rig.lost(10 * LATER_MS + SILENCE_MAX_MS), [false, true]);
}

#[test]
fn nobody_is_lost_where_nobody_could_take_what_waits() {
    let rig = Rig::new(&[("i-1", SICK), ("i-2", SICK)]);
    assert_eq!(rig.lost(LATER_MS), [false, false]);
}
