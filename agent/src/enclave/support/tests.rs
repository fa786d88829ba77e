#![allow(clippy::unwrap_used)]

use super::*;
use crate::signals::Status;

const MEMINFO: &str =
    "MemTotal:       16000000 kB\nHugePages_Total:       0\nHugetlb:          524288 kB\n";

#[test]
fn a_device_is_one_that_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (path, status, says) in [
        (Path::new("/dev/null"), Status::Ok, ""),
        (&folder.path().join("absent"), Status::Missing, "with enclaves enabled"),
        (folder.path(), Status::Error, "is no device"),
    ] {
        let check = device(path);
        assert_eq!(check.status, status, "{}", path.display());
        assert!(check.reason.unwrap_or_default().contains(says));
    }
}

#[test]
fn what_the_allocator_is_asked_for_must_be_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("allocator.yaml");
    let one = "---\n# how much memory\nmemory_mib: 512\ncpu_count: 2\n";
    let list = "---\n- memory_mib: 256\n  cpu_count: 1\n- cpu_count: 1\n  memory_mib: 257 # odd\n";
    let half = "HugePages_Total: 4\n";
    for (config, meminfo, status, says) in [
        (one, MEMINFO, Status::Ok, ""),
        (list, MEMINFO, Status::Error, "asks for 513 MiB, and 512 MiB are reserved"),
        ("memory_mib: 4096\n", MEMINFO, Status::Error, "restart nitro-enclaves-allocator"),
        ("cpu_count: 2\n", MEMINFO, Status::Degraded, "names no memory_mib"),
        ("memory_mib: lots\n", MEMINFO, Status::Degraded, "names no memory_mib"),
        (one, half, Status::Degraded, "/proc/meminfo does not say"),
    ] {
        fs::write(&path, config).unwrap();
        let check = allocator(&path, meminfo);
        assert_eq!(check.status, status, "{config}");
        let reason = check.reason.unwrap_or_default();
        assert!(reason.contains(says), "{reason}");
    }
    fs::write(&path, vec![b'x'; 65 << 10]).unwrap();
    assert_eq!(allocator(&path, MEMINFO).status, Status::Error);
    assert_eq!(allocator(&folder.path().join("absent"), MEMINFO).status, Status::Missing);
}

#[test]
fn the_kernel_says_what_is_reserved() {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    assert!(reserved_mib(&meminfo).is_some(), "{meminfo}");
}
