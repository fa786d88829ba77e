use mrgc_fleet::model::Health;

use super::*;

#[test]
fn ready_is_who_was_sampled_and_told_the_fleet() {
    let mut snapshot = Snapshot::blank();
    let reasons = |snapshot: &Snapshot| Readiness::of(snapshot).reasons;
    assert_eq!(reasons(&snapshot), ["not every part was sampled yet", "not registered yet"]);

    let signals = &mut snapshot.signals;
    for check in [&mut signals.gpu.check, &mut signals.host.check, &mut signals.enclave.check] {
        *check = Check::missing("not there");
    }
    assert_eq!(reasons(&snapshot), ["not registered yet"]);
    // A store that is silent is no reason to wait.
    snapshot.signals.store.check = Check::degraded("not registered: no answer");
    assert!(Readiness::of(&snapshot).ready);

    snapshot.signals.store.fenced = true;
    assert_eq!(reasons(&snapshot), ["another agent has registered the same id"]);
    snapshot.signals.store.fenced = false;
    snapshot.lifecycle = Lifecycle::Draining;
    snapshot.assessment.health = Health::Healthy;
    assert_eq!(reasons(&snapshot), ["draining, healthy: /health answers 503"]);
}
