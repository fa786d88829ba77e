use super::*;
use crate::{
    failover::{RegionState, Wish},
    model::{Desired, DesiredState, Health, Report},
    testing::{POOL, desired, member, region, reporting},
};

mod actions;
mod history;
mod scenarios;
mod turns;

const SECOND: u64 = 1_000;
const HOLDER: Epochs = Epochs { health: Some(1), failover: Some(1) };

/// A router's monitor in `us`, with a clock.
struct Rig {
    monitor: Monitor,
    standings: Vec<Arc<Standing>>,
    regions: Vec<Region>,
    orders: Vec<RegionOrder>,
    /// Whose reports do not come any more.
    silent: Vec<&'static str>,
    room: usize,
    now_ms: u64,
}

impl Rig {
    /// So many instances in each region.
    fn new(instances: &[(&str, usize)]) -> Self {
        let settings = Settings {
            home: "us".into(),
            router: "us-1".to_owned(),
            stale_after_ms: 35 * SECOND,
            probes: Some(ProbeConfig::default()),
            peers: PeerConfig::default(),
            thresholds: Thresholds::default(),
            max_drained_share: 0.3,
        };
        let standings = instances.iter().flat_map(|(region, count)| {
            (0..*count).map(move |n| member(&format!("{region}-{n}"), region).standing)
        });
        let mut rig = Self {
            monitor: Monitor::new(settings, Timestamp(0)),
            standings: standings.collect(),
            regions: instances.iter().map(|(id, _)| region(id)).collect(),
            orders: Vec::new(),
            silent: Vec::new(),
            room: usize::MAX,
            now_ms: 0,
        };
        rig.read();
        rig.monitor.evaluate(0, Timestamp(0));
        rig
    }

    fn read(&mut self) {
        self.monitor.read(self.reading(), SECOND, self.now_ms);
    }

    fn reading(&self) -> Reading {
        Reading {
            regions: self.regions.clone(),
            standings: self.standings.clone(),
            orders: self.orders.clone(),
            ..Reading::default()
        }
    }

    /// Time passes while heartbeats come, every other region answers its pings but those of `silent`, and
    /// probes of `failing` fail.
    fn pass(&mut self, ms: u64, silent: &[&str], failing: &[&str]) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms += 100;
            if self.now_ms.is_multiple_of(SECOND) {
                self.beat();
                self.read();
            }
            for PingDue { region, number, .. } in self.monitor.pings_due(self.now_ms) {
                if !silent.contains(&region.as_str()) {
                    self.monitor.pinged(&region, number, Some(10.0));
                }
            }
            for ProbeDue { id, .. } in self.monitor.probes_due(self.now_ms) {
                let result = match failing.contains(&id.as_str()) {
                    true => ProbeResult::Failed("answered 500".to_owned()),
                    false => ProbeResult::Passed,
                };
                self.monitor.probed(&id, result, false, self.now_ms);
            }
            self.evaluate();
        }
    }

    fn beat(&mut self) {
        let silent = &self.silent;
        let reports =
            |standing: &&mut Arc<Standing>| !silent.contains(&standing.registration.id.as_str());
        for standing in self.standings.iter_mut().filter(reports) {
            if let Some(report) = &mut Arc::make_mut(standing).report {
                report.sequence += 1;
            }
        }
    }

    fn evaluate(&mut self) -> Vec<Output> {
        self.monitor.evaluate(self.now_ms, Timestamp(self.now_ms))
    }

    /// So many of home's instances are ejected.
    fn eject(&mut self, count: usize) {
        let home = self.monitor.home_instances();
        let ejected = home.take(count).cloned().collect();
        self.monitor.ejected(ejected);
    }

    fn actions(&mut self) -> Vec<Action> {
        self.monitor.actions(HOLDER, self.room, self.now_ms, Timestamp(self.now_ms))
    }

    fn remedies(&mut self) -> Vec<(&'static str, String)> {
        let named = |action| match action {
            Action::Replace { instance, .. } => Some(("replace", instance)),
            Action::Release { instance } => Some(("release", instance)),
            Action::Forget { instance, .. } => Some(("forget", instance)),
            Action::Scale(_) | Action::Record(_) | Action::Event(_) => None,
        };
        let remedies = self.actions().into_iter().filter_map(named);
        remedies.map(|(what, instance)| (what, instance.registration.id.to_string())).collect()
    }

    fn snapshot(&mut self) -> Snapshot {
        self.monitor.compose(Timestamp(self.now_ms), Arc::clone)
    }

    fn ready(&mut self) -> usize {
        let snapshot = self.snapshot();
        let view = snapshot.instances_at_home(&POOL.into());
        view.map_or(0, |view| view.candidates.iter().filter(|c| c.ready).count())
    }

    fn state(&self, region: &str) -> (RegionState, f64) {
        let (handler, region) = (self.monitor.handler(), region.into());
        (handler.state(&region), handler.share(&region))
    }

    /// The store shows a wish.
    fn wish(&mut self, id: &str, state: DesiredState, automatic: bool) {
        let of_it = |standing: &&mut Arc<Standing>| *standing.registration.id.as_str() == *id;
        for standing in self.standings.iter_mut().filter(of_it) {
            Arc::make_mut(standing).desired = Some(Desired { automatic, ..desired(id, state) });
        }
        self.read();
    }
}

