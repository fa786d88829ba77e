#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;

/// The environment of a test.
fn set<'a>(variables: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    |name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
}

#[test]
fn the_nearest_word_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (configured, systemd) = (path("configured/deep"), path("systemd"));
    let several = format!("{systemd}:{}", path("other"));
    let both = [("LOGS_DIRECTORY", several.as_str()), ("NITRO_CLI_LOGS_PATH", "/theirs")];
    for (logs, expected) in [
        (Logs::new(Some(Path::new(&configured)), set(&both)), Some(configured.as_str())),
        (Logs::new(None, set(&both)), Some(systemd.as_str())),
        (Logs::new(None, set(&both[1..])), None),
    ] {
        let folder = logs.variable().map(|(_, folder)| folder.to_str().unwrap().to_owned());
        assert_eq!(folder.as_deref(), expected);
        assert!(expected.is_none_or(|folder| Path::new(folder).is_dir()));
    }
}

#[test]
fn a_folder_of_its_own_is_private_and_goes_with_the_agent() {
    let logs = Logs::new(None, |_| None);
    let (name, folder) = logs.variable().unwrap();
    let folder = folder.to_owned();
    assert_eq!(name, "NITRO_CLI_LOGS_PATH");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    drop(logs);
    assert!(!folder.exists());
}

#[test]
fn the_log_is_kept_short() {
    let logs = Logs::new(None, |_| None);
    let log = logs.variable().unwrap().1.join("nitro_enclaves.log");
    logs.trim();
    for (bytes, left) in [(10, 10), (MAX_LOG_BYTES, MAX_LOG_BYTES), (MAX_LOG_BYTES + 1, 0)] {
        fs::write(&log, vec![b'x'; bytes as usize]).unwrap();
        logs.trim();
        assert_eq!(fs::metadata(&log).unwrap().len(), left);
    }
}
