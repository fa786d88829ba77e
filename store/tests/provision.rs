//! Making the tables, and telling what is wrong with those that are there.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ProvisionedThroughput,
    ScalarAttributeType, TimeToLiveSpecification,
};
use mrgc_store::{
    Difference, Inspection, ProvisionOptions, ProvisionStep, Store, StoreConfig, StoreError,
    table_definitions,
};

use crate::support::{Engine, Folder, config, table};

/// A store over tables that are not there yet, beside those of the test.
async fn bare(engine: &Engine) -> (Store, String) {
    let config = config(engine.address);
    let prefix = format!("{}-bare", config.table_prefix);
    let store = Store::connect(&StoreConfig { table_prefix: prefix.clone(), ..config }).await;
    (store.unwrap(), prefix)
}

async fn create(store: &Store, recovery: bool) -> Result<Vec<(String, ProvisionStep)>, StoreError> {
    let mut steps = Vec::new();
    let options = ProvisionOptions { point_in_time_recovery: recovery, ..Default::default() };
    store.create_tables(&options, |table, step| steps.push((table.to_owned(), step))).await?;
    Ok(steps)
}

fn of(inspections: &[Inspection], name: &str) -> Inspection {
    inspections.iter().find(|inspection| inspection.table == name).unwrap().clone()
}

async fn remove(engine: &Engine, prefix: &str) {
    for definition in table_definitions() {
        let name = format!("{prefix}-{}", definition.name);
        engine.client().delete_table().table_name(name).send().await.unwrap();
    }
}

#[tokio::test]
async fn tables_are_created_once_and_then_fit() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let (store, prefix) = bare(&engine).await;
    let missing = store.inspect().await.unwrap();
    assert_eq!(missing.len(), 8);
    assert!(missing.iter().all(|i| i.differences == [Difference::Missing]), "{missing:?}");

    let steps = create(&store, false).await.unwrap();
    let count = |steps: &[(String, ProvisionStep)], step| {
        steps.iter().filter(|(_, done)| *done == step).count()
    };
    assert_eq!(count(&steps, ProvisionStep::Created), 8);
    assert_eq!(count(&steps, ProvisionStep::Active), 8);
    let expiring = table_definitions().filter(|table| table.ttl_attribute.is_some()).count();
    let unsupported = ProvisionStep::Unsupported("time to live");
    assert_eq!(count(&steps, ProvisionStep::TimeToLive) + count(&steps, unsupported), expiring);
    store.check().await.unwrap();
    let inspected = store.inspect().await.unwrap();
    assert!(inspected.iter().all(|i| i.differences.is_empty()), "{inspected:?}");

    let again = create(&store, false).await.unwrap();
    assert_eq!(count(&again, ProvisionStep::Exists), 8);
    assert_eq!(count(&again, ProvisionStep::Created) + count(&again, ProvisionStep::TimeToLive), 0);
    remove(&engine, &prefix).await;
    engine.stop().await;
}

#[tokio::test]
async fn two_operators_at_once_are_as_good_as_one() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let (store, prefix) = bare(&engine).await;
    let (one, other) = tokio::join!(create(&store, false), create(&store, false));
    let steps = [one.unwrap(), other.unwrap()].concat();
    let created = steps.iter().filter(|(_, step)| *step == ProvisionStep::Created).count();
    assert_eq!(created, 8, "{steps:?}");
    store.check().await.unwrap();
    remove(&engine, &prefix).await;
    engine.stop().await;
}

/// An engine either turns it on or has no such feature; both end well.
#[tokio::test]
async fn recovery_is_turned_on_when_asked_for() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let steps = create(&engine.store().await, true).await.unwrap();
    let recovery = steps.iter().filter(|(_, step)| {
        matches!(
            step,
            ProvisionStep::PointInTimeRecovery
                | ProvisionStep::Unsupported("point-in-time recovery")
        )
    });
    assert_eq!(recovery.count(), 8, "{steps:?}");
    engine.stop().await;
}

/// Removes `name` and makes it anew with another key and provisioned capacity.
async fn spoil(engine: &Engine, name: &str) {
    let client = engine.client();
    client.delete_table().table_name(table(name)).send().await.unwrap();
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let attribute =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::N);
    let capacity =
        ProvisionedThroughput::builder().read_capacity_units(1).write_capacity_units(1).build();
    let request = client
        .create_table()
        .table_name(table(name))
        .billing_mode(BillingMode::Provisioned)
        .provisioned_throughput(capacity.unwrap())
        .key_schema(key.build().unwrap())
        .attribute_definitions(attribute.build().unwrap());
    // An engine may take a moment to forget the old one.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = request.clone().send().await {
        assert!(Instant::now() < deadline, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn every_difference_is_told_and_none_is_repaired_by_force() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    spoil(&engine, "regions").await;
    engine.client().delete_table().table_name(table("policies")).send().await.unwrap();

    let error = store.check().await.unwrap_err();
    let text = error.to_string();
    let StoreError::WrongSchema { differences } = error else { panic!("{text}") };
    assert_eq!(differences.0.len(), 2, "{text}");
    for expected in [
        format!(
            "`{}`: its key is id (HASH, N), it must be pk (HASH, S), sk (RANGE, S)",
            table("regions")
        ),
        format!("`{}`: it does not exist", table("policies")),
        "`mrgc state init`".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected} is not in: {text}");
    }
    let inspected = store.inspect().await.unwrap();
    let regions = of(&inspected, &table("regions")).differences;
    assert!(matches!(regions[0], Difference::Key { .. }), "{regions:?}");
    assert!(matches!(&regions[1], Difference::Billing { found } if found == "PROVISIONED"));
    assert_eq!(of(&inspected, &table("policies")).differences, [Difference::Missing]);
    assert_eq!(inspected.iter().map(|i| i.differences.len()).sum::<usize>(), 3);

    // What is missing comes back; the other key stays.
    create(&store, false).await.unwrap();
    let inspected = store.inspect().await.unwrap();
    assert_eq!(of(&inspected, &table("regions")).differences, regions);
    assert_eq!(of(&inspected, &table("policies")).differences, []);
    engine.stop().await;
}

#[tokio::test]
async fn another_time_to_live_is_told_and_left() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    let inspected = store.inspect().await.unwrap();
    if of(&inspected, &table("metrics")).unknown.contains(&"time to live") {
        println!("skipped: the engine does not know times to live");
        return engine.stop().await;
    }
    for (attribute, enabled) in [("expires_at", false), ("ends", true)] {
        let specification =
            TimeToLiveSpecification::builder().attribute_name(attribute).enabled(enabled).build();
        let request = engine.client().update_time_to_live().table_name(table("metrics"));
        let request = request.time_to_live_specification(specification.unwrap());
        request.send().await.unwrap();
    }
    let other = Difference::TimeToLive { found: Some("ends".to_owned()), expected: "expires_at" };
    for _ in 0..2 {
        let inspected = store.inspect().await.unwrap();
        assert_eq!(of(&inspected, &table("metrics")).differences, std::slice::from_ref(&other));
        create(&store, false).await.unwrap();
    }
    // It says nothing against a program's start.
    store.check().await.unwrap();
    engine.stop().await;
}