/// Seed 1's first scenario.
#[test]
fn a_single_instance_fails_is_drained_replaced_and_released_when_it_passes_again() {
    let mut rig = Rig::new(&[("us", 5)]);
    rig.pass(30 * SECOND, &[], &[]);
    while rig.monitor.probe_failures(&"us-0".into()) == 0 {
        rig.pass(100, &[], &["us-0"]);
    }
    // The first failure is at T+0.
    rig.pass(90 * SECOND - 100, &[], &["us-0"]);
    assert_eq!((rig.ready(), rig.remedies()), (5, vec![]), "before T+90 s");
    rig.pass(100, &[], &["us-0"]);
    assert_eq!(rig.ready(), 4, "at T+90 s it gets no traffic");
    rig.pass(SECOND, &[], &["us-0"]);
    assert_eq!(rig.remedies(), [("replace", "us-0".to_owned())]);
    rig.pass(2 * SECOND, &[], &["us-0"]);
    assert_eq!(rig.remedies(), [], "once");

    rig.wish("us-0", DesiredState::Draining, true);
    rig.pass(29 * SECOND, &[], &["us-0"]);
    assert_eq!(rig.remedies(), [], "it still fails");
    rig.pass(60 * SECOND, &[], &[]);
    assert_eq!(rig.remedies(), [("release", "us-0".to_owned())], "it passed twice");
    rig.wish("us-0", DesiredState::Serving, true);
    assert_eq!(rig.ready(), 5);
}

#[test]
fn each_instance_of_home_is_probed_at_its_own_address_in_whatever_order_they_were_read() {
    let mut rig = Rig::new(&[("us", 40), ("ap", 3)]);
    rig.standings.reverse();
    rig.read();
    let mut probed = Vec::new();
    for _ in 0..300 {
        rig.now_ms += 100;
        for ProbeDue { id, address } in rig.monitor.probes_due(rig.now_ms) {
            assert_eq!(address, format!("{id}.test:8080"));
            rig.monitor.probed(&id, ProbeResult::Passed, false, rig.now_ms);
            probed.push(id);
        }
    }
    probed.sort_unstable();
    assert!(probed.iter().eq(rig.monitor.home_instances()), "{probed:?}");
}

