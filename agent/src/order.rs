//! `mrgc-agent drain`, `undrain` and `clean`: what somebody on this machine wants of the agent that runs here.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    check::{self, Which},
    say,
};

/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Waiting {
    #[command(flatten)]
    which: Which,
    /// Return when it is done, not when it has begun
    #[arg(long)]
    wait: bool,
    /// With --wait, the longest that this takes
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    timeout: u64,
}

/// Keeps new requests away; with `--wait`, until nothing is in flight or the deadline is over.
pub(crate) fn drain(waiting: &Waiting) -> anyhow::Result<()> {
    obey("drain", &waiting.which, waiting.limit(), |detail| {
        let over = detail["life"]["drain"]["over"].as_str();
        let is_gone = detail["lifecycle"] == "terminated";
        Ok(over.or(is_gone.then_some("terminated")).map(|end| format!("drained: {end}")))
    })
}

pub(crate) fn undrain(which: &Which) -> anyhow::Result<()> {
    obey("undrain", which, None, |_| Ok(None))
}

/// Drains and validates; with `--wait`, until it serves again or is quarantined.
pub(crate) fn clean(waiting: &Waiting) -> anyhow::Result<()> {
    obey("clean", &waiting.which, waiting.limit(), |detail| match detail["lifecycle"].as_str() {
        Some("available") => Ok(Some("clean: available".to_owned())),
        Some("quarantined") if detail["life"]["cleaning"].is_null() => {
            let reason = detail["life"]["reason"].as_str().unwrap_or("quarantined");
            bail!("not clean: {reason}")
        }
        _ => Ok(None),
    })
}

impl Waiting {
    fn limit(&self) -> Option<Duration> {
        self.wait.then(|| Duration::from_secs(self.timeout))
    }
}

/// Gives the order and, where there is a limit, waits until `is_done` says with what.
fn obey(
    order: &str,
    which: &Which,
    limit: Option<Duration>,
    is_done: impl Fn(&Value) -> anyhow::Result<Option<String>>,
) -> anyhow::Result<()> {
    let address = which.address()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = check::client()?.post(format!("http://{address}/{order}")).send().await;
        let answer = answer.with_context(|| format!("no agent answers at {address}"))?;
        let is_obeyed = answer.status().is_success();
        let said: Value = answer.json().await.context("what answers there is no mrgc-agent")?;
        if !is_obeyed {
            bail!("{}", said["detail"].as_str().unwrap_or("refused"));
        }
        let Some(limit) = limit else {
            return say(said["lifecycle"].as_str().unwrap_or("done"));
        };
        let begin = Instant::now();
        loop {
            let detail = check::ask(&address).await?;
            if let Some(end) = is_done(&detail)? {
                return say(&end);
            }
            if begin.elapsed() >= limit {
                bail!("not done within {} s: {}", limit.as_secs(), detail["lifecycle"]);
            }
            tokio::time::sleep(POLL).await;
        }
    })
}
