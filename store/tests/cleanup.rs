//! Cleanup validations: evidence that is added, never changed, and read from its end.

use aws_sdk_dynamodb::types::AttributeValue;
use mrgc_fleet::model::{CleanupCheck, CleanupCheckKind, CleanupValidation, Timestamp};
use mrgc_store::{Store, StoreError};

use crate::support::{Engine, Folder, Lossy, REGION, store_at, table};

/// A year in which this is still read.
const AT: Timestamp = Timestamp(4_102_444_800_000);

fn validation(instance: &str, generation: u64, sequence: u64) -> CleanupValidation {
    let checks = vec![
        CleanupCheck::passed(CleanupCheckKind::ComputeProcesses),
        CleanupCheck::passed(CleanupCheckKind::GpuMemory),
    ];
    CleanupValidation {
        instance: instance.into(),
        region: REGION.into(),
        pool: "model-a".into(),
        generation,
        sequence,
        at: AT,
        passed: CleanupValidation::verdict(&checks),
        checks,
        expires_at: Store::cleanup_expires_at(AT),
    }
}

fn failed(instance: &str, generation: u64, sequence: u64) -> CleanupValidation {
    let mut failed = validation(instance, generation, sequence);
    failed.checks.push(CleanupCheck::failed(CleanupCheckKind::Paths, "/scratch has 3 files"));
    failed.passed = false;
    failed
}

#[tokio::test]
async fn the_last_validation_is_that_of_the_highest_generation_and_sequence() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let id = "i-1".into();
    assert_eq!(store.latest_cleanup(&id).await.unwrap(), None);
    // The clock of the last one went back by an hour.
    let mut last = validation("i-1", 10, 0);
    last.at = Timestamp(AT.0 - 3_600_000);
    let all = [failed("i-1", 9, 2), validation("i-1", 9, 10), last];
    for validation in &all {
        store.record_cleanup(validation).await.unwrap();
    }
    store.record_cleanup(&failed("i-2", 1, 0)).await.unwrap();

    assert_eq!(store.latest_cleanup(&id).await.unwrap().as_ref(), Some(&all[2]));
    let newest_first: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(store.cleanups(&id, 10).await.unwrap(), newest_first);
    assert_eq!(store.cleanups(&id, 2).await.unwrap(), newest_first[..2]);
    assert_eq!(store.cleanups(&id, 0).await.unwrap(), []);
    let latest = store.latest_cleanups(&[id, "i-2".into(), "i-3".into()]).await.unwrap();
    let verdicts: Vec<_> = latest.iter().map(|(id, v)| (id.as_str(), v.passed)).collect();
    assert_eq!(verdicts, [("i-1", true), ("i-2", false)]);
    engine.stop().await;
}

#[tokio::test]
async fn evidence_cannot_be_replaced_or_contradict_itself() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.record_cleanup(&failed("i-1", 1, 0)).await.unwrap();
    let error = store.record_cleanup(&validation("i-1", 1, 0)).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");

    let mut lie = failed("i-1", 1, 1);
    lie.passed = true;
    let mut nothing = validation("i-1", 1, 1);
    nothing.checks.clear();
    let mut long = validation("i-1", 1, 1);
    long.checks[0].detail = Some("x".repeat(5_000));
    for validation in [lie, nothing, long] {
        let error = store.record_cleanup(&validation).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    }
    assert_eq!(store.latest_cleanup(&"i-1".into()).await.unwrap(), Some(failed("i-1", 1, 0)));
    engine.stop().await;
}

#[tokio::test]
async fn a_repeated_write_is_recognised() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let lossy = Lossy::before(&engine).await;
    let store = store_at(lossy.address).await;
    lossy.lose_next_answer();
    store.record_cleanup(&validation("i-1", 1, 0)).await.unwrap();
    assert!(lossy.has_lost_it());
    assert_eq!(store.counts().repeated_writes, 1);
    engine.stop().await;
}

#[tokio::test]
async fn an_unreadable_last_verdict_does_not_leave_an_older_one_in_force() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for sequence in [0, 1] {
        store.record_cleanup(&validation("i-1", 1, sequence)).await.unwrap();
    }
    let last = format!("{:020}#{:020}", 1, 1);
    for (name, value) in [
        ("passed", AttributeValue::S("maybe".to_owned())),
        ("expires_at", AttributeValue::N("1000000000".to_owned())),
    ] {
        let update = engine.client().update_item().table_name(table("cleanup-validation"));
        update
            .key("pk", AttributeValue::S("i-1".to_owned()))
            .key("sk", AttributeValue::S(last.clone()))
            .update_expression("SET #n = :v")
            .expression_attribute_names("#n", name)
            .expression_attribute_values(":v", value)
            .send()
            .await
            .unwrap();
        let latest = store.latest_cleanup(&"i-1".into()).await;
        match name {
            "passed" => assert!(matches!(latest, Err(StoreError::Corrupt { .. })), "{latest:?}"),
            // Once its time is over it is gone, corrupt or not.
            _ => assert_eq!(latest.unwrap(), Some(validation("i-1", 1, 0))),
        }
    }
    engine.stop().await;
}