#[test]
fn where_much_of_a_pool_fails_nobody_is_drained() {
    for (failing, drained) in [(1, 1), (3, 3), (4, 0), (10, 0)] {
        let mut rig = Rig::new(&[("us", 10)]);
        let ids: Vec<_> = (0..failing).map(|n| format!("us-{n}")).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        rig.pass(150 * SECOND, &[], &ids);
        assert_eq!(rig.remedies().len(), drained, "{failing} of 10 fail");
        assert_eq!(rig.ready(), 10 - failing);
    }
}

#[test]
fn an_operators_drain_is_not_undone_and_no_failure() {
    let mut rig = Rig::new(&[("us", 4)]);
    for id in ["us-0", "us-1", "us-2"] {
        rig.wish(id, DesiredState::Draining, false);
    }
    rig.pass(120 * SECOND, &[], &[]);
    assert_eq!((rig.ready(), rig.remedies()), (1, vec![]));
    assert_eq!(rig.state("us"), (RegionState::Normal, 1.0));
}

#[test]
fn the_clouds_word_fails_an_instance_until_it_is_taken_back() {
    let mut rig = Rig::new(&[("us", 5)]);
    rig.pass(60 * SECOND, &[], &[]);
    let reason = "system status impaired".to_owned();
    rig.monitor.impaired([("us-3".into(), reason.clone())].into());
    assert_eq!(rig.ready(), 4);
    rig.pass(SECOND, &[], &[]);
    let actions = rig.actions();
    let wanted =
        |action: &Action| matches!(action, Action::Replace { reason: said, .. } if *said == reason);
    assert!(actions.iter().any(wanted), "{actions:?}");
    rig.monitor.impaired(BTreeMap::new());
    assert_eq!(rig.ready(), 5);
}

/// Seed 4's first scenario, sooner: the region is given up within a second.
#[test]
fn a_region_whose_routers_fall_silent_is_failed_over_within_a_second() {
    let mut rig = Rig::new(&[("us", 3), ("eu", 3), ("ap", 3)]);
    rig.pass(10 * SECOND, &[], &[]);
    assert!(rig.snapshot().steering.is_normal());
    rig.pass(900, &["eu"], &[]);
    assert!(rig.monitor.is_unreachable(&"eu".into()));
    assert_eq!(rig.state("eu"), (RegionState::FailoverActive, 0.0));
    let snapshot = rig.snapshot();
    let view = snapshot.regions_with(&POOL.into()).map(|view| view.candidates.iter());
    let of_eu = |c: &crate::snapshot::Candidate| c.region.as_str() == "eu";
    let eu = view.and_then(|mut candidates| candidates.position(of_eu));
    let lanes = snapshot.steering.lanes(&POOL.into());
    assert!(eu.is_some_and(|eu| lanes[eu].closed && lanes[eu].share == 0.0), "{lanes:?}");
    let (open, summary) = (rig.monitor.handler().history(), rig.monitor.handler().summary());
    assert_eq!(summary.total_failovers, 1);
    // From the first ping that was not answered to the third.
    assert!(open[0].duration_ms.is_some_and(|ms| (400..=900).contains(&ms)), "{open:?}");

    // It answers again: back by steps, none before the hold.
    let mut shares = vec![0.0];
    for _ in 0..400 {
        rig.pass(SECOND, &[], &[]);
        let share = rig.state("eu").1;
        if shares.last() != Some(&share) {
            shares.push(share);
        }
    }
    assert_eq!(shares, [0.0, 0.25, 0.5, 0.75, 1.0]);
    assert_eq!(rig.state("eu").0, RegionState::Normal);
}

