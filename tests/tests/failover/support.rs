//! What these tests share.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mrgc_tests::cluster::{Router, binary_path};
use tokio::{process::Command, sync::Mutex, sync::MutexGuard};

/// For a command of the operator's.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Of a router's log, where a test fails.
const LOG_LINES: usize = 40;

/// Two cores hold one fleet of three regions at a time.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

/// What `mrgc` prints, asking a router.
pub(crate) async fn mrgc(router: &Router, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary_path("mrgc")?);
    command.args(args).args(["--router", &router.control_url("")]).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_LIMIT, command.output()).await;
    let output = output.with_context(|| format!("mrgc {args:?} does not end"))??;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "mrgc {args:?} ({}): {out}{err}", output.status);
    Ok(out)
}

/// What routers have logged, the last of it.
pub(crate) fn logs<'a>(routers: impl IntoIterator<Item = &'a Router>) -> String {
    let logs = routers.into_iter().map(|router| {
        let log = router.program.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("--- {} {}\n{last}\n", router.region, router.control)
    });
    logs.collect()
}
