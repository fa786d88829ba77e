use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: Option<String>,
    heartbeat: Heartbeat,
    names: Vec<String>,
    labels: BTreeMap<String, String>,
    routes: Vec<Route>,
    free: Option<serde_json::Value>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Heartbeat {
    interval_seconds: Option<u64>,
    share: f64,
    on: bool,
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Fast,
    Slow,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    path: String,
    #[serde(default)]
    weight: u32,
}

fn layers(text: &str, variables: &[(&str, &str)]) -> Layers {
    Layers::new("TEST")
        .file("test.toml", text)
        .environment(variables.iter().map(|(name, value)| (name.into(), value.into())))
}

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Problems> {
    let mut layers = layers(text, variables);
    let settings = layers.read();
    layers.finish(Some(settings))
}

#[test]
fn the_environment_lies_over_the_file() {
    let settings = read(
        "listen = \"a\"\nnames = [\"x\"]\n[heartbeat]\ninterval_seconds = 5\nshare = 1\n",
        &[
            ("TEST__HEARTBEAT__INTERVAL_SECONDS", "10"),
            ("TEST__HEARTBEAT__ON", "true"),
            ("TEST__HEARTBEAT__MODE", "slow"),
            ("TESTING__LISTEN", "not ours"),
        ],
    )
    .unwrap();
    assert_eq!(settings.listen.as_deref(), Some("a"));
    assert_eq!(settings.names, ["x"]);
    assert_eq!(
        settings.heartbeat,
        Heartbeat { interval_seconds: Some(10), share: 1.0, on: true, mode: Mode::Slow }
    );
}

#[test]
fn a_variable_is_what_is_asked_for() {
    let settings = read(
        "",
        &[
            ("TEST__LISTEN", "12345"),
            ("TEST__NAMES", "1, b ,"),
            ("TEST__LABELS", "{ a = \"b\" }"),
            ("TEST__ROUTES", "[{ path = \"/\", weight = 3 }]"),
            ("TEST__FREE", "{ n = 1 }"),
            ("TEST__HEARTBEAT__SHARE", "0.5"),
        ],
    )
    .unwrap();
    assert_eq!(settings.listen.as_deref(), Some("12345"));
    assert_eq!(settings.names, ["1", "b"]);
    assert_eq!(settings.labels["a"], "b");
    assert_eq!(settings.routes, [Route { path: "/".to_owned(), weight: 3 }]);
    assert_eq!(settings.free, Some(serde_json::json!({ "n": 1 })));
    assert_eq!(settings.heartbeat.share, 0.5);

    let settings = read("[labels]\nx = \"1\"", &[("TEST__LABELS__Y", "2")]).unwrap();
    assert_eq!(settings.labels, [("x", "1"), ("y", "2")].map(|(k, v)| (k.into(), v.into())).into());
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = "listen = 7\nlitsen = 1\n\n[heartbeat]\ninterval_seconds = -1\nshare = \"much\"\nmode = \"idle\"\n\n\
                [[routes]]\nweight = 1\n\n[[routes]]\npath = \"/\"\nweight = true\n\n[[routes]]\npath = 3\n";
    let problems =
        read(text, &[("TEST__HEARTBEAT__ON", "perhaps"), ("TEST__NAMES", "[1,")]).unwrap_err();
    let expected = "\
test.toml:1: listen: is integer `7`, expected a string
test.toml:2: litsen: there is no such key here; there are: listen, heartbeat, names, labels, routes, free
test.toml:5: heartbeat.interval_seconds: is integer `-1`, expected u64
test.toml:6: heartbeat.share: is string \"much\", expected f64
test.toml:7: heartbeat.mode: is \"idle\", expected one of: fast, slow
test.toml:9: routes[0]: `path` is missing here
test.toml:14: routes[1].weight: is boolean `true`, expected u32
test.toml:17: routes[2].path: is integer `3`, expected a string
TEST__HEARTBEAT__ON: heartbeat.on: is string \"perhaps\", expected a boolean
TEST__NAMES: names: is `[1,`, expected a list (";
    let told = problems.to_string();
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(problems.list().len(), 10);
}

#[test]
fn within_a_variable_the_variable_is_named() {
    let problems =
        read("", &[("TEST__ROUTES", "[{ path = 1 }]"), ("TEST__LISTEN__X", "1")]).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "TEST__LISTEN__X: listen: is map, expected a string\n\
         TEST__ROUTES: routes[0].path: is integer `1`, expected a string"
    );
}

