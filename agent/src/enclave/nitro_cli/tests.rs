#![allow(clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::{
    enclave::testing::{config, nitro_cli},
    signals::Status,
};

fn output(code: i32, stdout: &str, stderr: &str) -> Output {
    Output { status: ExitStatus::from_raw(code << 8), stdout: stdout.into(), stderr: stderr.into() }
}

#[test]
fn what_nitro_cli_says_is_read() {
    // As AWS's documentation of `describe-enclaves` shows it.
    let one = r#"[{"EnclaveName":"my_enclave","EnclaveID":"i-1-enc18","ProcessID":4664,"EnclaveCID":10,
        "NumberOfCPUs":2,"CPUIDs":[1,3],"MemoryMiB":512,"State":"RUNNING","Flags":"DEBUG_MODE"}]"#;
    let expected = Enclave {
        id: Some("i-1-enc18".to_owned()),
        name: Some("my_enclave".to_owned()),
        cid: Some(10),
        state: "RUNNING".to_owned(),
        debug_mode: Some(true),
        memory_mib: Some(512),
        cpus: Some(2),
    };
    assert_eq!(read("nitro-cli", &output(0, one, "")), Ok(vec![expected]));

    let bare = |state: &str| Enclave { state: state.to_owned(), ..Enclave::default() };
    for (stdout, expected) in [
        ("[]\n", vec![]),
        (r#"[{"State":"running"}]"#, vec![bare("RUNNING")]),
        (r#"[{"state":"Running"}]"#, vec![bare("RUNNING")]),
        (
            r#"[{"State":"TERMINATING"},{"State":"EMPTY"}]"#,
            vec![bare("TERMINATING"), bare("EMPTY")],
        ),
        (
            r#"[{"enclave_id":"e","enclave_cid":16,"state":"RUNNING","flags":"NONE"}]"#,
            vec![Enclave {
                id: Some("e".to_owned()),
                cid: Some(16),
                debug_mode: Some(false),
                ..bare("RUNNING")
            }],
        ),
        (r#"[{"State":"RUNNING","EnclaveCID":-1,"MemoryMiB":"512"}]"#, vec![bare("RUNNING")]),
    ] {
        assert_eq!(read("nitro-cli", &output(0, stdout, "")), Ok(expected), "{stdout}");
    }
    for stdout in [
        r#"[{"EnclaveCID":10}]"#,
        r#"[{"State":7}]"#,
        r#"{"State":"RUNNING"}"#,
        "",
        "[{\"State\":",
        &format!("[{}]", vec![r#"{"State":"RUNNING"}"#; 65].join(",")),
    ] {
        let check = read("nitro-cli", &output(0, stdout, "")).unwrap_err();
        assert_eq!(check.status, Status::Error, "{stdout}");
    }
}

#[test]
fn a_failure_is_told_in_its_own_words() {
    let failed = output(39, "", "[ E39 ] Enclave process connection failure\n");
    let reason = read("nitro-cli", &failed).unwrap_err().reason.unwrap();
    assert!(reason.contains("exit status: 39") && reason.contains("E39"), "{reason}");
    let silent = read("nitro-cli", &output(1, "", "")).unwrap_err().reason.unwrap();
    assert!(silent.ends_with("(it said nothing)"), "{silent}");
}

async fn check(nitro_cli: &str) -> Check {
    let config = config::Enclave { timeout: Duration::from_millis(500), ..config(nitro_cli) };
    describe(&config, &Logs::Theirs).await.unwrap_err()
}

#[tokio::test]
async fn an_absent_nitro_cli_is_missing_and_a_wrong_path_is_an_error() {
    let absent = check("no-such-nitro-cli").await;
    assert_eq!(absent.status, Status::Missing);
    assert!(absent.reason.unwrap().contains("not in PATH"));
    let wrong = check("/nowhere/nitro-cli").await;
    assert_eq!(wrong.status, Status::Error);
    assert!(wrong.reason.unwrap().contains("enclave.nitro_cli"));
    let no_program = check("/etc/passwd").await;
    assert_eq!(no_program.status, Status::Error);
    assert!(no_program.reason.unwrap().contains("Permission denied"));
}

#[tokio::test]
async fn one_that_hangs_or_floods_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    for (script, expected) in [
        ("exec sleep 60", "longer than 500 ms"),
        ("exec cat /dev/zero", "wrote more than 65536 bytes"),
        // It is not waited for what it starts and leaves behind.
        ("sleep 5 & exit 0", "longer than 500 ms"),
    ] {
        let found = check(&nitro_cli(folder.path(), script)).await;
        assert_eq!(found.status, Status::Error, "{script}");
        let reason = found.reason.unwrap();
        assert!(reason.contains(expected), "{script}: {reason}");
    }
}

#[tokio::test]
async fn what_it_complains_about_at_length_does_not_hold_it_up() {
    let folder = tempfile::tempdir().unwrap();
    let script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo '[]'";
    let config = config(&nitro_cli(folder.path(), script));
    let config = config::Enclave { timeout: Duration::from_secs(20), ..config };
    assert_eq!(describe(&config, &Logs::Theirs).await, Ok(vec![]));
}
