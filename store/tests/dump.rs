//! The state as a file, and back.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use mrgc_store::{
    DumpError, DumpReader, ExportOptions, Imported, OnConflict, ProvisionOptions, Store,
    StoreConfig, StoreError, table_definitions,
};

use crate::support::{Engine, Folder, REGION, config, region, registration, report, table};

type Item = HashMap<String, AttributeValue>;

async fn exported(store: &Store, segments: u32) -> Vec<u8> {
    let mut export = store.export(ExportOptions { segments });
    let mut file = Vec::new();
    while let Some(chunk) = export.next().await {
        file.extend(chunk.unwrap().lines);
    }
    file
}

async fn imported(store: &Store, file: &[u8], mode: OnConflict) -> Result<Imported, DumpError> {
    store.import(Cursor::new(file), mode, |_| ()).await
}

/// Other tables in the same engine.
async fn elsewhere(engine: &Engine) -> (Store, String) {
    let config = config(engine.address);
    let prefix = format!("{}-other", config.table_prefix);
    let config = StoreConfig { table_prefix: prefix.clone(), ..config };
    let store = Store::connect(&config).await.unwrap();
    store.create_tables(&ProvisionOptions::default(), |_, _| ()).await.unwrap();
    (store, prefix)
}

async fn remove(engine: &Engine, prefix: &str) {
    for definition in table_definitions() {
        let name = format!("{prefix}-{}", definition.name);
        engine.client().delete_table().table_name(name).send().await.unwrap();
    }
}

async fn stored(engine: &Engine, table: &str) -> BTreeMap<String, Item> {
    let (mut items, mut after) = (BTreeMap::new(), None);
    loop {
        let request = engine.client().scan().table_name(table).set_exclusive_start_key(after);
        let page = request.send().await.unwrap();
        items.extend(page.items.unwrap_or_default().into_iter().map(|mut item| {
            item.values_mut().for_each(trim_number);
            (format!("{:?} {:?}", item["pk"], item["sk"]), item)
        }));
        after = page.last_evaluated_key.filter(|key| !key.is_empty());
        if after.is_none() {
            return items;
        }
    }
}

/// Some engines give 150.0 back as it was written by an update, and as 150 where it was put.
fn trim_number(value: &mut AttributeValue) {
    if let AttributeValue::N(text) = value
        && let Some(whole) = text.strip_suffix(".0")
    {
        *text = whole.to_owned();
    }
}

/// An item of a version to come, with every type of attribute.
fn strange(n: usize) -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let blob = |bytes: &[u8]| Blob::new(bytes.to_vec());
    Item::from([
        ("pk".to_owned(), text("us-east-1#0")),
        ("sk".to_owned(), AttributeValue::S(format!("i-{n:06}"))),
        ("text".to_owned(), text("line\nbreak, \"quotes\" and é")),
        ("exact".to_owned(), AttributeValue::N("1234567890123456789012345678.5".to_owned())),
        ("bytes".to_owned(), AttributeValue::B(blob(&[0, 255, 10]))),
        ("yes".to_owned(), AttributeValue::Bool(true)),
        ("nothing".to_owned(), AttributeValue::Null(true)),
        ("texts".to_owned(), AttributeValue::Ss(vec!["a".to_owned()])),
        ("numbers".to_owned(), AttributeValue::Ns(vec!["1".to_owned()])),
        ("blobs".to_owned(), AttributeValue::Bs(vec![blob(&[1, 2])])),
        ("list".to_owned(), AttributeValue::L(vec![text("x"), AttributeValue::M(HashMap::new())])),
        ("filler".to_owned(), AttributeValue::S("x".repeat(2_000))),
    ])
}

async fn put(engine: &Engine, table: &str, item: Item) {
    engine.client().put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
}

#[tokio::test]
async fn everything_comes_back_as_it_was() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    store.put_region(&region(REGION)).await.unwrap();
    store.register(&registration("i-1")).await.unwrap();
    store.report(&report("i-1", 1, 1)).await.unwrap();
    // More than a page of 1 MB, so that scans go on.
    for n in 0..700 {
        put(&engine, &table("metrics"), strange(n)).await;
    }
    let (other, prefix) = elsewhere(&engine).await;
    for (segments, mode) in [(1, OnConflict::Fail), (5, OnConflict::Overwrite)] {
        let file = exported(&store, segments).await;
        let summary = DumpReader::open(&file[..]).unwrap().validate().unwrap();
        assert_eq!(summary.total(), 703);
        let done = imported(&other, &file, mode).await.unwrap();
        assert_eq!(done, Imported { written: 703, skipped: 0 });
        for definition in table_definitions() {
            let copy = stored(&engine, &format!("{prefix}-{}", definition.name)).await;
            assert_eq!(copy, stored(&engine, &table(definition.name)).await, "{definition:?}");
        }
    }
    assert_eq!(
        other.instances(&REGION.into()).await.unwrap(),
        store.instances(&REGION.into()).await.unwrap()
    );
    remove(&engine, &prefix).await;
    engine.stop().await;
}