#[test]
fn all_syntax_errors_are_told_and_nothing_that_follows_from_them() {
    let problems = read("listen = \nnames = [1\n\n[heartbeat\n", &[]).unwrap_err();
    assert!(problems.list().len() >= 2, "{problems}");
    assert!(problems.list().iter().all(|p| p.key.is_empty()), "{problems}");
    assert!(problems.to_string().starts_with("test.toml:1: "), "{problems}");
}

#[test]
fn checks_name_the_place_and_what_is_missing() {
    let mut layers = layers("[heartbeat]\ninterval_seconds = 0\nshare = true\n", &[]);
    let settings: Settings = layers.read();
    assert_eq!(layers.require("listen", settings.listen), None);
    layers.reject("heartbeat.interval_seconds", "is 0: choose 1 or more");
    layers.reject("heartbeat.share", "was told already");
    layers.reject("heartbeat.late", "is not set");
    assert_eq!(
        layers.finish(Some(())).unwrap_err().to_string(),
        "test.toml:1: heartbeat.late: is not set\n\
         test.toml:2: heartbeat.interval_seconds: is 0: choose 1 or more\n\
         test.toml:3: heartbeat.share: is boolean `true`, expected f64\n\
         listen: is missing: set it in test.toml, or as TEST__LISTEN"
    );
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(read("", &[]).unwrap(), Settings::default());
}

#[test]
fn problems_have_a_bound() {
    let text: String = (0..1000).map(|i| format!("unknown_{i} = 1\n")).collect();
    assert_eq!(read(&text, &[]).unwrap_err().list().len(), MAX_PROBLEMS);
}

#[test]
fn a_section_stands_alone_and_keeps_its_lines() {
    let read = |text: &str| {
        let mut layers = Layers::new("TEST")
            .file("test.toml", text)
            .section("store")
            .environment([("TEST__LISTEN".into(), "b".into())]);
        let settings: Settings = layers.read();
        layers.finish(Some(settings))
    };
    let settings = read("unknown = 1\n[store]\nlisten = \"a\"\nnames = [\"x\"]\n").unwrap();
    assert_eq!((settings.listen.as_deref(), settings.names.len()), (Some("b"), 1));
    let wrong = read("[store]\nlisten = \"a\"\nlisen = 1\n").unwrap_err().to_string();
    assert!(wrong.starts_with("test.toml:3: lisen: "), "{wrong}");
    let missing = read("listen = \"a\"\n").unwrap_err().to_string();
    assert_eq!(missing, "store: is missing: the file has no [store]");
}

#[test]
fn what_is_written_otherwise_is_told_by_key() {
    let text =
        "listen = \"a\"\nnames = [\"x\", \"y\"]\n[heartbeat]\nshare = 1.5\n[labels]\na = \"1\"\n";
    let before = layers(text, &[]).written();
    assert_eq!(before.changes(&layers(&format!("# moved\n{text}"), &[]).written()), [""; 0]);
    let later = "listen = \"a\"\nnames = [\"y\", \"x\"]\n[heartbeat]\nshare = 1.5\non = true\n";
    let later = layers(later, &[("TEST__LISTEN", "b")]).written();
    for changes in [before.changes(&later), later.changes(&before)] {
        assert_eq!(changes, ["heartbeat.on", "labels.a", "listen", "names"]);
    }
    let shown = format!("{before:?}");
    assert!(shown.contains("labels.a") && !shown.contains("1.5"), "no value is shown: {shown}");
}
