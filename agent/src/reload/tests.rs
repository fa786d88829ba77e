#![allow(clippy::unwrap_used)]

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::config::ConfigError;

const BASE: &str = "[instance]\nid = \"i-1\"\nregion = \"r\"\naddress = \"10.0.0.5:8000\"\n";

struct File(TempDir);

impl File {
    fn read(&self, text: &str) -> Result<Config, ConfigError> {
        let path = self.0.path().join("agent.toml");
        fs::write(&path, format!("{BASE}{text}")).unwrap();
        Config::load(Some(&path), [])
    }

    fn reload(&self, text: &str) -> Reload {
        self.read(text).map(Box::new)
    }
}

fn file() -> File {
    File(tempfile::tempdir().unwrap())
}

/// Another value than the default, for each key that may change while the agent runs.
const OTHERWISE: [(&str, &str, &str); LIVE_KEYS.len()] = [
    ("drain", "deadline_seconds", "7"),
    ("drain", "settle_seconds", "7"),
    ("drain", "unknown_grace_seconds", "7"),
    ("enclave", "interval_ms", "777"),
    ("enclave", "required", "true"),
    ("enclave", "timeout_ms", "777"),
    ("gpu", "deadline_ms", "777"),
    ("gpu", "interval_ms", "777"),
    ("gpu", "required", "true"),
    ("heartbeat", "interval_seconds", "7"),
    ("heartbeat", "max_interval_seconds", "77"),
    ("heartbeat", "mode", "\"fixed\""),
    ("inference", "poll_interval_ms", "777"),
    ("inference", "required", "false"),
    ("inference", "silent_polls", "7"),
    ("log", "level", "\"debug\""),
];

#[test]
fn each_live_key_changes_what_holds_at_once() {
    let file = file();
    let server = "[inference]\nurl = \"http://127.0.0.1:8000\"\n";
    for (at, (section, key, value)) in OTHERWISE.into_iter().enumerate() {
        assert_eq!(LIVE_KEYS[at], format!("{section}.{key}"));
        let mut settings = Settings::new(&file.read(server).unwrap());
        let before = settings.live().clone();
        let text = match section {
            "inference" => format!("{server}{key} = {value}\n"),
            _ => format!("{server}[{section}]\n{key} = {value}\n"),
        };
        let applied = settings.take(file.reload(&text), Timestamp(5));
        assert_eq!(applied, [LIVE_KEYS[at]]);
        assert_eq!(settings.status().restart_needed, [""; 0]);
        // The log's level is the program's to apply.
        assert_eq!(*settings.live() == before, section == "log", "{section}.{key}");
    }
}

#[test]
fn what_needs_a_restart_is_told_until_it_is_as_it_was() {
    let file = file();
    let mut settings = Settings::new(&file.read("").unwrap());
    let text = "[gpu]\nlibrary = \"/lib\"\nrequired = true\n";
    assert_eq!(settings.take(file.reload(text), Timestamp(1)), ["gpu.required"]);
    assert_eq!(settings.status().restart_needed, ["gpu.library"]);
    assert_eq!(settings.take(file.reload(text), Timestamp(2)), [""; 0], "nothing is new");
    assert_eq!(settings.status().restart_needed, ["gpu.library"]);
    assert_eq!(settings.take(file.reload(""), Timestamp(3)), ["gpu.required"]);
    assert_eq!(settings.status().restart_needed, [""; 0]);
    assert_eq!((settings.status().reloads, settings.status().reloaded_at), (3, Some(Timestamp(3))));
}

#[test]
fn a_mistake_leaves_everything_as_it_is() {
    let file = file();
    let mut settings = Settings::new(&file.read("").unwrap());
    let before = settings.live().clone();
    let applied = settings.take(file.reload("[gpu]\nrequired = true\nno = 1\n"), Timestamp(1));
    assert_eq!((applied, settings.live()), (vec![], &before));
    let status = settings.status();
    assert_eq!((status.failed_reloads, status.reloads, status.reloaded_at), (1, 0, None));
    assert!(status.error.as_ref().unwrap().contains("gpu.no"), "{:?}", status.error);
    settings.take(file.reload(""), Timestamp(2));
    assert_eq!((settings.status().error.as_ref(), settings.status().failed_reloads), (None, 1));
}

#[tokio::test]
async fn a_cadence_takes_its_new_pace_at_once() {
    let file = file();
    let slow = Live::of(&file.read("[gpu]\ninterval_ms = 300000\n").unwrap());
    let fast = Live::of(&file.read("[gpu]\ninterval_ms = 100\n").unwrap());
    let (change, settings) = watch::channel(slow);
    let mut cadence = Cadence::new(settings, |settings| settings.gpu_interval);
    let ticks = async {
        cadence.tick().await;
        change.send_replace(fast);
        let changed = time::Instant::now();
        cadence.tick().await;
        assert!(changed.elapsed() >= Duration::from_millis(100), "it ticks at its pace");
        // Nobody can change them any more.
        drop(change);
        cadence.tick().await;
    };
    time::timeout(Duration::from_secs(30), ticks).await.unwrap();
}
