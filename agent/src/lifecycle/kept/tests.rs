#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, symlink};

use super::{super::MAX_REASON_BYTES, *};

fn keeper(directory: &Path) -> Keeper {
    Keeper::new(directory, "i-1")
}

fn quarantine(cause: QuarantineCause, reason: &str) -> Kept {
    let stamp = Some(mrgc_fleet::model::Stamp { epoch: 1, sequence: 7 });
    let quarantine = Some(Quarantine { cause, reason: reason.to_owned(), stamp });
    Kept { drained: true, owes_cleanup: true, quarantine }
}

#[test]
fn what_was_kept_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    assert_eq!(keeper.load(), Kept::default(), "nothing was");
    for kept in [
        Kept { drained: true, ..Kept::default() },
        quarantine(QuarantineCause::FailedCleanup, "paths: /scratch"),
        Kept::default(),
    ] {
        keeper.save(kept.clone()).unwrap();
        assert_eq!(keeper.load(), kept);
    }
}

#[test]
fn the_record_takes_no_room_that_it_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    keeper.save(Kept::default()).unwrap();
    let before = fs::metadata(&keeper.file).unwrap();
    // As much of a reason as a life lets through, and what JSON makes of odd characters.
    let longest = "\u{1}".repeat(MAX_REASON_BYTES);
    keeper.save(quarantine(QuarantineCause::UnfitGpu, &longest)).unwrap();
    let after = fs::metadata(&keeper.file).unwrap();
    assert_eq!((before.len(), before.ino()), (4_096, after.ino()), "written over itself");
    assert_eq!((before.len(), before.blocks()), (after.len(), after.blocks()));
}

#[test]
fn a_disk_that_is_full_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    symlink("/dev/full", folder.path().join(FILE_NAME)).unwrap();
    let error = keeper(folder.path()).save(Kept::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_record_of_another_machine_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    keeper(folder.path()).save(quarantine(QuarantineCause::FailedCleanup, "x")).unwrap();
    assert_eq!(Keeper::new(folder.path(), "i-2").load(), Kept::default());
}

#[test]
fn a_reboot_gives_a_gpu_another_chance_and_a_disk_none() {
    for (cause, stays) in
        [(QuarantineCause::UnfitGpu, false), (QuarantineCause::FailedCleanup, true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let before = keeper(folder.path());
        before.save(quarantine(cause, "x")).unwrap();
        let after = Keeper { boot: Some("another".to_owned()), ..before };
        assert_eq!(after.load().quarantine.is_some(), stays, "{cause:?}");
        assert!(after.load().drained);
    }
}

#[test]
fn what_cannot_be_read_may_have_been_a_quarantine() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = keeper(folder.path());
    for (text, is_quarantined) in [
        (&b"{\"instance\": \"i-1\""[..], true),
        (b"\xff\xfe", true),
        (&[0; 4_096], false),
        (b"", false),
    ] {
        fs::write(&keeper.file, text).unwrap();
        let quarantine = keeper.load().quarantine;
        assert_eq!(quarantine.is_some(), is_quarantined, "{text:?}");
        assert!(quarantine.is_none_or(|q| q.cause == QuarantineCause::LostRecord));
    }
}