/// A stopped process, or a machine that was suspended. Whatever it does first when it goes on, a region's way
/// back takes as much time as ever in which it is looked at.
#[test]
fn while_a_router_is_held_up_no_region_comes_back() {
    type Turn = fn(&mut Rig);
    let firsts: [(&str, Turn); 4] = [
        ("judges", |rig| _ = rig.evaluate()),
        ("does its actions", |rig| _ = rig.actions()),
        ("reads the store", Rig::read),
        ("is given an order", |rig| rig.monitor.order(left_to_the_evidence("eu"), rig.now_ms)),
    ];
    for (first, go_on) in firsts {
        let mut rig = Rig::new(&[("us", 3), ("eu", 3)]);
        rig.orders = vec![left_to_the_evidence("eu")];
        rig.pass(10 * SECOND, &[], &[]);
        rig.pass(2 * SECOND, &["eu"], &[]);
        for expected in [0.0, 0.25] {
            assert_eq!(rig.state("eu").1, expected);
            rig.pass(15 * SECOND, &[], &[]);
            rig.now_ms += 60 * SECOND;
            go_on(&mut rig);
            rig.evaluate();
            rig.pass(10 * SECOND, &[], &[]);
            assert_eq!(rig.state("eu").1, expected, "it {first}, seen for 25 s");
            rig.pass(6 * SECOND, &[], &[]);
            assert_eq!(rig.state("eu").1, expected + 0.25, "it {first}, seen for 31 s");
        }
    }
}

fn left_to_the_evidence(region: &str) -> RegionOrder {
    RegionOrder {
        region: region.into(),
        wish: Wish::Automatic,
        reason: None,
        operator: None,
        at: Timestamp(0),
        writer_region: "us".into(),
        stamp: Default::default(),
    }
}

#[test]
fn what_live_requests_eject_counts_at_once() {
    let mut rig = Rig::new(&[("us", 10), ("eu", 10)]);
    rig.pass(10 * SECOND, &[], &[]);
    for (ejected, state) in [
        (2, RegionState::Normal),
        (3, RegionState::Degraded),
        (8, RegionState::FailoverActive),
        (10, RegionState::FailoverActive),
    ] {
        rig.eject(ejected);
        rig.evaluate();
        assert_eq!(rig.state("us").0, state, "{ejected} of 10 are ejected");
    }
    assert_eq!(rig.state("us").1, 0.0);
    assert!(rig.monitor.take_changes());
}

/// Else a snapshot's age would make two of one failure, and of a degraded region one that fails over.
#[test]
fn who_is_ejected_and_calls_itself_unhealthy_counts_once() {
    let mut rig = Rig::new(&[("us", 10), ("eu", 10)]);
    rig.pass(10 * SECOND, &[], &[]);
    rig.eject(4);
    for n in 0..4 {
        let sick = |report: &mut Report| (report.health, report.sequence) = (Health::Unhealthy, 99);
        rig.standings[n] = reporting(&format!("us-{n}"), "us", sick).standing;
    }
    rig.read();
    rig.evaluate();
    assert_eq!(rig.state("us").0, RegionState::Degraded, "6 of 10");
}

#[test]
fn a_silent_store_empties_nothing() {
    let mut rig = Rig::new(&[("us", 5), ("eu", 5)]);
    rig.pass(10 * SECOND, &[], &[]);
    // Nothing is read for five minutes, then once: everybody has the whole time to be heard again.
    rig.now_ms += 300 * SECOND;
    rig.evaluate();
    assert_eq!((rig.ready(), rig.state("us").0), (5, RegionState::Normal));
    rig.read();
    assert_eq!(rig.ready(), 5);
    rig.pass(20 * SECOND, &[], &[]);
    assert_eq!(rig.ready(), 5);
}

#[test]
fn whoever_holds_no_lease_writes_nothing_and_a_holders_stamps_rise() {
    let mut rig = Rig::new(&[("us", 5), ("eu", 5)]);
    rig.pass(10 * SECOND, &[], &[]);
    assert_eq!(rig.monitor.actions(Epochs::default(), rig.room, rig.now_ms, Timestamp(0)), []);
    let mut stamps = Vec::new();
    for epoch in [1, 1, 4] {
        rig.pass(6 * SECOND, &[], &[]);
        let epochs = Epochs { failover: Some(epoch), health: None };
        let actions = rig.monitor.actions(epochs, rig.room, rig.now_ms, Timestamp(0));
        let records = actions.into_iter().filter_map(|action| match action {
            Action::Record(record) => Some(record.stamp),
            _ => None,
        });
        stamps.extend(records);
    }
    assert_eq!(stamps.len(), 6, "both regions, three times");
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
}

