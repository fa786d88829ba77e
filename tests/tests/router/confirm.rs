//! `mrgc` asks on a terminal before it moves live traffic.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{PATIENCE, Router, binary_path};
use pty_process::{Command, Pty};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Child,
    time::timeout,
};

use crate::orders::Pair;

const START: [&str; 5] = ["failover", "start", "us-east-1", "--reason", "drill"];

/// The keys as a terminal sends them.
const ENTER: &str = "\r";
const END_OF_INPUT: &str = "\x04";
const INTERRUPT: &str = "\x03";

/// A terminal, and the command that runs on it.
struct Terminal {
    pty: Pty,
    child: Child,
    shown: String,
}

impl Terminal {
    fn start(router: &Router, with: impl Fn(Command) -> Command) -> Result<Self> {
        let (pty, pts) = pty_process::open()?;
        let command = Command::new(binary_path("mrgc")?)
            .args(START)
            .env("MRGC_ROUTER_URL", router.control_url(""))
            .env("USER", "ada")
            .kill_on_drop(true);
        let child = with(command).spawn(pts)?;
        Ok(Self { pty, child, shown: String::new() })
    }

    /// Reads until it is asked.
    async fn asks(&mut self) -> Result<()> {
        while !self.shown.ends_with("Go on? [y/N] ") {
            let read = timeout(PATIENCE, self.read()).await;
            ensure!(read.context("it does not ask")?, "it ended: {}", self.shown);
        }
        Ok(())
    }

    async fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.pty.write_all(keys.as_bytes()).await?)
    }

    /// Its exit code, with what was shown, and what it wrote elsewhere.
    async fn ends(mut self) -> Result<(Option<i32>, String, Output)> {
        while timeout(PATIENCE, self.read()).await.context("it does not end")? {}
        let output = timeout(PATIENCE, self.child.wait_with_output()).await??;
        Ok((output.status.code(), self.shown, output))
    }

    /// Whether there was something: a terminal that nobody has open any more fails.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 1_024];
        let read = self.pty.read(&mut bytes).await.unwrap_or(0);
        self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        read > 0
    }
}

async fn order(pair: &Pair) -> Result<Value> {
    let overview = pair.virginia.get(&pair.client, "/failover").await?;
    let regions = overview["regions"].as_array().context("no regions")?;
    let status = regions.iter().find(|status| status["region"] == "us-east-1");
    Ok(status.context("no us-east-1")?["order"].clone())
}

#[tokio::test]
async fn traffic_is_moved_where_the_answer_is_yes_and_not_otherwise() -> Result<()> {
    let pair = Pair::start().await?;
    for (keys, code, expected) in [
        ([ENTER, ""], 1, "mrgc: nothing was done"),
        (["n", ENTER], 1, "mrgc: nothing was done"),
        (["yesterday", ENTER], 1, "mrgc: nothing was done"),
        ([END_OF_INPUT, ""], 1, "\r\nmrgc: nothing was done"),
        ([INTERRUPT, ""], 130, "mrgc: interrupted"),
        (["y", INTERRUPT], 130, "mrgc: interrupted"),
    ] {
        let mut terminal = Terminal::start(&pair.virginia, |command| command)?;
        terminal.asks().await?;
        let question = "us-east-1 is NORMAL and keeps 100 % of its traffic, 1 of 1 healthy. All of its new \
            requests will go to other regions at once. Go on?";
        ensure!(terminal.shown.contains(question), "{}", terminal.shown);
        terminal.types(&keys.concat()).await?;
        let (ended, shown, _) = terminal.ends().await?;
        assert_eq!(ended, Some(code), "{keys:?}: {shown}");
        ensure!(shown.contains(expected), "{keys:?}: {shown}");
    }
    assert_eq!(order(&pair).await?, Value::Null);
    let history = pair.virginia.get(&pair.client, "/failover/history").await?;
    assert_eq!(history["orders"], Value::Array(Vec::new()), "{history}");

    for answer in ["y", "YES"] {
        let mut terminal = Terminal::start(&pair.virginia, |command| command)?;
        terminal.asks().await?;
        terminal.types(&[answer, ENTER].concat()).await?;
        let (ended, shown, _) = terminal.ends().await?;
        assert_eq!(ended, Some(0), "{answer}: {shown}");
        ensure!(shown.contains("us-east-1: failed over by ada (drill)"), "{answer}: {shown}");
    }
    assert_eq!(order(&pair).await?["operator"], "ada");
    Ok(())
}

#[tokio::test]
async fn it_asks_on_the_terminal_though_its_output_goes_elsewhere() -> Result<()> {
    let pair = Pair::start().await?;
    let json = |command: Command| command.arg("--json").stdout(Stdio::piped());
    let mut terminal = Terminal::start(&pair.virginia, json)?;
    terminal.asks().await?;
    terminal.types(&["y", ENTER].concat()).await?;
    let (ended, shown, output) = terminal.ends().await?;
    assert_eq!(ended, Some(0), "{shown}");
    let given: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(given["order"]["operator"], "ada", "{given}");

    // Where the question would not be seen, or nobody can answer it, it is not asked.
    let unseen = |command: Command| command.stderr(Stdio::piped());
    let unanswered = |command: Command| command.stdin(Stdio::null());
    let terminals =
        [Terminal::start(&pair.virginia, unseen)?, Terminal::start(&pair.virginia, unanswered)?];
    for terminal in terminals {
        let (ended, shown, output) = terminal.ends().await?;
        let err = String::from_utf8(output.stderr)?;
        assert_eq!(ended, Some(2), "{shown}{err}");
        ensure!(format!("{shown}{err}").contains("say `--yes`"), "{shown}{err}");
    }
    Ok(())
}
