//! `mrgc instances`, beside what agents and routers write and read.

use std::{
    fs,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mrgc_fleet::model::{
    CleanupCheck, CleanupCheckKind, CleanupValidation, Desired, DesiredState, Health, Lifecycle,
    Registration, Replacement, Report, Stamp, Timestamp,
};
use mrgc_store::{Store, StoreError};
use serde_json::{Value, json};

use crate::support::{Engine, Said, eventually, said};

const EAST: &str = "us-east-1";
const WEST: &str = "us-west-2";

/// Two regions: `i-1` and `i-2` in the east, in the pools `llama` and `qwen`, and `w-1` in the west.
async fn fleet() -> (Engine, Store) {
    let engine = Engine::start().await;
    let store = engine.store().await;
    for region in [EAST, WEST] {
        let region = json!({"region_id": region, "endpoint": "http://127.0.0.1:1"});
        store.put_region(&serde_json::from_value(region).unwrap()).await.unwrap();
    }
    for (id, region, pool) in [("i-1", EAST, "llama"), ("i-2", EAST, "qwen"), ("w-1", WEST, "qwen")]
    {
        let registration =
            store.register(&Registration::new(id, region, pool, "10.0.0.1:8000")).await.unwrap();
        store.report(&report(&registration, 7)).await.unwrap();
    }
    (engine, store)
}

fn report(registration: &Registration, sequence: u64) -> Report {
    let Registration { id, region, generation, .. } = registration;
    Report {
        at: Timestamp(1_760_000_000_000),
        lifecycle: Lifecycle::Available,
        health: Health::Healthy,
        ..Report::new(id.clone(), region.clone(), *generation, sequence)
    }
}

async fn run(engine: &Engine, arguments: &[&str]) -> Said {
    said(engine.instances(arguments).env("USER", "ada")).await
}

async fn lifecycle(store: &Store, id: &str) -> Lifecycle {
    store.instance(&EAST.into(), &id.into()).await.unwrap().unwrap().lifecycle()
}

/// The cells of a table whose cells have no blanks.
fn cells(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test]
async fn a_list_has_every_region_or_what_is_asked_for() {
    let (engine, store) = fleet().await;
    store.register(&Registration::new("i-3", EAST, "llama", "10.0.0.3:8000")).await.unwrap();
    let all = run(&engine, &["list"]).await;
    assert_eq!((all.code, all.err.as_str()), (Some(0), ""), "{all:?}");
    let lines: Vec<&str> = all.out.lines().collect();
    let heads = "ID REGION POOL LIFECYCLE HEALTH WANTED REPORT AGE READY REASON";
    assert_eq!(cells(lines[0]), cells(heads));
    assert_eq!(cells(lines[1])[..7], ["i-1", EAST, "llama", "available", "healthy", "-", "7"]);
    assert_eq!(
        cells(lines[3]),
        cells("i-3 us-east-1 llama registering - - - - ? has not reported yet")
    );
    let ids = |said: &Said| -> Vec<String> {
        said.out.lines().skip(1).map(|line| cells(line)[0].to_owned()).collect()
    };
    assert_eq!(ids(&all), ["i-1", "i-2", "i-3", "w-1"]);
    assert_eq!(ids(&run(&engine, &["list", "--pool", "qwen"]).await), ["i-2", "w-1"]);
    assert_eq!(ids(&run(&engine, &["list", "--region", WEST]).await), ["w-1"]);
    let none = run(&engine, &["list", "--pool", "mistral", "--region", WEST]).await;
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    assert_eq!(none.err, format!("no instances of pool mistral in {WEST}\n"));
    engine.stop().await;
}

#[tokio::test]
async fn a_list_as_json_is_a_line_for_each_instance() {
    let (engine, _) = fleet().await;
    run(&engine, &["quarantine", "i-2", "--reason", "ECC errors"]).await;
    let said = run(&engine, &["list", "--json", "--region", EAST]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let lines: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["registration"]["id"], "i-1");
    assert_eq!(lines[0]["lifecycle"], "available");
    assert_eq!(lines[1]["lifecycle"], "quarantined");
    assert_eq!(lines[1]["report"]["lifecycle"], "available");
    assert_eq!(lines[1]["desired"]["reason"], "ECC errors");
    engine.stop().await;
}

#[tokio::test]
async fn a_release_lifts_the_quarantine_that_an_operator_set() {
    let (engine, store) = fleet().await;
    let quarantine = ["quarantine", "i-1", "i-2", "--reason", "ticket 4711"];
    let said = run(&engine, &quarantine).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(
        said.out,
        "i-1 in us-east-1: was wanted serving, now quarantined; it reports available\n\
         i-2 in us-east-1: was wanted serving, now quarantined; it reports available\n"
    );
    assert_eq!(lifecycle(&store, "i-1").await, Lifecycle::Quarantined);
    let desired = store.desired(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(desired.operator.as_deref(), Some("ada"));
    assert_eq!(desired.reason.as_deref(), Some("ticket 4711"));
    assert_eq!(desired.writer_region.as_str(), EAST);
    let listed = run(&engine, &["list", "--pool", "llama"]).await.out;
    let row = cells(listed.lines().nth(1).unwrap());
    assert_eq!((row[3], row[5]), ("quarantined", "quarantined"), "{listed}");
    assert!(listed.contains("ticket 4711"), "{listed}");

    let release = ["release", "i-1", "--reason", "GPU replaced", "--operator", "bob"];
    let said = run(&engine, &release).await;
    assert_eq!(
        said.out,
        "i-1 in us-east-1: was wanted quarantined by ada (ticket 4711), now serving; \
         it reports available\n",
        "{said:?}"
    );
    assert_eq!(lifecycle(&store, "i-1").await, Lifecycle::Available);
    assert_eq!(lifecycle(&store, "i-2").await, Lifecycle::Quarantined);
    let desired = store.desired(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!((desired.state, desired.operator.as_deref()), (DesiredState::Serving, Some("bob")));
    engine.stop().await;
}

/// The opinion is that of the region whose replica is written, wherever the instance is.
#[tokio::test]
async fn a_drain_is_written_as_of_the_replica_s_region() {
    let (engine, store) = fleet().await;
    let drain = ["drain", "i-1", "--reason", "new driver", "--aws-region", WEST];
    assert_eq!(run(&engine, &drain).await.code, Some(0));
    assert_eq!(lifecycle(&store, "i-1").await, Lifecycle::Draining);
    let desired = store.desired(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(desired.writer_region.as_str(), WEST);
    engine.stop().await;
}

#[tokio::test]
async fn an_unknown_id_is_told_with_the_regions_and_nothing_is_written() {
    let (engine, store) = fleet().await;
    let regions = format!("{EAST}, {WEST}");
    for (arguments, expected) in [
        (&["drain", "i-1", "x-1", "x-2", "--reason", "r"][..], ("`x-1`, `x-2`", &*regions)),
        (&["quarantine", "i-1", "w-1", "--reason", "r", "--region", EAST], ("`w-1`", EAST)),
        (&["release", "x-1", "--reason", "r"], ("`x-1`", &*regions)),
        (&["show", "x-1"], ("`x-1`", &*regions)),
    ] {
        let said = run(&engine, arguments).await;
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{arguments:?}: {said:?}");
        let (ids, regions) = expected;
        let expected = format!("mrgc: no instance {ids} in {regions}: `mrgc instances list`");
        assert!(said.err.starts_with(&expected), "{arguments:?}: {}", said.err);
    }
    assert_eq!(store.desired(&EAST.into(), &"i-1".into()).await.unwrap(), None);
    engine.stop().await;
}

#[tokio::test]
async fn what_could_be_two_instances_or_has_no_region_exits_with_2() {
    let (engine, store) = fleet().await;
    store.register(&Registration::new("i-1", WEST, "llama", "10.0.0.9:8000")).await.unwrap();
    let said = run(&engine, &["drain", "i-1", "--reason", "r"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("`i-1` is in us-east-1 and in us-west-2"), "{}", said.err);
    let said = run(&engine, &["drain", "i-1", "--reason", "r", "--region", WEST]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(lifecycle(&store, "i-1").await, Lifecycle::Available);

    let nobody = said_by_nobody(&engine).await;
    assert_eq!(nobody.code, Some(2));
    assert!(nobody.err.contains("say who wants it with `--operator`"), "{}", nobody.err);
    engine.stop().await;

    let engine = Engine::start().await;
    let said = run(&engine, &["list"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("no region is registered"), "{}", said.err);
    let said = run(&engine, &["list", "--region", EAST]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), "no instances in us-east-1\n"));
    engine.stop().await;
}

async fn said_by_nobody(engine: &Engine) -> Said {
    said(engine.instances(&["drain", "i-2", "--reason", "r"]).env_remove("USER")).await
}

#[tokio::test]
async fn all_that_is_known_of_an_instance_is_shown() {
    let (engine, store) = fleet().await;
    let checks = vec![CleanupCheck::failed(CleanupCheckKind::Paths, "/scratch has 3 files")];
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(7_200);
    let at = Timestamp(u64::try_from(at.as_millis()).unwrap());
    let cleanup = CleanupValidation {
        instance: "i-1".into(),
        region: EAST.into(),
        pool: "llama".into(),
        generation: 1,
        sequence: 2,
        at,
        checks,
        passed: false,
        expires_at: Store::cleanup_expires_at(at),
    };
    store.record_cleanup(&cleanup).await.unwrap();
    run(&engine, &["drain", "i-1", "--reason", "ticket 4711"]).await;
    let shown = run(&engine, &["show", "i-1"]).await;
    assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""), "{shown:?}");
    let lines: Vec<Vec<&str>> = shown.out.lines().map(cells).collect();
    for expected in [
        &["i-1", "in", EAST, "is", "draining"][..],
        &["address", "10.0.0.1:8000"],
        &["sequence", "7"],
        &["state", "draining"],
        &["operator", "ada"],
        &["reason", "ticket", "4711"],
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected:?}: {}", shown.out);
    }
    let cleanup_row = shown.out.lines().last().unwrap();
    assert!(cleanup_row.starts_with("2 h ago "), "{cleanup_row}");
    assert!(cleanup_row.ends_with(" failed   paths: /scratch has 3 files"), "{cleanup_row}");

    let told = run(&engine, &["show", "i-1", "--json"]).await;
    let told: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["lifecycle"], "draining");
    assert_eq!(told["registration"]["pool"], "llama");
    assert_eq!(told["report"]["sequence"], 7);
    assert_eq!(told["desired"]["reason"], "ticket 4711");
    assert_eq!(told["cleanups"], json!([cleanup]));
    engine.stop().await;
}

/// One that left while it was in quarantine is still known, and still in quarantine when it is back.
#[tokio::test]
async fn an_instance_that_left_is_known_while_it_is_held() {
    let (engine, store) = fleet().await;
    run(&engine, &["quarantine", "i-1", "--reason", "ECC errors"]).await;
    store.deregister(&"i-1".into(), &EAST.into(), 1).await.unwrap();
    let shown = run(&engine, &["show", "i-1"]).await;
    assert!(shown.out.starts_with("i-1 in us-east-1 is not registered\n"), "{shown:?}");
    assert!(shown.out.contains("ECC errors"), "{shown:?}");
    let released = run(&engine, &["release", "i-1", "--reason", "scrapped"]).await;
    assert!(released.out.ends_with("now serving; it is not registered\n"), "{released:?}");
    assert_eq!(run(&engine, &["show", "i-1"]).await.code, Some(1));
    engine.stop().await;
}

#[tokio::test]
async fn a_release_calls_the_replacement_off() {
    let (engine, store) = fleet().await;
    let request = request("i-1");
    store.request_replacement(&request).await.unwrap();
    let said = run(&engine, &["release", "i-1", "--reason", "GPU reseated"]).await;
    assert!(
        said.out.ends_with("it reports available; its replacement is called off\n"),
        "{said:?}"
    );
    assert_eq!(store.open_replacements(&EAST.into()).await.unwrap(), []);
    let replacement = store.replacement(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    assert_eq!(replacement.closed.unwrap().outcome, "released: GPU reseated");
    let said = run(&engine, &["release", "i-1", "--reason", "once more"]).await;
    assert!(said.out.ends_with("; it reports available\n"), "{said:?}");
    engine.stop().await;
}

fn request(instance: &str) -> Replacement {
    Replacement {
        instance: instance.into(),
        region: EAST.into(),
        pool: "llama".into(),
        generation: 1,
        reason: "answered 503".to_owned(),
        requested_by: "router us-1".to_owned(),
        requested_at: Timestamp(1),
        closed: None,
        expires_at: None,
    }
}

#[tokio::test]
async fn the_dead_are_forgotten_with_what_was_wanted_of_them() {
    let (engine, store) = fleet().await;
    for id in ["i-1", "i-2"] {
        let standing = store.instance(&EAST.into(), &id.into()).await.unwrap().unwrap();
        let report = Report { next_within_ms: Some(1), ..report(&standing.registration, 8) };
        store.report(&report).await.unwrap();
    }
    run(&engine, &["drain", "i-1", "--reason", "ticket 4711"]).await;
    store.request_replacement(&request("i-1")).await.unwrap();
    let forget = ["forget", "i-1", "i-2", "--reason", "scrapped", "--operator", "bob"];
    let said = run(&engine, &forget).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.err, "watching for 5 s whether it still reports\n");
    assert_eq!(
        said.out,
        "i-1 in us-east-1: forgotten, and that it is draining; \
         the replacement that was asked for stays open\n\
         i-2 in us-east-1: forgotten; no replacement of it is open\n"
    );
    assert_eq!(store.instances(&EAST.into()).await.unwrap(), []);
    assert_eq!(store.desired(&EAST.into(), &"i-1".into()).await.unwrap(), None);
    let trail = store.audit_trail(Timestamp(0), Timestamp(u64::MAX), 9).await.unwrap();
    let trail: Vec<_> = trail.iter().map(|r| (&*r.operator, &*r.action, &*r.subject)).collect();
    assert_eq!(trail, [("bob", "forget", "instance i-2"), ("bob", "forget", "instance i-1")]);
    assert_eq!(run(&engine, &forget).await.code, Some(1), "they are not known any more");
    engine.stop().await;
}

#[tokio::test]
async fn what_was_wanted_of_the_dead_is_told_as_it_was_after_the_watch() {
    let (engine, store) = fleet().await;
    let standing = store.instance(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    let last = Report { next_within_ms: Some(1), ..report(&standing.registration, 8) };
    store.report(&last).await.unwrap();
    let err = engine.path("err");
    let mut forget = engine.instances(&["forget", "i-1", "--reason", "r", "--operator", "bob"]);
    forget.stdout(Stdio::piped()).stderr(fs::File::create(&err).unwrap());
    let forget = forget.spawn().unwrap();
    eventually("it watches", || fs::read_to_string(&err).unwrap().starts_with("watching ")).await;
    let drain = Desired {
        instance: "i-1".into(),
        region: EAST.into(),
        state: DesiredState::Draining,
        reason: None,
        operator: Some("ada".to_owned()),
        automatic: false,
        at: Timestamp(1),
        writer_region: EAST.into(),
        stamp: Stamp::default(),
    };
    store.desire(&drain).await.unwrap();
    let said = Said::from(forget.wait_with_output().await.unwrap());
    assert!(said.out.contains("forgotten, and that it is draining; "), "{said:?}");
    engine.stop().await;
}

#[tokio::test]
async fn who_still_reports_is_forgotten_by_force_alone() {
    let (engine, store) = fleet().await;
    let standing = store.instance(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    let forget = ["forget", "i-1", "i-2", "--reason", "scrapped"];
    let beat = async {
        for sequence in 8.. {
            store.report(&report(&standing.registration, sequence)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let said = tokio::select! {
        said = run(&engine, &forget) => said,
        () = beat => unreachable!(),
    };
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.err.contains("`i-1` still reports"), "{}", said.err);
    assert_eq!(store.instances(&EAST.into()).await.unwrap().len(), 2);

    let said = run(&engine, &[&forget[..], &["--force"]].concat()).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let error = store.report(&report(&standing.registration, 1_000)).await.unwrap_err();
    assert!(matches!(error, StoreError::IllegalTransition { .. }), "{error}");
    engine.stop().await;
}

#[tokio::test]
async fn what_an_instance_says_does_not_steer_the_terminal() {
    let (engine, store) = fleet().await;
    let standing = store.instance(&EAST.into(), &"i-1".into()).await.unwrap().unwrap();
    let reason = Some("\u{1b}[2Jgone\nx-9  us-east-1".to_owned());
    let report = Report { reason, ..report(&standing.registration, 8) };
    store.report(&report).await.unwrap();
    for arguments in [&["list"][..], &["show", "i-1"]] {
        let said = run(&engine, arguments).await;
        assert!(said.out.contains("\u{fffd}[2Jgone\u{fffd}x-9  us-east-1\n"), "{said:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_list_that_lacks_something_says_so() {
    let (engine, _) = fleet().await;
    let file = engine.path("bad.jsonl");
    let text = concat!(
        r#"{"format":"mrgc-state","version":1,"table_prefix":"mrgc","tables":["gpu-instances"]}"#,
        "\n",
        r#"{"table":"gpu-instances","item":{"pk":{"S":"us-east-1#1"},"sk":{"S":"i-bad"}}}"#,
        "\n",
        r#"{"end":{"items":{"gpu-instances":1}}}"#,
        "\n",
    );
    fs::write(&file, text).unwrap();
    let imported = said(engine.state(&["import", "--on-conflict", "skip"]).arg(&file)).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let listed = run(&engine, &["list"]).await;
    assert_eq!(listed.code, Some(1), "{listed:?}");
    assert_eq!(listed.out.lines().count(), 4, "{listed:?}");
    let expected = "1 items could not be read:\n  mrgc-gpu-instances: us-east-1#1 / i-bad: ";
    assert!(listed.err.contains(expected), "{}", listed.err);
    engine.stop().await;
}
