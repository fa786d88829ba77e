use mrgc_fleet::model::{Health, Lifecycle};

use super::*;

#[test]
fn what_differs_is_remembered_and_the_rest_is_not() {
    let mut journal = Journal::default();
    let before = Snapshot::blank();
    let mut after = before.clone();
    assert!(journal.follow(&before, &after).is_empty());
    after.lifecycle = Lifecycle::Available;
    after.assessment.health = Health::Unhealthy;
    after.assessment.reason = Some("gpu: gone".to_owned());
    after.assessment.checks.gpu = Check::error("gone");
    after.config.error = Some("no such key".to_owned());
    after.at = Timestamp(9);
    let changes = journal.follow(&before, &after);
    let told: Vec<_> =
        changes.iter().map(|c| (c.what.as_str(), c.from, c.to, c.reason.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("lifecycle", "registering", "available", None),
            ("health", "degraded", "unhealthy", Some("gpu: gone")),
            // The GPU's first sample is no change.
            ("config", "valid", "refused", Some("no such key")),
        ]
    );
    assert!(changes.iter().all(|change| change.at == Timestamp(9)));

    let mut well = after.clone();
    well.assessment.checks.gpu = Check::ok();
    let changes = journal.follow(&after, &well);
    let last = changes.back().map(|c| (c.what.as_str(), c.from, c.to));
    assert_eq!(last, Some(("checks.gpu", "error", "ok")));
}

#[test]
fn the_oldest_are_forgotten() {
    let mut journal = Journal::default();
    let (mut one, mut other) = (Snapshot::blank(), Snapshot::blank());
    other.lifecycle = Lifecycle::Available;
    for at in 1..=100 {
        one.at = Timestamp(at);
        std::mem::swap(&mut one, &mut other);
        journal.follow(&other, &one);
    }
    let changes = journal.follow(&one, &one);
    assert_eq!(changes.len(), MAX_CHANGES);
    assert!(changes.iter().is_sorted_by_key(|change| change.at));
}