#[tokio::test]
async fn what_is_stored_is_kept_skipped_or_written_over_as_asked() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for n in 0..30 {
        put(&engine, &table("metrics"), strange(n)).await;
    }
    let file = exported(&store, 2).await;
    let mut newer = strange(3);
    newer.insert("text".to_owned(), AttributeValue::S("newer".to_owned()));
    put(&engine, &table("metrics"), newer.clone()).await;
    let gone = engine.client().delete_item().table_name(table("metrics"));
    let key = ("pk", "sk");
    gone.key(key.0, strange(4)[key.0].clone())
        .key(key.1, strange(4)[key.1].clone())
        .send()
        .await
        .unwrap();
    let before = stored(&engine, &table("metrics")).await;

    let error = imported(&store, &file, OnConflict::Fail).await.unwrap_err();
    assert!(matches!(error, DumpError::NotEmpty { .. }), "{error}");
    assert!(error.to_string().contains(&format!("`{}`", table("metrics"))), "{error}");
    assert_eq!(stored(&engine, &table("metrics")).await, before);

    let done = imported(&store, &file, OnConflict::Skip).await.unwrap();
    assert_eq!(done, Imported { written: 1, skipped: 29 });
    let now = stored(&engine, &table("metrics")).await;
    assert_eq!(now.len(), 30);
    assert!(now.values().any(|item| *item == newer));

    let done = imported(&store, &file, OnConflict::Overwrite).await.unwrap();
    assert_eq!(done, Imported { written: 30, skipped: 0 });
    assert!(stored(&engine, &table("metrics")).await.values().all(|item| *item != newer));
    engine.stop().await;
}

#[tokio::test]
async fn a_file_that_is_wrong_at_its_end_writes_nothing_at_all() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    for n in 0..60 {
        put(&engine, &table("metrics"), strange(n)).await;
    }
    let file = exported(&store, 1).await;
    let (other, prefix) = elsewhere(&engine).await;
    let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
    let garbled = [&lines[..50].concat()[..], b"{\"table\":\n", &lines[50..].concat()].concat();
    for (broken, expected) in [
        (file[..file.len() / 2].to_vec(), "it is no item, or was cut off"),
        (lines[..lines.len() - 1].concat(), "it was cut off, export it again"),
        (garbled, "line 51: "),
    ] {
        for mode in [OnConflict::Fail, OnConflict::Skip, OnConflict::Overwrite] {
            let error = imported(&other, &broken, mode).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
    assert!(stored(&engine, &format!("{prefix}-metrics")).await.is_empty());
    remove(&engine, &prefix).await;
    engine.stop().await;
}

/// The service refuses a batch with the same key twice.
#[tokio::test]
async fn an_item_that_a_file_has_twice_in_a_row_is_written_once() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let store = engine.store().await;
    put(&engine, &table("metrics"), strange(1)).await;
    let file = String::from_utf8(exported(&store, 1).await).unwrap();
    let mut lines: Vec<&str> = file.lines().collect();
    lines.insert(1, lines[1]);
    let file = lines.join("\n").replace("\"metrics\":1", "\"metrics\":2");
    let done = imported(&store, file.as_bytes(), OnConflict::Overwrite).await.unwrap();
    assert_eq!(done, Imported { written: 1, skipped: 0 });
    engine.stop().await;
}

#[tokio::test]
async fn tables_that_are_not_there_are_told() {
    let folder = Folder::new();
    let engine = Engine::start(&folder).await;
    let file = exported(&engine.store().await, 1).await;
    let config = config(engine.address);
    let prefix = format!("{}-nowhere", config.table_prefix);
    let store = Store::connect(&StoreConfig { table_prefix: prefix, ..config }).await.unwrap();
    let mut export = store.export(ExportOptions::default());
    assert!(export.next().await.unwrap().is_ok(), "the header asks nothing");
    let error = export.next().await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::MissingTable { .. }), "{error}");
    assert!(export.next().await.is_none());
    let error = imported(&store, &file, OnConflict::Overwrite).await.unwrap_err();
    assert!(error.to_string().contains("`mrgc state init`"), "{error}");
    engine.stop().await;
}
