//! What the fleet's operators ask of a region, with the times of the default configuration: from what its
//! instances answer, through probes, reports and verdicts, to the shares that requests are steered by.

use super::*;

const INSTANCES: usize = 10;
/// Between two reports of an agent.
const BEAT: u64 = 10 * SECOND;

/// What the agents of home say from a moment on.
#[derive(Clone, Copy, PartialEq)]
enum Agents {
    Well,
    /// Probes are answered, and each next report says so, too.
    Say(Health),
    /// Probes are answered with 503, and no report says why.
    Refuse,
    /// They are gone, and their servers: live requests find out first.
    Gone,
}

impl Agents {
    fn answer(self) -> ProbeResult {
        match self {
            Self::Well | Self::Say(Health::Healthy | Health::Degraded) => ProbeResult::Passed,
            Self::Say(Health::Unhealthy) | Self::Refuse => {
                ProbeResult::Failed("answered 503 Service Unavailable".to_owned())
            }
            Self::Gone => ProbeResult::Failed("connection refused".to_owned()),
        }
    }
}

impl Rig {
    /// Time passes until home's share in the snapshot is `share`: how long it took, if not too long.
    fn until(&mut self, share: f32, agents: Agents, at_most_ms: u64) -> Option<u64> {
        let begun_ms = self.now_ms;
        while self.now_ms < begun_ms + at_most_ms {
            self.now_ms += 100;
            self.report(agents);
            for PingDue { region, number, .. } in self.monitor.pings_due(self.now_ms) {
                self.monitor.pinged(&region, number, Some(10.0));
            }
            for ProbeDue { id, .. } in self.monitor.probes_due(self.now_ms) {
                self.monitor.probed(&id, agents.answer(), false, self.now_ms);
            }
            self.eject(if agents == Agents::Gone { INSTANCES } else { 0 });
            self.evaluate();
            if self.home_share() == share {
                return Some(self.now_ms - begun_ms);
            }
        }
        None
    }

    /// Reports come one after the other, each at a moment of its own, and are read each second.
    fn report(&mut self, agents: Agents) {
        let now_ms = self.now_ms;
        for (n, standing) in (0u64..).zip(&mut self.standings) {
            let is_home = standing.registration.region.as_str() == "us";
            let is_due = (now_ms + n * BEAT / INSTANCES as u64).is_multiple_of(BEAT);
            if is_due
                && !(is_home && agents == Agents::Gone)
                && let Some(report) = &mut Arc::make_mut(standing).report
            {
                report.sequence += 1;
                report.health = match agents {
                    Agents::Say(health) if is_home => health,
                    _ => Health::Healthy,
                };
            }
        }
        if now_ms.is_multiple_of(SECOND) {
            self.read();
        }
    }

    fn home_share(&mut self) -> f32 {
        let snapshot = self.snapshot();
        let lanes = snapshot.steering.lanes(&POOL.into());
        lanes.iter().find(|lane| lane.home).map_or(1.0, |lane| lane.share)
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(&[("us", INSTANCES), ("eu", INSTANCES)]);
    assert_eq!(rig.until(0.0, Agents::Well, 60 * SECOND), None);
    rig
}

/// One check of a dependency fails on every instance of a region, and all agents answer 503: within 30 s the
/// traffic is elsewhere.
///
/// Which dependencies do that is configured. By default an agent whose dependency is not required answers 200
/// with `degraded`, and no traffic moves, where the fleet's plan has 503: an instance that serves is not taken
/// out. Where 503 comes without a report that says why, only probes tell, and they take the four failures that
/// one instance takes.
#[test]
fn one_dependency_fails_and_the_traffic_shifts() {
    let unhealthy = rig().until(0.0, Agents::Say(Health::Unhealthy), 120 * SECOND);
    assert!(unhealthy.is_some_and(|ms| ms <= 30 * SECOND), "{unhealthy:?}");

    let mut rig_of_degraded = rig();
    assert_eq!(rig_of_degraded.until(0.0, Agents::Say(Health::Degraded), 120 * SECOND), None);
    assert_eq!(rig_of_degraded.home_share(), 1.0);

    let by_probes = rig().until(0.0, Agents::Refuse, 200 * SECOND);
    let expected = 90 * SECOND..=120 * SECOND;
    assert!(by_probes.is_some_and(|ms| expected.contains(&ms)), "{by_probes:?}");
}

/// All of a region fails: its traffic is elsewhere at once, where 30 s are allowed. It recovers: an instance is
/// in again after two passed probes, 30 s apart, and the region takes traffic again after a hold of 30 s, where
/// 60 s from the second pass are allowed. The first of ten instances to be back lets 5 % come, a hold later
/// all are back, and from then on a quarter comes with each step of 30 s: all of it within 190 s.
#[test]
fn a_region_fails_and_comes_back_with_both_times() {
    let mut rig = rig();
    let moved = rig.until(0.0, Agents::Gone, 60 * SECOND);
    assert!(moved.is_some_and(|ms| ms <= SECOND), "{moved:?}");
    assert_eq!(rig.until(1.0, Agents::Gone, 300 * SECOND), None);
    assert!(rig.monitor.home_instances().all(|id| rig.monitor.verdict(id).is_unhealthy()));

    let recovered_ms = rig.now_ms;
    let is_back = |rig: &Rig| {
        rig.monitor.home_instances().any(|id| *rig.monitor.verdict(id) == Verdict::Healthy)
    };
    while !is_back(&rig) {
        assert_eq!(rig.until(1.0, Agents::Well, 100), None);
    }
    let passed_ms = rig.now_ms - recovered_ms;
    assert!((30 * SECOND..=60 * SECOND).contains(&passed_ms), "two passes in {passed_ms} ms");
    for share in [0.05, 0.3, 0.55, 0.8, 1.0] {
        assert_eq!(rig.until(share, Agents::Well, 60 * SECOND), Some(30 * SECOND), "to {share}");
    }
    assert!(rig.now_ms - recovered_ms <= 190 * SECOND, "all is back");
}
