#![allow(clippy::unwrap_used)]

use std::{io::Write, time::Instant};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::{
    gpu::status::{Action, PciAddress},
    signals::Status,
};

const OPENED: Duration = Duration::from_secs(1_000);
const NOW: Duration = Duration::from_secs(2_000);

const XID_79: &str = "3,7,1999000000,-;NVRM: Xid (PCI:0000:5a:00): 79, GPU has fallen off the bus.\n SUBSYSTEM=pci\n";

fn taken(bytes: &str) -> Vec<Observation> {
    Log::new(OPENED).take(bytes.as_bytes(), NOW)
}

#[test]
fn a_record_is_read() {
    let [Observation::Xid(sighting)] = taken(XID_79)[..] else { panic!("one XID") };
    assert_eq!(sighting.source, Source::KernelLog);
    assert_eq!(sighting.pci, PciAddress { domain: 0, bus: 0x5a, device: 0 });
    assert_eq!((sighting.code, sighting.action), (79, Action::Reboot));
    assert_eq!(sighting.at.since_boot, NOW, "now, by the clock that does not drift");
}

#[test]
fn what_was_there_before_keeps_its_time() {
    let old = XID_79.replace("1999000000", "5000000");
    let [Observation::Xid(sighting)] = taken(&old)[..] else { panic!("one XID") };
    assert_eq!(sighting.at.since_boot, Duration::from_secs(5));
}

#[test]
fn the_text_decides_where_the_catalogue_says_so() {
    let line = "3,7,1999000000,-;NVRM: Xid (PCI:0000:5a:00): 154, GPU recovery action changed from \
                0x0 (None) to 0x2 (Node Reboot Required)\n";
    let [Observation::Xid(sighting)] = taken(line)[..] else { panic!("one XID") };
    assert_eq!(sighting.action, Action::Reboot);
}

#[test]
fn what_is_no_xid_of_the_kernel_s_is_passed_over() {
    for line in [
        "6,7,1999000000,-;nvidia: loading out-of-tree module taints kernel.\n",
        // User space may write to the log, with a facility of its own.
        "11,7,1999000000,-;NVRM: Xid (PCI:0000:5a:00): 79, boo\n",
        "3,7,1999000000,-;boo NVRM: Xid (PCI:0000:5a:00): 79, boo\n",
        "NVRM: Xid (PCI:0000:5a:00): 79, with no head\n",
        "3,x,1999000000,-;NVRM: Xid (PCI:0000:5a:00): 79\n",
        "3,7;NVRM: Xid (PCI:0000:5a:00): 79\n",
        "\n",
        "\u{fffd}\n",
    ] {
        assert!(taken(line).is_empty(), "{line}");
    }
}

#[test]
fn the_driver_s_load_is_told() {
    for message in [
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023",
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
    ] {
        let observations = taken(&format!("5,7,1999000000,-;{message}\n"));
        assert!(matches!(observations[..], [Observation::DriverLoaded(NOW)]), "{message}");
    }
}

#[test]
fn records_that_were_missed_are_told() {
    let mut log = Log::new(OPENED);
    assert!(log.take(b"6,10,1999000000,-;a\n6,11,1999000000,-;b\n", NOW).is_empty());
    let observations = log.take(b"6,15,1999000000,-;c\n", NOW);
    let [Observation::Source(Source::KernelLog, check)] = &observations[..] else {
        panic!("{observations:?}")
    };
    assert_eq!(check.status, Status::Degraded);
    assert!(check.reason.as_ref().unwrap().starts_with("3 records"), "{check:?}");
    assert!(log.take(b"6,16,1999000000,-;d\n", NOW).is_empty());
}

#[test]
fn a_log_that_cannot_be_read_has_a_reason() {
    let (outbox, _inbox) = mpsc::channel(4);
    let reason = follow(Path::new("/nowhere/kmsg"), &outbox).unwrap_err();
    assert!(reason.starts_with("/nowhere/kmsg cannot be read: No such file"), "{reason}");
}

/// As the kernel's log does, a pipe whose writer is there says at its end that more may come.
#[test]
fn a_log_at_its_end_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    // Both ends, so that opening waits for nobody.
    let mut log = File::options().read(true).write(true).open(&path).unwrap();
    log.write_all(b"6,6,1999000000,-;a\n").unwrap();
    let (outbox, mut inbox) = mpsc::channel(4);
    let reader = thread::spawn(move || follow(&path, &outbox));
    let begun = inbox.blocking_recv().unwrap();
    assert!(matches!(begun[..], [Observation::Source(Source::KernelLog, _)]), "{begun:?}");

    thread::sleep(2 * END_PAUSE);
    let written = Instant::now();
    log.write_all(XID_79.as_bytes()).unwrap();
    let seen = inbox.blocking_recv().unwrap();
    assert!(matches!(seen[..], [Observation::Xid(_)]), "{seen:?}");
    let wait = Duration::try_from(RECORD_WAIT).unwrap();
    assert!(written.elapsed() < wait / 2, "it is not waited for, but looked at again");

    drop(inbox);
    log.write_all(XID_79.as_bytes()).unwrap();
    assert_eq!(reader.join().unwrap(), Ok(()), "nobody listens");
}

proptest! {
    #[test]
    fn it_does_not_matter_where_the_bytes_are_cut(cuts in prop::collection::vec(0..120_usize, 0..4)) {
        let mut log = Log::new(OPENED);
        let mut seen = 0;
        let mut rest = XID_79.as_bytes();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            seen += log.take(now, NOW).len();
            rest = later;
        }
        seen += log.take(rest, NOW).len();
        prop_assert_eq!(seen, 1);
    }

    #[test]
    fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut log = Log::new(OPENED);
        log.take(&bytes, NOW);
        prop_assert!(log.partial.len() <= RECORD_BYTES + bytes.len());
    }
}
