//! The server as a process: what it prints, that it serves, that it ends well.

use std::process::Stdio;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn the_binary_prints_its_address_serves_and_ends_on_sigterm() -> anyhow::Result<()> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mock-model-server"))
        .args(["--name", "red", "--model", "m", "--latency-ms", "0", "--tokens", "1"])
        .args(["--failure", "500", "--threads", "1", "--print-address"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("no stdout")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("it printed nothing")?;
    let address = line.strip_prefix("listening ").context(line.clone())?;

    let url = format!("http://{address}/v1/chat/completions");
    let response = reqwest::Client::new().post(url).body("{\"model\":\"m\"}").send().await?;
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["x-served-by"], "red");

    let pid = child.id().context("it has ended")?.to_string();
    let killed = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().await?;
    assert!(killed.success());
    assert!(child.wait().await?.success());
    Ok(())
}
