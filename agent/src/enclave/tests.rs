#![allow(clippy::unwrap_used)]

use std::{
    fs, os::unix::fs::PermissionsExt, os::unix::process::ExitStatusExt, process::ExitStatus,
};

use super::*;
use crate::signals::Status;

fn output(code: i32, stdout: &str, stderr: &str) -> Output {
    Output { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
}

#[test]
fn what_nitro_cli_says_is_read() {
    // As AWS's documentation of `describe-enclaves` shows it.
    let one = r#"[{"EnclaveName":"my_enclave","EnclaveID":"i-1-enc18","ProcessID":4664,"EnclaveCID":10,
        "NumberOfCPUs":2,"CPUIDs":[1,3],"MemoryMiB":512,"State":"RUNNING","Flags":"DEBUG_MODE"}]"#;
    for (stdout, expected) in [
        (one, Some((1, 1))),
        ("[]\n", Some((0, 0))),
        (r#"[{"State":"running"},{"State":"TERMINATING"}]"#, Some((1, 2))),
        (r#"[{"EnclaveCID":10}]"#, None),
        (r#"{"State":"RUNNING"}"#, None),
        ("", None),
        ("[{\"State\":", None),
    ] {
        let reading = read("nitro-cli", &output(0, stdout, ""));
        let found = reading.value.map(|enclaves| (enclaves.running, enclaves.listed));
        assert_eq!(found, expected, "{stdout}");
        if expected.is_none() {
            assert_eq!(reading.check.status, Status::Error, "{stdout}");
        }
    }
}

#[test]
fn a_failure_is_told_in_its_own_words() {
    let reading =
        read("nitro-cli", &output(39, "", "[ E39 ] Enclave process connection failure\n"));
    let reason = reading.check.reason.unwrap();
    assert_eq!(reading.value, None);
    assert!(reason.contains("exit status: 39") && reason.contains("E39"), "{reason}");
}

async fn describe_with(nitro_cli: &str) -> Reading<Enclaves> {
    describe(&config::Enclave {
        nitro_cli: nitro_cli.to_owned(),
        required: false,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(300),
    })
    .await
}

#[tokio::test]
async fn an_absent_nitro_cli_is_missing_and_a_wrong_path_is_an_error() {
    let absent = describe_with("no-such-nitro-cli").await.check;
    assert_eq!(absent.status, Status::Missing);
    assert!(absent.reason.unwrap().contains("not in PATH"));
    let wrong = describe_with("/nowhere/nitro-cli").await.check;
    assert_eq!(wrong.status, Status::Error);
    assert!(wrong.reason.unwrap().contains("enclave.nitro_cli"));
}

#[tokio::test]
async fn a_nitro_cli_that_hangs_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("nitro-cli");
    fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let reading = describe_with(program.to_str().unwrap()).await;
    assert_eq!(reading.check.status, Status::Error);
    assert!(reading.check.reason.unwrap().contains("longer than 300 ms"));
}
