#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn a_name_that_is_no_socket_is_an_error() {
    for name in ["a\0b", &"x".repeat(200)] {
        assert!(Notifier::connect(OsStr::new(name), None).is_err(), "{name:?}");
    }
}

#[test]
fn nobody_listens_and_nothing_is_missed() {
    let absent = Notifier::absent();
    assert!(absent.send("READY=1") && absent.feeding_interval().is_none());
}

#[test]
fn a_manager_that_does_not_read_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::connect(path.as_os_str(), None).unwrap();
    let sent = (0..100_000).take_while(|_| notifier.send("WATCHDOG=1")).count();
    assert!((1..100_000).contains(&sent), "its queue has a bound: {sent}");
}