#[test]
fn an_unhealthy_report_is_the_instances_own_word() {
    let mut rig = Rig::new(&[("us", 4)]);
    let sick = reporting("us-0", "us", |report| report.health = crate::model::Health::Unhealthy);
    rig.standings[0] = sick.standing;
    rig.read();
    rig.evaluate();
    assert_eq!(rig.ready(), 3);
    assert_eq!(rig.state("us").0, RegionState::Degraded, "3 of 4");
}

#[test]
fn evidence_condemns_an_instance_and_no_planned_drain_does() {
    type Event = fn(&mut Rig);
    let well = |_: &mut Rig| {};
    let sick = |rig: &mut Rig| {
        let report = Arc::make_mut(&mut rig.standings[0]).report.as_mut();
        let report = report.expect("it reports");
        (report.health, report.sequence) = (Health::Unhealthy, report.sequence + 1);
    };
    let impaired = |rig: &mut Rig| {
        rig.monitor.impaired([("us-0".into(), "system status impaired".to_owned())].into());
    };
    let fails = |rig: &mut Rig| rig.pass(150 * SECOND, &[], &["us-0"]);
    let falls_silent = |rig: &mut Rig| rig.now_ms += 150 * SECOND;
    let evidence: [(&str, Event, bool); 5] = [
        ("is well", well, false),
        ("calls itself unhealthy", sick, true),
        ("is impaired", impaired, true),
        ("fails its probes", fails, true),
        ("reports no more", falls_silent, true),
    ];
    for (what, happens, expected) in evidence {
        let drains = [(None, expected), (Some(true), expected), (Some(false), false)];
        for (automatic, expected) in drains {
            let mut rig = Rig::new(&[("us", 4)]);
            rig.pass(30 * SECOND, &[], &[]);
            happens(&mut rig);
            rig.monitor.read(rig.reading(), 150 * SECOND, rig.now_ms);
            if let Some(automatic) = automatic {
                rig.wish("us-0", DesiredState::Draining, automatic);
            }
            let condemned = rig.monitor.is_condemned(&"us-0".into());
            assert_eq!(condemned, expected, "it {what}, drained by a router: {automatic:?}");
        }
    }
}

#[test]
fn a_failover_that_no_holder_could_write_is_written_by_the_next() {
    let mut rig = Rig::new(&[("us", 2), ("eu", 2)]);
    rig.pass(SECOND, &[], &[]);
    rig.pass(2 * SECOND, &["eu"], &[]);
    rig.pass(300 * SECOND, &[], &[]);
    let mut written = |stored: Vec<FailoverEvent>| {
        rig.monitor.restore(stored, HOLDER.failover);
        let event = |action| if let Action::Event(event) = action { Some(event) } else { None };
        rig.actions().into_iter().filter_map(event).collect::<Vec<_>>()
    };
    let events = written(Vec::new());
    let [event] = &events[..] else { unreachable!("{events:?}") };
    assert_eq!((event.from.as_str(), event.ended_at.is_some()), ("eu", true));
    let of_another = FailoverEvent {
        id: "another's".to_owned(),
        at: Timestamp(event.at.0 + 10),
        ..event.clone()
    };
    assert_eq!(written(vec![of_another]), []);
    let of_before = FailoverEvent {
        id: "before".to_owned(),
        at: Timestamp(event.at.0 - 10),
        ended_at: Some(Timestamp(event.at.0 - 5)),
        ..event.clone()
    };
    assert_eq!(written(vec![of_before]), std::slice::from_ref(event));
}
