#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;

use mrgc_fleet::model::{Health, Lifecycle};

use super::*;
use crate::signals::Check;

fn sampled() -> Snapshot {
    let mut snapshot = Snapshot::blank();
    for check in [
        &mut snapshot.signals.gpu.check,
        &mut snapshot.signals.host.check,
        &mut snapshot.signals.enclave.check,
    ] {
        *check = Check::ok();
    }
    (snapshot.lifecycle, snapshot.assessment.health) = (Lifecycle::Available, Health::Healthy);
    snapshot.assessment.reason = None;
    snapshot
}

fn hear(manager: &UnixDatagram) -> Option<String> {
    let mut message = [0; 4_096];
    manager.set_nonblocking(true).unwrap();
    let length = manager.recv(&mut message).ok()?;
    Some(str::from_utf8(&message[..length]).unwrap().to_owned())
}

#[test]
fn each_thing_is_told_once_and_again_where_nobody_took_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let (_ask, reloads) = mpsc::channel(1);
    let notifier = Notifier::connect(path.as_os_str(), None).unwrap();
    let mut supervisor = Supervisor::new(notifier, reloads);
    // The manager is being restarted: there is no socket.
    supervisor.observe(&sampled());
    let manager = UnixDatagram::bind(&path).unwrap();

    supervisor.observe(&Snapshot::blank());
    assert_eq!(hear(&manager).unwrap(), format!("STATUS={}", status(&Snapshot::blank())));
    supervisor.observe(&sampled());
    assert_eq!(hear(&manager).as_deref(), Some("READY=1\nSTATUS=available, healthy"));
    supervisor.observe(&sampled());
    assert_eq!(hear(&manager), None, "nothing is new");
    supervisor.reloaded();
    supervisor.observe(&sampled());
    assert_eq!(hear(&manager).as_deref(), Some("READY=1"));
}

#[test]
fn the_status_is_one_short_line() {
    let mut snapshot = sampled();
    snapshot.assessment.health = Health::Degraded;
    snapshot.assessment.reason = Some("gpu: it is hot".to_owned());
    assert_eq!(status(&snapshot), "available, degraded: gpu: it is hot");
    snapshot.config.error = Some("a.toml:1: é\na.toml:2: no".repeat(40));
    let line = status(&snapshot);
    assert!(line.starts_with("reload refused (a.toml:1: é; a.toml:2: no"), "{line}");
    assert!(line.len() <= MAX_STATUS_BYTES && !line.contains('\n'), "{line}");
}
