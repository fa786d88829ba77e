//! What turns a monitor, and what does not.

use super::*;

/// Else a router whose probes another process sends would turn for nothing, a thousand times a second.
#[test]
fn nothing_is_due_for_a_process_that_does_not_probe() {
    for (probes, expected) in [(Some(ProbeConfig::default()), true), (None, false)] {
        let mut rig = Rig::new(&[("us", 4)]);
        rig.monitor =
            Monitor::new(Settings { probes, ..rig.monitor.settings.clone() }, Timestamp(0));
        rig.read();
        rig.now_ms += 30 * SECOND;
        rig.evaluate();
        let is_due = rig.monitor.next_ms(rig.now_ms) <= rig.now_ms;
        assert_eq!(is_due, expected, "{probes:?}");
    }
}

#[test]
fn an_order_for_a_region_that_is_not_registered_makes_none() {
    let mut rig = Rig::new(&[("us", 4)]);
    let gone = RegionOrder {
        wish: Wish::FailOver { to: None, strategy: crate::failover::Strategy::Immediate },
        ..left_to_the_evidence("gone")
    };
    rig.orders = vec![gone];
    for _ in 0..3 {
        rig.pass(SECOND, &[], &[]);
        assert_eq!(rig.monitor.handler().status().len(), 1);
        assert!(rig.monitor.handler().history().is_empty());
    }
}

#[test]
fn a_ping_that_was_missed_yesterday_is_no_beginning_of_todays_failover() {
    let mut rig = Rig::new(&[("us", 4), ("eu", 10)]);
    let sick = reporting("eu-0", "eu", |report| report.health = Health::Unhealthy);
    rig.standings[4] = sick.standing;
    rig.pass(10 * SECOND, &[], &[]);
    rig.pass(SECOND / 2, &["eu"], &[]);
    rig.pass(60 * SECOND, &[], &[]);
    assert_eq!(rig.state("eu").0, RegionState::Normal, "9 of 10");
    rig.pass(2 * SECOND, &["eu"], &[]);
    let open = rig.monitor.handler().history();
    let [event] = &open[..] else { unreachable!("{open:?}") };
    assert!(event.duration_ms.is_some_and(|ms| ms <= SECOND), "{event:?}");
}
