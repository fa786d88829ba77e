#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{
    testing::{config, enclave, nitro_cli},
    *,
};
use crate::signals::Status;

const RUNNING: &str = r#"echo '[{"State":"RUNNING","EnclaveCID":16},{"State":"TERMINATING"}]'"#;

async fn look(config: &config::Enclave) -> Reading<Enclaves> {
    Prober::new(config).look(config).await
}

#[tokio::test]
async fn all_is_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let channel = enclave(folder.path(), |question, to| {
        writeln!(to, "{}", json!({ "nonce": question["nonce"] }))
    });
    let mut config = config(&nitro_cli(folder.path(), RUNNING));
    config.channel = Some(channel);
    config.device = "/dev/null".into();
    let reading = look(&config).await;
    let enclaves = reading.value.unwrap();
    assert_eq!((enclaves.running, enclaves.listed), (1, 2));
    assert_eq!(enclaves.list[0].cid, Some(16));
    assert_eq!(enclaves.device.status, Status::Ok);
    assert_eq!(enclaves.allocator.status, Status::Missing);
    assert!(enclaves.is_healthy());
    assert_eq!(reading.check.status, Status::Ok);

    config.channel = None;
    let unasked = look(&config).await.value.unwrap();
    assert!(unasked.is_healthy() && unasked.heartbeat.is_none());
    config.channel = Some(Channel::Unix { path: "/nowhere/enclave.sock".into() });
    let silent = look(&config).await.value.unwrap();
    assert!(!silent.is_healthy());
    assert!(silent.trouble().unwrap().contains("cannot be reached at /nowhere/enclave.sock"));
}

#[tokio::test]
async fn what_the_machine_lacks_explains_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let failing = config(&nitro_cli(folder.path(), "echo '[ E19 ] File operation' >&2; exit 19"));
    let check = look(&failing).await.check;
    assert_eq!(check.status, Status::Error);
    let reason = check.reason.unwrap();
    for part in ["E19", "/nowhere/nitro_enclaves does not exist", "/nowhere/allocator.yaml does"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(look(&config("no-such-nitro-cli")).await.check.status, Status::Missing);
}

#[tokio::test]
async fn nitro_cli_logs_where_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo log > "$NITRO_CLI_LOGS_PATH/nitro_enclaves.log" && echo '[]'"#;
    let mut config = config(&nitro_cli(folder.path(), script));
    assert_eq!(look(&config).await.value.unwrap().listed, 0, "in a folder of the agent's own");
    config.logs_directory = Some(folder.path().join("logs"));
    assert_eq!(look(&config).await.value.unwrap().listed, 0);
    assert!(folder.path().join("logs/nitro_enclaves.log").exists());
}
